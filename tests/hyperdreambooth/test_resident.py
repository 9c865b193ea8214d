from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from hyperdreambooth.adapter import Adapter
from hyperdreambooth.personalize import Networks, pack
from hyperdreambooth.resident import KEPT_SECONDS, RecentFiles, Resident
from tests.hyperdreambooth.conftest import random_lidb


def adapters(networks: Networks, ranks: Sequence[int]) -> list[Adapter]:
    """One for each rank, all different."""
    made = []
    for seed, rank in enumerate(ranks):
        lidb = random_lidb(networks.base_model, subjects=1, rank=rank, seed=seed)
        adapter = pack(lidb, 0, networks, networks.config, networks.config.finetune, seed=seed)
        assert isinstance(adapter, Adapter)
        made.append(adapter)
    return made


def numbers(adapter: Adapter) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([adapter.a_train, adapter.b_train], axis=1)).float()


def taken(resident: Resident, wanted: Sequence[Adapter]) -> torch.Tensor:
    """What it holds of each, as in a file."""
    return resident.lidb(wanted).numbers[..., resident.basis.grouping.argsort()]


def test_each_adapter_is_what_its_file_says_whatever_came_before(tiny_networks: Networks) -> None:
    made, resident = adapters(tiny_networks, [2] * 12), Resident(tiny_networks.basis)
    for wanted in (made[:1], made[3:5], made[::-1], [made[7], made[7], made[0]]):
        expected = torch.stack([numbers(adapter) for adapter in wanted])
        assert torch.equal(taken(resident, wanted), expected)
    assert len(resident) == 12


def test_ranks_may_differ(tiny_networks: Networks) -> None:
    narrow, broad, again = adapters(tiny_networks, [1, 3, 1])
    resident = Resident(tiny_networks.basis)
    assert taken(resident, [narrow]).shape[1] == 1
    both = taken(resident, [narrow, broad, again])
    assert torch.equal(both[1], numbers(broad))
    assert torch.equal(both[0, :1], numbers(narrow))
    assert not both[0, 1:].any()
    assert taken(resident, [again]).shape[1] == 1


def test_the_one_unused_for_longest_makes_room(tiny_networks: Networks) -> None:
    one, two, three = adapters(tiny_networks, [2, 1, 1])
    resident = Resident(tiny_networks.basis, capacity=2)
    resident.lidb([one, two])
    resident.lidb([one])
    assert torch.equal(taken(resident, [three, one])[0, :1], numbers(three))
    assert len(resident) == 2
    assert torch.equal(taken(resident, [two])[0], numbers(two))  # in the place of a broader one: nothing is left of it


def test_a_forgotten_adapter_leaves_no_numbers(tiny_networks: Networks) -> None:
    one, two = adapters(tiny_networks, [2, 2])
    resident = Resident(tiny_networks.basis)
    resident.lidb([one, two])
    resident.forget(one)
    resident.forget(one)
    assert len(resident) == 1
    held = resident._numbers.float()[..., resident.basis.grouping.argsort()]
    assert not any(torch.equal(row, numbers(one)) for row in held)
    assert any(torch.equal(row, numbers(two)) for row in held)


def test_networks_keep_what_they_drew_with(tiny_networks: Networks) -> None:
    networks = replace(tiny_networks)
    assert networks.resident is networks.resident
    assert len(networks.resident) == 0


def test_a_file_is_read_once_and_forgotten_after_a_while(tiny_networks: Networks) -> None:
    now = [0.0]
    first, second = (adapter.to_bytes() for adapter in adapters(tiny_networks, [2, 2]))
    resident = Resident(tiny_networks.basis)
    recent = RecentFiles[int](resident, clock=lambda: now[0])
    one = recent.read(first, 1)
    resident.lidb([one])
    now[0] += KEPT_SECONDS - 1
    assert recent.read(bytes(first), 1) is one
    now[0] += KEPT_SECONDS + 1
    recent.read(second, 2)
    assert len(resident) == 0
    assert recent.read(first, 1) is not one


def test_files_beyond_the_capacity_are_forgotten(tiny_networks: Networks) -> None:
    first, second = (adapter.to_bytes() for adapter in adapters(tiny_networks, [2, 2]))
    recent = RecentFiles[int](Resident(tiny_networks.basis, capacity=1))
    one = recent.read(first, 1)
    recent.read(second, 2)
    assert recent.read(first, 1) is not one


def test_somebodys_files_are_forgotten_when_asked_and_old_ones_with_them(tiny_networks: Networks) -> None:
    now = [0.0]
    files = [adapter.to_bytes() for adapter in adapters(tiny_networks, [2] * 4)]
    resident = Resident(tiny_networks.basis)
    recent = RecentFiles[str](resident, clock=lambda: now[0])
    resident.lidb([recent.read(files[0], "old")])
    now[0] += KEPT_SECONDS - 1
    read = [recent.read(content, owner) for content, owner in zip(files[1:], ("a", "b", "a"), strict=True)]
    resident.lidb(read)
    assert recent.owners() == {"old", "a", "b"}
    now[0] += 2
    recent.forget({"a", "nobody"})
    assert (recent.owners(), len(resident)) == ({"b"}, 1)
    assert recent.read(files[2], "b") is read[1]
