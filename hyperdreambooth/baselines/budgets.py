"""What each method publishes: iterations, learning rate, prior. Where paper and usual code differ, both are named.

A learning rate published for Stable Diffusion need not suit a small model: `at` replaces it, and the tables say so.
What else differs from the published code: the one photo is seen with one prompt, once a step (Textual Inversion and
Custom Diffusion take batches of 2 to 8 and turn through templates); Custom Diffusion's pictures of the class are drawn
by the base model instead of fetched, and its photo is not shrunk and enlarged at random; LoRA and SVDiff train the text
encoder's layers too, which their code leaves to an option.
"""

from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True, kw_only=True)
class Budget:
    """One subject's training: AdamW, one picture a step, a constant learning rate, as all of these have."""

    iterations: int
    learning_rate: float
    prior_images: int = 0  # pictures of the class that the base model draws beforehand; 0: no prior preservation
    prior_weight: float = 1.0  # Ruiz et al. 2023 (DreamBooth), section 3.2: λ = 1
    weight_decay: float = 1e-2

    def at(self, learning_rate: float) -> Self:
        return replace(self, learning_rate=learning_rate)


# Ruiz et al. 2023: about 1 000 iterations at 5e-6 for Stable Diffusion, 200 class images (diffusers' example: the
# same); 1 200 in HyperDreamBooth's table 1.
DREAMBOOTH = Budget(iterations=1200, learning_rate=5e-6, prior_images=200)
# HyperDreamBooth, table 2: "aggressive" DreamBooth with fewer iterations at a raised rate; the rates aren't given.
# Ours: iterations times rate stay the same.
DREAMBOOTH_400 = replace(DREAMBOOTH, iterations=400, learning_rate=1.5e-5)
DREAMBOOTH_40 = replace(DREAMBOOTH, iterations=40, learning_rate=1.5e-4)
# diffusers' DreamBooth example with LoRA: 500 iterations at 1e-4, rank 4, no prior.
LORA = Budget(iterations=500, learning_rate=1e-4)
# Gal et al. 2023: 5 000 iterations; 5e-3 times the batch in their code, 5e-4 in diffusers' example.
TEXTUAL_INVERSION = Budget(iterations=5000, learning_rate=5e-4, prior_images=0)
# Kumari et al. 2023: 250 iterations for one concept, 1e-5 (times the batch), 200 pictures of the class.
CUSTOM_DIFFUSION = Budget(iterations=250, learning_rate=1e-5, prior_images=200)
# Han et al. 2023: 500 iterations, 1e-3 for the singular values, prior preservation with λ = 1.
SVDIFF = Budget(iterations=500, learning_rate=1e-3, prior_images=200)
