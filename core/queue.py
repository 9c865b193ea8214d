"""The Celery app and the bell. A message names a queue of jobs and nothing else: it may come twice, late or never."""

import structlog
from celery import Celery
from kombu.exceptions import OperationalError
from redis import RedisError

from core.lifecycle import JobKind, queue_name
from core.settings import Settings

BELL = "worker.bell"
SWEEP = "worker.sweep"
DELIVER = "worker.deliver"
HOUSEKEEPING_QUEUE = "housekeeping"
TICKS_QUEUE = "ticks"  # of the clock: housekeeping takes them first, however many bells there are
# It must outlast every task, or the broker hands its message to a second worker. Bells are acknowledged early.
VISIBILITY_TIMEOUT_SECONDS = 3600
PUBLISH_SECONDS = 1
# A bell wakes one worker; no more of them than this wait in a queue for the same jobs.
MAX_BELLS = 8

log = structlog.get_logger()
celery_app = Celery("hdb", set_as_current=False)


def configure_queue(settings: Settings) -> Celery:
    """Point the app at the broker. Connects to nothing."""
    transport = {
        "visibility_timeout": VISIBILITY_TIMEOUT_SECONDS,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        "socket_timeout": 30,
        "socket_connect_timeout": PUBLISH_SECONDS,
        "socket_keepalive": True,
        "queue_order_strategy": "priority",  # in turns, stale ticks and slow bells would keep fresh ticks waiting
    }
    celery_app.conf.update(
        broker_url=settings.broker_url.get_secret_value(),
        broker_transport_options=transport,
        result_backend_transport_options=transport,
        visibility_timeout=VISIBILITY_TIMEOUT_SECONDS,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # a broker may be away for longer than a hundred tries
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_acks_late=False,
        task_default_queue=HOUSEKEEPING_QUEUE,
        task_create_missing_queues=True,
        worker_disable_prefetch=True,
        worker_prefetch_multiplier=1,
        worker_proc_alive_timeout=600,
        worker_hijack_root_logger=False,
        worker_enable_remote_control=False,  # who can write to the broker can ring bells, and nothing more
    )
    return celery_app


def ring(kind: JobKind, base_model: str) -> bool:
    """Tell the workers that a queue has jobs: one second, no retry. False: nobody heard; the sweeper rings again."""
    try:
        celery_app.send_task(
            BELL, args=[kind, base_model], queue=queue_name(kind, base_model), retry=False, ignore_result=True
        )
    except (OperationalError, OSError) as error:
        log.warning("bell.unheard", kind=kind, base_model=base_model, error=str(error))
        return False
    return True


def ring_again(kind: JobKind, base_model: str, jobs: int) -> None:
    """A bell for each of so many jobs, but no more than may wait: nobody answers those, and others would only fill the
    broker.
    """
    for _ in range(min(jobs, MAX_BELLS - _waiting(queue_name(kind, base_model)))):
        if not ring(kind, base_model):
            return


def _waiting(queue: str) -> int:
    """How many messages nobody has taken yet; none, as far as we know, where the broker doesn't answer."""
    try:
        with celery_app.connection_for_read(connect_timeout=PUBLISH_SECONDS) as connection:
            connection.ensure_connection(max_retries=1, timeout=PUBLISH_SECONDS)
            return int(connection.default_channel.client.llen(queue))
    except (OperationalError, OSError, RedisError):
        return 0


def broker_answers() -> bool:
    """Can a bell be rung now? Looks for a second at most."""
    try:
        with celery_app.connection_for_write(connect_timeout=PUBLISH_SECONDS) as connection:
            connection.ensure_connection(max_retries=1, timeout=PUBLISH_SECONDS)
    except (OperationalError, OSError):
        return False
    return True
