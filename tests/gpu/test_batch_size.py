"""The search for a batch size where memory is what ends it: on an NVIDIA GPU."""

import pytest
import torch

from hyperdreambooth.batch_size import GPU_SECONDS, SIZES, End, find_batch_size
from hyperdreambooth.memory import available_bytes
from hyperdreambooth.personalize import Networks, load_networks
from hyperdreambooth.shipped import MINI

pytestmark = pytest.mark.gpu

GPU = torch.device("cuda")


@pytest.fixture(scope="module")
def networks() -> Networks:
    return load_networks(str(MINI), device=GPU, dtype=torch.bfloat16)


def test_larger_batches_are_tried_until_they_are_no_gain_and_nothing_stays(networks: Networks) -> None:
    torch.cuda.synchronize()
    held, randomness = torch.cuda.memory_allocated(), torch.cuda.get_rng_state()
    found = find_batch_size(networks)
    assert found.batch_size in SIZES[1:]  # one small subject keeps no GPU busy
    smallest, *_, largest = found.measured
    assert largest.memory > smallest.memory > 0
    assert torch.cuda.memory_allocated() <= held + 32 * 2**20  # what libraries take for themselves
    assert torch.equal(torch.cuda.get_rng_state(), randomness)


def test_no_batch_takes_the_last_of_the_memory(networks: Networks) -> None:
    found = find_batch_size(networks)
    of_two = next(one.memory for one in found.measured if one.subjects == 2)
    free, _ = torch.cuda.mem_get_info()
    hoard = torch.empty(free - 2 * of_two, dtype=torch.uint8, device=GPU)
    scarce = find_batch_size(networks, seconds=GPU_SECONDS)
    assert (scarce.end, scarce.batch_size) in {(End.MEMORY, 1), (End.MEMORY, 2)}
    del hoard
    assert available_bytes(GPU) > 2 * of_two
