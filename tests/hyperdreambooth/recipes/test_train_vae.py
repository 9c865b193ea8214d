"""The autoencoder's loss, and the folding of its scale."""

import torch

from hyperdreambooth.recipes.architecture import make_vae
from hyperdreambooth.recipes.train_vae import (
    VaeConfig,
    face_weights,
    fold_scale,
    reconstruction_loss,
    to_pictures,
    to_pixels,
)


def test_pixels_and_pictures_are_inverse() -> None:
    pictures = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels = to_pixels(pictures)
    assert pixels.min() >= -1
    assert pixels.max() <= 1
    assert (to_pictures(pixels) == pictures.numpy()).all()


def test_an_error_on_the_face_costs_more_than_one_in_a_corner() -> None:
    weights = face_weights(64, extra=2.0)
    target = torch.zeros(1, 3, 64, 64)
    on_face, in_corner = target.clone(), target.clone()
    on_face[..., 30:34, 30:34] = 1
    in_corner[..., :4, :4] = 1
    losses = [reconstruction_loss(decoded, target, weights, VaeConfig()) for decoded in (on_face, in_corner, target)]
    assert losses[0] > 1.5 * losses[1]
    assert losses[2] == 0


def test_folding_the_scale_changes_the_latents_and_not_the_picture() -> None:
    torch.manual_seed(0)
    vae = make_vae().eval()
    pixels = torch.rand(4, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        before = vae.encode(pixels).latent_dist
        decoded = vae.decode(before.mean).sample
        fold_scale(vae, pixels)
        after = vae.encode(pixels).latent_dist
        torch.testing.assert_close(vae.decode(after.mean).sample, decoded, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(after.mean.mean((0, 2, 3)), torch.zeros(16), rtol=0, atol=1e-4)
    torch.testing.assert_close(after.mean.std((0, 2, 3)), torch.ones(16), rtol=1e-3, atol=1e-3)
    # The noise keeps its size beside the signal: deviations scale with the means.
    ratio = before.mean.std((0, 2, 3)) * after.std[0, :, 0, 0] / before.std[0, :, 0, 0]
    torch.testing.assert_close(ratio, torch.ones(16), rtol=1e-2, atol=1e-2)
