"""Bells on the real broker."""

import pytest
import redis

from core.lifecycle import JobKind
from core.queue import MAX_BELLS, celery_app, configure_queue, ring, ring_again
from core.settings import Settings


@pytest.fixture
def queue(settings: Settings, broker: redis.Redis) -> str:
    configure_queue(settings)
    name = "gpu.nobody-listens"
    broker.delete(name)
    return name


def test_where_nobody_answers_only_so_many_bells_wait(broker: redis.Redis, queue: str) -> None:
    ring_again(JobKind.PERSONALIZE, "nobody-listens", 3)
    assert broker.llen(queue) == 3
    for _ in range(3):
        ring_again(JobKind.PERSONALIZE, "nobody-listens", MAX_BELLS + 5)
        assert broker.llen(queue) == MAX_BELLS
    assert ring(JobKind.PERSONALIZE, "nobody-listens")  # a caller's own is always heard
    assert broker.llen(queue) == MAX_BELLS + 1
    broker.lpop(queue, 2)
    ring_again(JobKind.GENERATE, "nobody-listens", 9)
    assert broker.llen(queue) == MAX_BELLS
    broker.delete(queue)


def test_without_a_broker_nobody_hears(queue: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[JobKind] = []

    def unheard(kind: JobKind, base_model: str) -> bool:
        tried.append(kind)
        return False

    def away(**_: object) -> None:
        raise OSError

    monkeypatch.setattr(celery_app, "connection_for_read", away)
    monkeypatch.setattr("core.queue.ring", unheard)
    ring_again(JobKind.PERSONALIZE, "nobody-listens", 9)
    assert tried == [JobKind.PERSONALIZE]
