"""`python -m tests.worker.worker_that_never_loads gpu`: the real worker, whose networks take for ever to come."""

import os
import sys
import threading
from pathlib import Path

from core.lifecycle import WorkerRole
from core.settings import Settings
from tests.fakes import FOLDER, FakeEngine
from worker.main import main


def load_for_ever(settings: Settings) -> FakeEngine:
    (Path(os.environ[FOLDER]) / f"step-load-{os.getpid()}").touch()
    threading.Event().wait()
    raise AssertionError


if __name__ == "__main__":
    sys.exit(main(WorkerRole(sys.argv[1]), engine="tests.worker.worker_that_never_loads:load_for_ever"))
