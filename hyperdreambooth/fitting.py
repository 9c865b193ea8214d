"""Train matrices fitted to many people, for a hypernetwork to learn from (the paper's second loss, section 4.2).

All start from one start and see one noise: A_train B_train does not change when a sign or a scale moves from one to
the other, and the noise that a step meets decides where it goes, so people who were fitted from starts or with noise of
their own would have targets that no image explains (docs/experiments.md, "What a prediction has to be told").
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from hyperdreambooth.config import FinetuneConfig, PersonalizeConfig
from hyperdreambooth.diffusion import BaseModel
from hyperdreambooth.finetune import Examples, fast_finetune
from hyperdreambooth.lidb import AuxBasis, LiDB, relax_rank, shared_start


def fit_together(
    base_model: BaseModel,
    basis: AuxBasis,
    faces: Sequence[Tensor],
    config: PersonalizeConfig,
    finetune: FinetuneConfig,
    *,
    seed: int,
) -> LiDB:
    """One batch, at the finetuning's rank: from latents [P, c, h, w] of each person to everybody's train matrices.

    `config` tells the prompt; `seed` is that of the start and of the noise, the same for everybody.
    """

    def same_for_everybody() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for _ in faces]

    prompts = [config.fill_prompt(config.instance_prompt)] * len(faces)
    examples = Examples(torch.cat([*faces]), prompts, same_for_everybody(), photo_counts=list(map(len, faces)))
    start = shared_start(basis, subjects=len(faces))
    start = relax_rank(start, finetune.rank, same_for_everybody(), std=finetune.new_rank_std)
    return fast_finetune(base_model, start, examples, finetune)
