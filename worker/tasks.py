"""What a pool process does with Celery's messages and signals. A message is a bell: the rows say what is to be done."""

from pathlib import Path

from celery import current_app
from celery.signals import setup_logging, worker_process_init, worker_process_shutdown

from core.lifecycle import JobKind, WorkerRole
from core.logs import configure_logs
from core.queue import BELL, DELIVER, SWEEP, celery_app, configure_queue
from core.settings import Settings
from worker.parent import StopFile, leave_with
from worker.process import Process, find_loader

_opened: list[Process] = []  # at most one: a pool process is a fresh interpreter


@celery_app.task(name=BELL)
def bell(kind: str, base_model: str) -> None:
    """Jobs may be waiting."""
    _opened[0].drain(JobKind(kind), base_model)


@celery_app.task(name=SWEEP)
def sweep() -> None:
    """Something may have been forgotten."""
    _opened[0].sweeper.sweep()


@celery_app.task(name=DELIVER)
def deliver() -> None:
    """Somebody may be waiting to be told."""
    _opened[0].deliver()


@setup_logging.connect
def leave_logging_alone(**_: object) -> None:
    """A receiver of this signal keeps Celery from configuring logs: `core.logs` has."""


@worker_process_init.connect
def open_process(**_: object) -> None:
    """A pool process started: nothing came with it but Celery's configuration and the environment."""
    settings, conf = Settings(), current_app.conf
    configure_logs(settings)
    configure_queue(settings)
    stop = StopFile(Path(conf.hdb_stop_file))
    process = Process(settings, WorkerRole(conf.hdb_role), stop=stop, load_engine=find_loader(conf.hdb_engine))
    _opened.append(process)
    leave_with(conf.hdb_parent, told_to_leave=process.is_loading_in_vain, leave=process.close)
    process.open()


@worker_process_shutdown.connect
def close_process(**_: object) -> None:
    """A pool process ends in good order."""
    while _opened:
        _opened.pop().close()
