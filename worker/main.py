"""The worker's entry point: `python -m worker.main gpu`, one per GPU, or `python -m worker.main housekeeping`.

The parent process listens and starts one pool process, a fresh interpreter (CUDA does not survive a fork), in which
everything happens: `worker/tasks.py`, then `worker/process.py`, then `worker/attempts.py`.
"""

import os
import secrets
import sys
import warnings
from datetime import timedelta
from functools import partial
from pathlib import Path
from tempfile import gettempdir

from celery import Celery, bootsteps
from celery.apps.worker import Worker
from celery.beat import EmbeddedService, Scheduler
from celery.platforms import SecurityWarning
from celery.signals import worker_shutting_down

from core.lifecycle import JobKind, WorkerRole, queue_name
from core.logs import configure_logs
from core.queue import DELIVER, HOUSEKEEPING_QUEUE, SWEEP, TICKS_QUEUE, configure_queue
from core.settings import Settings
from worker.parent import StopFile, end_in_time

ENGINE = "worker.engine:load_engine"
# Neither a long export nor a slow receiver of webhooks may hold up the sweeper.
POOL_SIZE = {WorkerRole.GPU: 1, WorkerRole.HOUSEKEEPING: 3}


class Clock(bootsteps.StartStopStep):
    """Celery's beat in a thread of the parent: it dies with it, and keeps no file."""

    def create(self, worker: Worker) -> object:
        """What Celery starts and stops."""
        return EmbeddedService(worker.app, thread=True, scheduler_cls=Scheduler)

    def stop(self, worker: Worker) -> None:
        """Without waiting for the thread: it may be waiting for a broker that never comes."""
        self.obj.service.stop(wait=False)

    terminate = stop


def create_worker(settings: Settings, role: WorkerRole, *, stop_file: Path, engine: str = ENGINE) -> Worker:
    """A worker that is ready to start. Its pool processes read the same environment."""
    app = configure_queue(settings)
    app.conf.update(
        include=["worker.tasks"],
        worker_pool_start_method="spawn",
        hdb_role=role.value,
        hdb_engine=engine,
        hdb_stop_file=str(stop_file),
        hdb_parent=os.getpid(),
    )
    if role is WorkerRole.HOUSEKEEPING:
        set_clock(app, settings)
    bells = queue_name(JobKind.GENERATE, settings.model_name)
    queues = [TICKS_QUEUE, HOUSEKEEPING_QUEUE] if role is WorkerRole.HOUSEKEEPING else [bells]
    worker_shutting_down.connect(lambda **_: stop_file.touch(), weak=False)
    return app.Worker(
        hostname=f"{role}.{secrets.token_hex(4)}@%h",  # several GPUs of a host have a worker each
        pool="prefork",
        concurrency=POOL_SIZE[role],
        queues=queues,
        without_gossip=True,
        without_mingle=True,
        quiet=True,
    )


def set_clock(app: Celery, settings: Settings) -> None:
    """What nobody did in time is not worth doing any more: the next tick does it all."""
    ticks = {SWEEP: settings.sweep_seconds, DELIVER: settings.webhook_seconds}
    app.conf.beat_schedule = {
        task: {
            "task": task,
            "schedule": timedelta(seconds=seconds),
            "options": {"queue": TICKS_QUEUE, "expires": seconds},
        }
        for task, seconds in ticks.items()
    }
    app.steps["worker"].add(Clock)


def main(role: WorkerRole, *, engine: str = ENGINE) -> int:
    """Work until told to stop; returns the exit code."""
    settings = Settings()
    configure_logs(settings)
    # As root Celery fears pickles; we accept JSON alone.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    # It exists from the signal to the end alone: a worker that is killed leaves nothing. No other user can guess it.
    stop_file = Path(gettempdir()) / f"hdb-worker-{secrets.token_hex(16)}.stop"
    remove_stop_file = partial(stop_file.unlink, missing_ok=True)
    end_in_time(StopFile(stop_file), settings.stop_seconds, then=remove_stop_file)
    try:
        worker = create_worker(settings, role, stop_file=stop_file, engine=engine)
        worker.start()
        return int(worker.exitcode or 0)
    finally:
        remove_stop_file()


if __name__ == "__main__":
    sys.exit(main(WorkerRole(sys.argv[1])))
