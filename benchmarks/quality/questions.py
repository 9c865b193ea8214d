"""What every method is asked for: the person in eight styles, and other people while the weights are attached."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.quality.people import TABLE, caption
from hyperdreambooth.portraits.captions import STYLE_PHRASES
from hyperdreambooth.portraits.head import Head
from hyperdreambooth.portraits.styles import Style

OTHER_PEOPLE = 4
OTHERS_SEED = 77_000


@dataclass(frozen=True)
class Question:
    """One picture to be drawn. Prompts name no pose, as the captions that `mini` learned from name none: it comes from
    the seed, as far as the weights leave it free.
    """

    style: Style
    prompt: str  # with `{subject}` in it
    number: int  # of the pictures of one person

    def seed(self, who: int) -> int:
        """The same for every method, another for every person."""
        return 100 * (who - TABLE) + self.number


def questions(*, photos: int) -> list[Question]:
    """`photos` seeds of one photo prompt, which diversity is measured on, and one picture of each other style."""
    assert photos > 1, "one picture has no diversity"
    styles = [Style.PHOTO] * photos + [style for style in Style if style is not Style.PHOTO]
    return [
        Question(style, STYLE_PHRASES[style][0].format("a {subject}"), number) for number, style in enumerate(styles)
    ]


def other_prompts(head: Head) -> list[str]:
    """Photos of people in words, without the identifier: an attached subject must not change them."""
    return [caption(head, TABLE - 1 - number, Style.PHOTO) for number in range(OTHER_PEOPLE)]


def photo_places(asked: Sequence[Question]) -> list[int]:
    return [place for place, question in enumerate(asked) if question.style is Style.PHOTO]
