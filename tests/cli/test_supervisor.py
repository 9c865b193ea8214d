"""What dies is started again, with growing pauses."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.errors import StackError
from cli.process import Child, Part, Place
from cli.supervisor import Supervisor, describe_exit


class Sleeper(Part):
    """A real process that lives until it is killed."""

    name = "sleeper"

    def __init__(self, folder: Path, program: str = "import time; time.sleep(600)") -> None:
        self.folder, self.program, self.starts = folder, program, 0

    def begin(self) -> None:
        self.starts += 1
        self.child = Child(self.name, [sys.executable, "-c", self.program], Place(self.folder), self.folder / "log", {})
        self.child.start()

    def wait_ready(self) -> None:
        return

    def die(self) -> None:
        self.running().wait_stopped(timeout_seconds=0)

    def wait_dead(self) -> None:
        self.running().wait_stopped(timeout_seconds=10)


class Clock:
    """Time that passes when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Sleeper]:
    part = Sleeper(tmp_path)
    part.begin()
    yield part
    part.die()


def test_a_dead_part_comes_back_after_its_pause(sleeper: Sleeper) -> None:
    clock, said = Clock(), list[str]()
    supervisor = Supervisor([sleeper], said.append, clock=clock)
    sleeper.die()
    supervisor.mend()
    assert sleeper.starts == 1
    clock.now += 0.3
    supervisor.mend()
    assert sleeper.starts == 2
    assert sleeper.exit_code is None
    assert said == ["sleeper was killed by signal 9; starting it again in 0.2 s", "sleeper is back"]


def test_pauses_grow_until_a_part_has_lived_for_a_while(sleeper: Sleeper) -> None:
    clock, said = Clock(), list[str]()
    supervisor = Supervisor([sleeper], said.append, clock=clock)
    for lived in (1, 1, 1, 61):
        clock.now += lived
        sleeper.die()
        supervisor.mend()
        clock.now += 30
        supervisor.mend()
    pauses = [line.split()[-2] for line in said if "again in" in line]
    assert pauses == ["0.2", "0.8", "3.2", "0.2"]


def test_a_part_that_cannot_come_back_is_tried_again(tmp_path: Path) -> None:
    class Broken(Sleeper):
        def wait_ready(self) -> None:
            raise StackError("no room on the disk")

    part, clock, said = Broken(tmp_path, "raise SystemExit(3)"), Clock(), list[str]()
    part.begin()
    supervisor = Supervisor([part], said.append, clock=clock)
    for _ in range(2):
        part.wait_dead()
        supervisor.mend()
        clock.now += 30
        supervisor.mend()
    part.wait_dead()
    assert part.starts == 3
    assert said.count("sleeper does not come back: no room on the disk") == 2


def test_an_exit_code_is_told_in_words() -> None:
    assert describe_exit(-9) == "was killed by signal 9"
    assert describe_exit(3) == "ended with code 3"
