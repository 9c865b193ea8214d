import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hyperdreambooth.memory import CPU_SHARE, available_bytes, cgroup_rooms, machine_room

CPU = torch.device("cpu")
MEGABYTE = 2**20


def group(folder: Path, *, version: int, limit: str, used: int, files: int = 0) -> None:
    """A control group with a limit."""
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in zip(names, (limit, str(used)), strict=True):
        (folder / name).write_text(f"{content}\n")
    (folder / "memory.stat").write_text(f"anon 7\ninactive_file {files}\n")


@pytest.mark.parametrize(("version", "line"), [(2, "0::/outer/own"), (1, "4:cpu,memory:/outer/own")])
def test_every_group_around_the_process_limits_it(tmp_path: Path, version: int, line: str) -> None:
    top = tmp_path if version == 2 else tmp_path / "memory"
    group(top, version=version, limit="1000", used=100)
    group(top / "outer", version=version, limit="500", used=300, files=50)
    group(top / "outer" / "own", version=version, limit="max" if version == 2 else "900", used=10)
    memberships = tmp_path / "cgroup"
    memberships.write_text(f"9:name=systemd:/\n{line}\n")
    own = [] if version == 2 else [890]
    assert list(cgroup_rooms(tmp_path, memberships)) == [*own, 250, 900]


def test_in_a_container_only_the_top_is_seen(tmp_path: Path) -> None:
    group(tmp_path, version=2, limit="1000", used=1200, files=100)
    (tmp_path / "cgroup").write_text("0::/docker/of/the/host\n")
    assert list(cgroup_rooms(tmp_path, tmp_path / "cgroup")) == [0]


def test_a_group_that_cannot_be_read_limits_nothing(tmp_path: Path) -> None:
    group(tmp_path / "own", version=2, limit="1000", used=100)
    (tmp_path / "memory.max").mkdir()  # unreadable for everybody, root too
    (tmp_path / "cgroup").write_text("0::/own\n")
    assert list(cgroup_rooms(tmp_path, tmp_path / "cgroup")) == [900]
    assert list(cgroup_rooms(tmp_path, tmp_path)) == []


def test_where_nobody_tells_all_of_the_machine_counts(tmp_path: Path) -> None:
    assert list(cgroup_rooms(tmp_path, tmp_path / "missing")) == []
    assert machine_room(tmp_path / "missing") > machine_room() > 0


def test_a_margin_is_left(tmp_path: Path) -> None:
    assert 0 < available_bytes(CPU) < CPU_SHARE * machine_room(tmp_path / "missing")


PEAK = f"""
import torch
from hyperdreambooth.memory import peak_bytes, watch_peak
before = watch_peak(torch.device("cpu"))
torch.ones({200 * MEGABYTE // 4})
assert peak_bytes(torch.device("cpu")) - before > {190 * MEGABYTE}
again = watch_peak(torch.device("cpu"))
assert peak_bytes(torch.device("cpu")) - again < {100 * MEGABYTE}
"""


def test_the_peak_is_seen_though_it_is_over() -> None:
    """In a process that has no memory of other tests to use again."""
    subprocess.run([sys.executable, "-c", PEAK], check=True)
