"""Methods are trained in a fixture of the module, before any function's fixture could choose the threads."""

import pytest
import torch


@pytest.fixture(scope="package", autouse=True)
def one_thread_for_training() -> None:
    torch.set_num_threads(1)
