"""Which picture is rendered, which came out of the decoder? Asked of every patch: it is texture that counts.

Hinge loss on a patch discriminator (Isola et al. 2017; in autoencoders Esser et al. 2021), spectral norm (Miyato et al.
2018), feature matching (Wang et al. 2018).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

Judged = tuple[Tensor, list[Tensor]]  # a score for each patch [B, 1, h, w], and the features behind it
WIDTHS = (32, 64, 128, 128)
SLOPE = 0.2


class Discriminator(nn.Module):
    """Pixels [B, 3, 64, 64] to scores at 8 x 8 places: above 0 rendered, below 0 decoded."""

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        *halving, last = zip((3, *widths[:-1]), widths, strict=True)
        layers = [nn.Conv2d(before, after, 4, stride=2, padding=1) for before, after in halving]
        layers.append(nn.Conv2d(last[0], last[1], 3, padding=1))
        self.layers = nn.ModuleList(spectral_norm(layer) for layer in layers)
        self.score = spectral_norm(nn.Conv2d(last[1], 1, 3, padding=1))
        self.eval()  # so that a look changes nothing; see `follow_weights`

    def forward(self, pixels: Tensor) -> Judged:
        features: list[Tensor] = []
        for layer in self.layers:
            pixels = functional.leaky_relu(layer(pixels), SLOPE)
            features.append(pixels)
        return self.score(pixels), features

    def follow_weights(self) -> None:
        """One power iteration for each layer's norm: once a step, and not by the threads that share the network."""
        self.train()
        with torch.no_grad():
            for layer in (*self.layers, self.score):
                _ = layer.weight
        self.eval()

    def frozen(self, pixels: Tensor) -> Judged:
        """The same judgement; gradient flows into the pixels alone."""
        weights = {name: weight.detach() for name, weight in self.named_parameters()}
        judged: Judged = functional_call(self, weights, (pixels,))
        return judged


def discriminator_loss(discriminator: Discriminator, rendered: Tensor, decoded: Tensor) -> Tensor:
    """max(0, 1 - D(rendered)) + max(0, 1 + D(decoded))."""
    scores = [discriminator(pixels)[0].float() for pixels in (rendered, decoded.detach())]
    return functional.relu(1 - scores[0]).mean() + functional.relu(1 + scores[1]).mean()


def decoder_losses(discriminator: Discriminator, rendered: Tensor, decoded: Tensor) -> tuple[Tensor, Tensor]:
    """-D(decoded), and how far its features are from the rendered picture's."""
    scores, features = discriminator.frozen(decoded)
    with torch.no_grad():
        _, wanted = discriminator(rendered)
    distances = [(one.float() - other.float()).abs().mean() for one, other in zip(features, wanted, strict=True)]
    return -scores.float().mean(), torch.stack(distances).mean()
