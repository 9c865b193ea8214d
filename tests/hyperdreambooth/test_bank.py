import torch

from hyperdreambooth.bank import SubjectwiseAdam, clip_each, flatten, unflatten
from hyperdreambooth.diffusion import BaseModel
from tests.hyperdreambooth.conftest import random_lidb


def test_a_bank_is_a_view_of_all_train_matrices(base_model: BaseModel) -> None:
    lidb = random_lidb(base_model, subjects=3, rank=2)
    numbers = flatten(lidb)
    back = unflatten(numbers[1:], lidb)
    assert torch.equal(back.a_train, lidb.a_train[1:])
    assert torch.equal(back.b_train, lidb.b_train[1:])
    assert back.a_train.untyped_storage().data_ptr() == numbers.untyped_storage().data_ptr()


def test_without_its_epsilon_the_optimiser_is_torchs_adam_for_each_subject() -> None:
    generator = torch.Generator().manual_seed(0)
    start, gradients = torch.randn(2, 5, generator=generator), torch.randn(3, 2, 5, generator=generator)
    numbers, parameter = start.clone(), torch.nn.Parameter(start.clone())
    ours = SubjectwiseAdam(numbers, epsilon_share=0)
    theirs = torch.optim.Adam([parameter], lr=0.1, betas=(0.9, 0.99), eps=0)
    for gradient in gradients:
        ours.step(gradient, learning_rates=torch.tensor([0.1, 0.1]))
        parameter.grad = gradient
        theirs.step()
    torch.testing.assert_close(numbers, parameter.detach())


def test_each_gradient_is_clipped_by_its_own_norm() -> None:
    clipped = clip_each(torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]]), torch.ones(3))
    torch.testing.assert_close(clipped, torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]]))


def test_rounding_moves_little_whatever_the_gradients_scale() -> None:
    gradient = torch.tensor([[1.0, -1.0, 1e-5, 0.0], [1e-4, -1e-4, 1e-9, 0.0], [0.0, 0.0, 0.0, 0.0]])
    optimizer = SubjectwiseAdam(torch.zeros(3, 4))
    optimizer.step(gradient, learning_rates=torch.tensor([0.1, 0.1, 0.1]))
    moved = optimizer.numbers
    torch.testing.assert_close(moved[0], moved[1])
    assert moved[0, 0] < -0.08
    assert -1e-5 < moved[0, 2] < 0
    assert not moved[2].any()


def test_a_gradient_whose_square_is_too_small_for_float32_moves_nothing_far() -> None:
    optimizer = SubjectwiseAdam(torch.zeros(1, 2))
    optimizer.step(torch.tensor([[1e-25, -1e-23]]), learning_rates=torch.tensor([0.1]))
    assert optimizer.numbers.abs().max() < 0.1


def test_who_stays_in_the_bank_moves_as_if_nobody_had_left() -> None:
    generator = torch.Generator().manual_seed(0)
    start, gradients = torch.randn(3, 5, generator=generator), torch.randn(4, 3, 5, generator=generator)
    rates = torch.tensor([0.1, 0.2, 0.3])
    whole, shrinking = SubjectwiseAdam(start.clone()), SubjectwiseAdam(start.clone())
    rows = torch.tensor([0, 1, 2])
    for step, gradient in enumerate(gradients):
        whole.step(gradient, learning_rates=rates)
        shrinking.step(gradient[rows], learning_rates=rates[rows])
        if step == 1:
            rows = torch.tensor([2, 0])
            shrinking.keep(rows)
    assert torch.equal(shrinking.numbers, whole.numbers[rows])
