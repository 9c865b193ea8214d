"""The probe knows the styles of people it has not seen."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from hyperdreambooth.portraits.head import Head
from hyperdreambooth.portraits.styles import Style
from hyperdreambooth.recipes.pictures import PicturesConfig, render_person
from hyperdreambooth.recipes.style_probe import StyleProbe


def test_styles_of_unseen_people_are_recognised(tmp_path: Path) -> None:
    head = Head.load(cache=tmp_path)
    config = PicturesConfig(other_styles=len(Style) - 1, views=1)
    rendered = [row for seed in range(104) for row in render_person(head, seed, config)]
    pictures = np.stack([picture for picture, _ in rendered])
    people, styles = np.array([(record[0], record[2]) for _, record in rendered]).T
    probe = StyleProbe.fit(pictures[people < 96], styles[people < 96])
    unseen, wanted = pictures[people >= 96], styles[people >= 96]
    soft = np.stack([np.asarray(Image.fromarray(one).filter(ImageFilter.GaussianBlur(0.7))) for one in unseen])
    for shown in (unseen, soft):
        assert (probe(shown) == wanted).mean() > 0.85  # chance: 0.125
