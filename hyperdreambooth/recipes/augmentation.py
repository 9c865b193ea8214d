"""What may happen to an aligned face on its way to the hypernetwork."""

import torch
from torch import Tensor
from torch.nn import functional as F


def jittered(faces: Tensor, generator: torch.Generator) -> Tensor:
    """Small turns, zooms and shifts, as an aligned photo has them."""
    sizes = torch.tensor([[0.05], [0.04], [0.04], [0.04]])
    turn, zoom, right, down = (torch.randn(4, len(faces), generator=generator) * sizes).to(faces.device)
    cosine, sine = turn.cos() * (1 + zoom), turn.sin() * (1 + zoom)
    matrices = torch.stack([torch.stack([cosine, -sine, right], 1), torch.stack([sine, cosine, down], 1)], 1)
    grid = F.affine_grid(matrices, list(faces.shape), align_corners=False)
    return F.grid_sample(faces, grid, padding_mode="border", align_corners=False)
