"""A thousand streams and a thousand long polls at once, on one process of the API."""

import asyncio
import subprocess
import sys

import pytest

from benchmarks.api.crowd import raise_own_limit, waves
from benchmarks.api.service import measured_service

STREAMS, POLLS = 1000, 1000
# What its pools allow and the listener, beside one of ours that counts and those of the bare endpoint.
MOST_CONNECTIONS = 10 + 10 + 1 + 3
MOST_MEGABYTES, MOST_GROWTH_MEGABYTES = 250, 40

LOWERED = """
import resource
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
from app.open_files import raise_open_files_limit
assert raise_open_files_limit() == hard
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
"""


@pytest.mark.slow
def test_everybody_in_a_crowd_is_told_and_leaves_nothing_behind() -> None:
    raise_own_limit()
    with measured_service() as measured:
        first, second = asyncio.run(waves(measured, streams=STREAMS, polls=POLLS))
    for wave in (first, second):
        assert wave.answers == {"stream told all": STREAMS, "poll told": POLLS}
        assert wave.connections <= MOST_CONNECTIONS
    assert first.memory_mb["all waiting"] - first.memory_mb["before"] < MOST_MEGABYTES
    assert second.memory_mb["all waiting"] - first.memory_mb["all waiting"] < MOST_GROWTH_MEGABYTES


def test_the_api_takes_as_many_sockets_as_the_system_allows() -> None:
    subprocess.run([sys.executable, "-c", LOWERED], check=True)
