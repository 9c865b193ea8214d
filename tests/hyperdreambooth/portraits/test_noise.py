"""Value noise is smooth, repeatable and fills its range."""

import numpy as np

from hyperdreambooth.portraits.noise import value_noise


def test_noise_is_a_fixed_field() -> None:
    x, y = np.random.default_rng(0).uniform(-5, 5, (2, 1000))
    field = value_noise(x, y, seed=3, frequency=4)
    np.testing.assert_array_equal(field, value_noise(x, y, seed=3, frequency=4))
    assert np.abs(field - value_noise(x, y, seed=4, frequency=4)).mean() > 0.1
    assert field.min() >= 0
    assert field.max() <= 1
    assert field.std() > 0.1


def test_neighbours_are_alike() -> None:
    x = np.linspace(-2, 2, 4001)
    assert np.abs(np.diff(value_noise(x, 0 * x, seed=1, frequency=3))).max() < 0.01
