"""The loop's own promises; what pictures it draws is held beside `sample`."""

import diffusers
import pytest
import torch

from hyperdreambooth.config import SampleConfig
from hyperdreambooth.denoise import Strand

META = torch.device("meta")  # whoever wants to know a value there is refused, as a GPU would make him wait


@pytest.mark.parametrize(
    "scheduler",
    [
        diffusers.DDIMScheduler,
        diffusers.PNDMScheduler,
        diffusers.EulerDiscreteScheduler,
        diffusers.DPMSolverMultistepScheduler,
        diffusers.UniPCMultistepScheduler,
    ],
)
def test_no_step_asks_the_device_for_a_value(scheduler: type) -> None:
    noise = torch.randn(2, 4, 8, 8, device=META)
    generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
    strand = Strand.begin(scheduler(), noise, [0, 1], generators, [SampleConfig(steps=5)] * 2)
    for step in range(len(strand.timesteps)):
        latents, timesteps = strand.inputs(step)
        assert (latents.device, timesteps.device, timesteps.shape) == (META, META, (2,))
        strand.advance(step, latents, latents)
    assert strand.latents.shape == noise.shape
