"""The linear readings find what is in the features, on pictures they were not fitted on."""

import numpy as np

from hyperdreambooth.metrics.prompt_fidelity import Ridge, StyleProbe, TextScore

STYLES = ("photo", "sketch")


def drawn(count: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Features of two styles: 40 numbers, of which the first tells."""
    rng = np.random.default_rng(seed)
    styles = [STYLES[place % 2] for place in range(count)]
    features = rng.normal(0, 0.3, (count, 40))
    features[:, 0] += [1.0 if style == "photo" else -1.0 for style in styles]
    return features, styles


def test_the_probe_names_the_style_of_unseen_pictures() -> None:
    probe = StyleProbe.fit(*drawn(30, 0))
    features, styles = drawn(20, 1)
    assert probe(features) == styles


def test_a_ridge_without_penalty_is_least_squares() -> None:
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(8, 20)), rng.normal(size=(20, 3))
    y = x @ weights + 5
    # Fewer samples than unknowns: what was fitted is met exactly.
    np.testing.assert_allclose(Ridge.fit(x, y, ridge=1e-12)(x), y, atol=1e-4)


def test_the_text_score_prefers_the_right_prompt() -> None:
    sentences = {"photo": np.array([1.0, 0, 1]), "sketch": np.array([0, 1.0, 1])}
    features, styles = drawn(30, 0)
    score = TextScore.fit(features, np.stack([sentences[style] for style in styles]))
    unseen, named = drawn(20, 1)
    right = np.stack([sentences[style] for style in named])
    assert (score(unseen, right) > score(unseen, right[:, [1, 0, 2]])).all()
