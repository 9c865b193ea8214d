"""People are drawn from seeds, and differ."""

import numpy as np

from hyperdreambooth.portraits.identity import FIRST_HELD_OUT_SEED, make_identity, with_hairstyle


def test_a_seed_is_a_person() -> None:
    one, same, other = (make_identity(seed, slider_count=106) for seed in (7, 7, 8))
    np.testing.assert_array_equal(one.sliders, same.sliders)
    np.testing.assert_array_equal(one.skin, same.skin)
    assert np.abs(one.sliders - other.sliders).max() > 0.1


def test_numbers_stay_in_their_ranges() -> None:
    for seed in range(FIRST_HELD_OUT_SEED, FIRST_HELD_OUT_SEED + 200):
        person = make_identity(seed, slider_count=10)
        assert 0 <= person.gender <= 1
        assert 0 <= person.age <= 1
        assert np.isclose(person.ancestry.sum(), 1)
        for colour in (person.skin, person.lips, person.iris, person.hair.colour):
            assert colour.min() >= 0
            assert colour.max() <= 255


def test_only_men_have_beards_and_bald_heads() -> None:
    people = [make_identity(seed, slider_count=1) for seed in range(300)]
    assert all(person.is_man for person in people if person.beard or person.moustache or person.hair.bald)
    assert 0.3 < np.mean([person.is_man for person in people]) < 0.7
    assert any(person.beard for person in people)
    assert any(person.hair.bald for person in people)


def test_a_hairstyle_is_a_persons_own_and_changes_nothing_else() -> None:
    plain = [make_identity(seed, slider_count=1) for seed in range(300)]
    styled = [with_hairstyle(person) for person in plain]
    for before, after, again in zip(plain, styled, (with_hairstyle(person) for person in plain), strict=True):
        style = {"ringlets": after.hair.ringlets, "fringe": after.hair.fringe, "buns": after.hair.buns}
        assert vars(again.hair) == vars(before.hair) | style
        assert vars(before.hair) == vars(after.hair) | {"ringlets": False, "fringe": 0, "buns": 0}
        assert all(value is vars(after)[name] for name, value in vars(before).items() if name != "hair")
    assert {person.hair.buns for person in styled} == {0, 1, 2}
    assert any(person.hair.fringe for person in styled)
    assert any(person.hair.ringlets for person in styled)
    assert all(person.hair.hangs for person in styled if person.hair.buns)
    assert not any(person.hair.fringe or person.hair.ringlets for person in styled if person.hair.bald)
