"""Who learns from which loss, and whether the discriminator can tell anything apart."""

import torch
from torch import Tensor

from hyperdreambooth.recipes.discriminator import Discriminator, decoder_losses, discriminator_loss


def untrained() -> Discriminator:
    torch.manual_seed(0)
    return Discriminator(widths=(8, 16, 16, 16))


def pictures(*, stripes: bool) -> Tensor:
    """Noise, with stripes of one pixel or without."""
    noise = 0.1 * torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(int(stripes)))
    return noise + (torch.arange(64) % 2 - 0.5 if stripes else 0)


def test_each_loss_reaches_its_own_side_alone() -> None:
    discriminator, rendered = untrained(), pictures(stripes=True)
    decoded = pictures(stripes=False).requires_grad_()
    weights = list(discriminator.parameters())
    for loss in decoder_losses(discriminator, rendered, decoded):
        of_pixels, *of_weights = torch.autograd.grad(loss, [decoded, *weights], retain_graph=True, allow_unused=True)
        assert of_pixels is not None
        assert of_pixels.abs().sum() > 0
        assert of_weights == [None] * len(weights)
    loss = discriminator_loss(discriminator, rendered, decoded)
    of_pixels, *of_weights = torch.autograd.grad(loss, [decoded, *weights], retain_graph=True, allow_unused=True)
    assert of_pixels is None
    assert all(gradient is not None for gradient in of_weights)


def test_equal_pictures_have_equal_features() -> None:
    same = pictures(stripes=True)
    _, features = decoder_losses(untrained(), same, same.clone())
    assert features == 0


def test_a_look_changes_nothing_and_a_step_follows_the_weights() -> None:
    discriminator = untrained()
    before = {name: buffer.clone() for name, buffer in discriminator.named_buffers()}
    discriminator(pictures(stripes=True))
    torch.testing.assert_close(dict(discriminator.named_buffers()), before, rtol=0, atol=0)
    discriminator.follow_weights()
    assert not discriminator.training
    assert any(not torch.equal(buffer, before[name]) for name, buffer in discriminator.named_buffers())


def test_it_learns_to_tell_textures_apart() -> None:
    discriminator, rendered, decoded = untrained(), pictures(stripes=True), pictures(stripes=False)
    adam = torch.optim.AdamW(discriminator.parameters(), lr=5e-3, betas=(0.5, 0.99))
    for _ in range(30):
        discriminator.follow_weights()
        adam.zero_grad()
        discriminator_loss(discriminator, rendered, decoded).backward()
        adam.step()
    scores, _ = discriminator(torch.cat([rendered, decoded]))
    assert scores[:4].mean() > scores[4:].mean() + 0.5
