"""`python -m tests.worker.worker_with_fake_engine gpu`: the real worker in a real process, but for its networks."""

import sys

from core.lifecycle import WorkerRole
from worker.main import main

if __name__ == "__main__":
    sys.exit(main(WorkerRole(sys.argv[1]), engine="tests.fakes:load_fake_engine"))
