"""What was published: a change of these numbers is a change of what the tables claim."""

import pytest

from hyperdreambooth.baselines import budgets
from hyperdreambooth.baselines.budgets import Budget


@pytest.mark.parametrize(
    ("budget", "iterations", "learning_rate", "prior_images"),
    [
        (budgets.DREAMBOOTH, 1200, 5e-6, 200),
        (budgets.DREAMBOOTH_400, 400, 1.5e-5, 200),
        (budgets.DREAMBOOTH_40, 40, 1.5e-4, 200),
        (budgets.LORA, 500, 1e-4, 0),
        (budgets.TEXTUAL_INVERSION, 5000, 5e-4, 0),
        (budgets.CUSTOM_DIFFUSION, 250, 1e-5, 200),
        (budgets.SVDIFF, 500, 1e-3, 200),
    ],
)
def test_a_budget_is_the_published_one(
    budget: Budget, iterations: int, learning_rate: float, prior_images: int
) -> None:
    assert (budget.iterations, budget.prior_images, budget.prior_weight) == (iterations, prior_images, 1.0)
    assert budget.learning_rate == pytest.approx(learning_rate)


def test_another_learning_rate_changes_nothing_else() -> None:
    assert budgets.LORA.at(1e-3).at(budgets.LORA.learning_rate) == budgets.LORA
