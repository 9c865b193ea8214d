from collections.abc import Callable, Sequence

import pytest
import torch

import hyperdreambooth.batch_size
from hyperdreambooth.attach import slot_of
from hyperdreambooth.bank import flatten
from hyperdreambooth.batch_size import SIZES, End, Found, Measured, TimeIsUp, find_batch_size, search
from hyperdreambooth.personalize import Networks
from tests.hyperdreambooth.test_finetune import finetuned

ROOM = 1000


class Device:
    """What batches take on it, on a clock of its own."""

    def __init__(self, seconds: Callable[[int], float], *, memory_each: int = 1, fits: int = 64) -> None:
        self._seconds, self._memory_each, self._fits = seconds, memory_each, fits
        self.now = 0.0
        self.tried: list[int] = []

    def measure(self, subjects: int) -> Measured:
        self.tried.append(subjects)
        if subjects > self._fits:
            raise torch.OutOfMemoryError
        self.now += self._seconds(subjects)
        return Measured(subjects=subjects, seconds=self._seconds(subjects), memory=subjects * self._memory_each)

    def search(self, seconds: float = 1e9) -> Found:
        return search(self.measure, room=ROOM, seconds=seconds, clock=lambda: self.now)


def full_from(subjects: int) -> Callable[[int], float]:
    """Free until the device is busy with so many."""
    return lambda size: max(1.0, size / subjects)


@pytest.mark.parametrize("subjects", [1, 2, 4, 8])
def test_the_size_is_the_one_after_which_a_subjects_time_falls_no_more(subjects: int) -> None:
    device = Device(full_from(subjects))
    found = device.search()
    assert (found.batch_size, found.end) == (subjects, End.NO_GAIN)
    assert device.tried == [size for size in SIZES if size <= 4 * subjects]  # two more: one may have been disturbed


@pytest.mark.parametrize(("last", "batch_size"), [(0.575, 4), (0.56, 8)])
def test_a_gain_of_less_than_a_twentieth_is_none(last: float, batch_size: int) -> None:
    each = {1: 1.0, 2: 0.7, 4: 0.6, 8: 0.58, 16: last, 32: last}
    assert Device(lambda size: size * each[size]).search().batch_size == batch_size


def test_a_single_disturbed_size_changes_nothing() -> None:
    quiet = full_from(8)
    assert Device(lambda size: quiet(size) * (3 if size == 4 else 1)).search().batch_size == 8


def test_the_largest_size_is_the_end() -> None:
    device = Device(lambda size: 1.0)
    found = device.search()
    assert (found.batch_size, found.end, device.tried) == (SIZES[-1], End.LARGEST, list(SIZES))


def test_out_of_memory_ends_the_search_with_the_last_that_fitted() -> None:
    device = Device(lambda size: 1.0, fits=7)
    found = device.search()
    assert (found.batch_size, found.end, device.tried) == (4, End.MEMORY, [1, 2, 4, 8])
    nothing = Device(lambda size: 1.0, fits=0).search()
    assert (nothing.batch_size, nothing.end) == (1, End.MEMORY)


def test_what_would_not_leave_a_margin_is_not_tried() -> None:
    device = Device(lambda size: 1.0, memory_each=ROOM // 5)
    found = device.search()
    assert (found.batch_size, found.end, device.tried) == (4, End.MEMORY, [1, 2, 4])
    assert Device(lambda size: 1.0, memory_each=ROOM + 1).search().batch_size == 1


def test_what_took_more_than_it_should_is_not_used() -> None:
    def measure(subjects: int) -> Measured:
        return Measured(subjects=subjects, seconds=1.0, memory=1 if subjects == 1 else ROOM + 1)

    found = search(measure, room=ROOM, seconds=1e9)
    assert (found.batch_size, [one.subjects for one in found.measured]) == (1, [1, 2])


@pytest.mark.parametrize(
    ("seconds", "tried", "batch_size"),
    [
        (1.5, [1], 4),  # too short to tell
        (13.0, [1, 2, 4], 4),
        (30.0, [1, 2, 4, 8, 16], 16),
    ],
)
def test_a_size_that_would_take_too_long_is_not_tried(seconds: float, tried: Sequence[int], batch_size: int) -> None:
    device = Device(lambda size: size**0.9)
    found = device.search(seconds)
    assert (found.end, device.tried, found.batch_size) == (End.TIME, tried, batch_size)


def test_what_was_not_told_in_time_is_taken_only_if_memory_allows() -> None:
    assert Device(lambda size: size * 1.0, memory_each=ROOM // 4).search(seconds=1.5).batch_size == 4
    assert Device(lambda size: size * 1.0, memory_each=ROOM // 3).search(seconds=1.5).batch_size == 1


def test_a_step_that_was_stopped_ends_the_search() -> None:
    def stopped(subjects: int) -> Measured:
        raise TimeIsUp

    found = search(stopped, room=ROOM, seconds=1.0)
    assert (found.batch_size, found.end, found.measured) == (1, End.TIME, [])


def test_the_networks_are_measured_and_stay_what_they_were(tiny_networks: Networks) -> None:
    base_model = tiny_networks.base_model
    before = flatten(finetuned(base_model, [0, 1]))
    networks = (base_model.unet, base_model.text_encoder, base_model.vae)
    weights = [{name: tensor.clone() for name, tensor in network.state_dict().items()} for network in networks]
    randomness, threads = torch.random.get_rng_state(), torch.get_num_threads()

    found = find_batch_size(tiny_networks, seconds=30)

    assert found.batch_size in SIZES
    assert [one.subjects for one in found.measured] == list(SIZES[: len(found.measured)])
    assert len(found.measured) >= 2
    assert all(0 < one.seconds < 30 and one.memory >= 0 for one in found.measured)
    assert torch.equal(torch.random.get_rng_state(), randomness)
    assert torch.get_num_threads() == threads
    for network, held in zip(networks, weights, strict=True):
        assert all(torch.equal(tensor, held[name]) for name, tensor in network.state_dict().items())
    assert not any(layer._forward_pre_hooks for layer in base_model.targets.values())
    assert not any(slot_of(layer).deltas for layer in base_model.targets.values())
    assert torch.equal(flatten(finetuned(base_model, [0, 1])), before)


def test_a_step_ends_when_the_time_is_up(tiny_networks: Networks) -> None:
    found = find_batch_size(tiny_networks, seconds=1e-6)
    assert (found.batch_size, found.end, found.measured) == (1, End.TIME, [])
    assert not any(layer._forward_pre_hooks for layer in tiny_networks.base_model.targets.values())


def test_memory_that_suffices_for_nothing_means_one_by_one(
    tiny_networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hyperdreambooth.batch_size, "available_bytes", lambda device: -1)
    found = find_batch_size(tiny_networks, seconds=30)
    assert (found.batch_size, found.end, len(found.measured)) == (1, End.MEMORY, 1)
