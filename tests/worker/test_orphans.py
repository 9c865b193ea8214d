"""Objects without a row go once no request can still be about to write it; nothing else is touched."""

import time
from uuid import UUID, uuid4

import pytest

from core.object_keys import SUBJECTS, UPLOADS, photo_key, subject_prefix, upload_key
from core.storage import ObjectStore
from core.tables import Upload
from tests.factories import in_future, make_account, make_subject
from tests.worker.conftest import Bench
from worker import orphans
from worker.orphans import PLACES, Orphans

HOURS = 3600.0


def id_of(seconds_ago: float) -> UUID:
    """As `new_id` would have made it then."""
    milliseconds = int((time.time() - seconds_ago) * 1000)
    return UUID(int=milliseconds << 80 | 0x7 << 76 | 0x8 << 60 | uuid4().int >> 68)


def put(store: ObjectStore, *keys: str) -> None:
    for key in keys:
        store.put(key, b"x", content_type="image/png")


def sweep(bench: Bench) -> int:
    """As a housekeeping process that has just started."""
    return sum(Orphans(bench.sessions, bench.store, place).delete_some() for place in PLACES)


@pytest.fixture(autouse=True)
def empty_bucket(bench: Bench) -> None:
    """Other tests leave objects whose rows are gone."""
    for prefix in (SUBJECTS, UPLOADS):
        bench.store.delete_prefix(prefix)


def test_photos_of_a_request_that_never_committed_go(bench: Bench) -> None:
    lost = id_of(3 * HOURS)
    put(bench.store, photo_key(lost, 0), photo_key(lost, 1))
    assert sweep(bench) == 2
    assert list(bench.store.keys(subject_prefix(lost))) == []


def test_a_running_requests_photos_stay(bench: Bench) -> None:
    running = [id_of(0), id_of(1.9 * HOURS)]
    put(bench.store, *map(photo_key, running), *map(upload_key, running))
    assert sweep(bench) == 0
    assert len(list(bench.store.keys(SUBJECTS))) == len(list(bench.store.keys(UPLOADS))) == 2


def test_what_has_a_row_stays(bench: Bench) -> None:
    known = id_of(3 * HOURS)
    with bench.sessions.begin() as session:
        make_subject(session, id=known)
        session.add(Upload(id=known, account_id=make_account(session).id, expires_at=in_future(60)))
    put(bench.store, photo_key(known), upload_key(known))
    assert sweep(bench) == 0
    assert bench.store.get(photo_key(known)) == bench.store.get(upload_key(known)) == b"x"


def test_what_a_phone_sent_too_late_goes(bench: Bench) -> None:
    lost = id_of(3 * HOURS)
    put(bench.store, upload_key(lost))
    assert sweep(bench) == 1
    assert list(bench.store.keys(UPLOADS)) == []


def test_weights_and_strangers_are_never_touched(bench: Bench) -> None:
    lost = id_of(3 * HOURS)
    others = [f"{subject_prefix(lost)}adapters/1.safetensors", f"{SUBJECTS}readme", f"{UPLOADS}{lost.hex}"]
    put(bench.store, *others)
    assert sweep(bench) == 0
    assert sorted(key for prefix in (SUBJECTS, UPLOADS) for key in bench.store.keys(prefix)) == sorted(others)


def test_a_look_goes_on_where_the_last_one_ended(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "AT_ONCE", 2)
    lost = [id_of((10 - hour) * HOURS) for hour in range(5)]
    put(bench.store, *map(photo_key, lost))
    looking = Orphans(bench.sessions, bench.store, PLACES[0])
    assert [looking.delete_some() for _ in range(4)] == [2, 2, 1, 0]


def test_who_has_seen_all_waits_before_looking_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    looking = Orphans(bench.sessions, bench.store, PLACES[0])
    assert looking.delete_some() == 0
    put(bench.store, photo_key(id_of(3 * HOURS)))
    assert looking.delete_some() == 0
    later = time.monotonic() + orphans.EVERY_SECONDS
    monkeypatch.setattr("worker.orphans.time.monotonic", lambda: later)
    assert looking.delete_some() == 1
