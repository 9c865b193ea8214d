"""A render is a function of person and context, and looks like a face to those who look for faces."""

from dataclasses import replace

import numpy as np
from PIL import Image

from hyperdreambooth.faces import FaceDetector
from hyperdreambooth.identity import IdentityEmbedder
from hyperdreambooth.portraits.context import COLOURS, Context, random_context
from hyperdreambooth.portraits.head import Head
from hyperdreambooth.portraits.identity import Hair, Identity, make_identity
from hyperdreambooth.portraits.render import BACKDROP, CLOTHES, EYES_AND_TEETH, HAIR, OVERSAMPLING, SKIN, render

SIZE = 64


def large_picture(head: Head, identity: Identity, context: Context) -> Image.Image:
    return Image.fromarray(render(head, identity, context, size=SIZE).picture)


def test_the_same_person_and_context_give_the_same_bytes(head: Head, somebody: Identity) -> None:
    first = render(head, somebody, Context(), size=SIZE)
    again = render(head, make_identity(somebody.seed, slider_count=len(head.sliders)), Context(), size=SIZE)
    assert first.picture.tobytes() == again.picture.tobytes()
    assert first.normals.tobytes() == again.normals.tobytes()


def test_every_part_of_a_portrait_shows(head: Head, somebody: Identity) -> None:
    rendered = render(head, somebody, Context(), size=SIZE)
    assert rendered.picture.shape == (SIZE * OVERSAMPLING, SIZE * OVERSAMPLING, 3)
    shares = np.bincount(rendered.regions.ravel(), minlength=5) / rendered.regions.size
    assert shares[SKIN] > 0.25
    assert shares[BACKDROP] > 0.1
    assert shares[EYES_AND_TEETH] > 0.002
    assert shares[HAIR] > 0.02
    assert shares[CLOTHES] < shares[SKIN]


def test_landmarks_lie_on_the_face_in_their_places(head: Head, somebody: Identity) -> None:
    rendered = render(head, somebody, Context(), size=SIZE)
    left_eye, right_eye, nose, left_mouth, right_mouth = rendered.landmarks
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < nose[0] < right_mouth[0]
    assert left_eye[1] < nose[1] < left_mouth[1]
    for column, row in (rendered.landmarks[:2] * SIZE * OVERSAMPLING).astype(int):
        assert rendered.regions[row, column] == EYES_AND_TEETH


def test_turning_the_head_moves_the_nose_and_not_the_shoulders(head: Head, somebody: Identity) -> None:
    ahead, aside = (render(head, somebody, Context(yaw=yaw), size=SIZE) for yaw in (0, 20))
    assert abs(aside.landmarks[2, 0] - ahead.landmarks[2, 0]) > 0.05
    clothes_ahead, clothes_aside = (one.regions == CLOTHES for one in (ahead, aside))
    both, either = (clothes_ahead & clothes_aside).sum(), (clothes_ahead | clothes_aside).sum()
    assert both == either or both / either > 0.5


def test_context_decides_the_colours_round_the_face(head: Head, somebody: Identity) -> None:
    context = Context(background=COLOURS["blue"], background_name="blue")
    rendered = render(head, somebody, context, size=SIZE)
    red, _, blue = rendered.picture[rendered.regions == BACKDROP].mean(0)
    assert blue > 2 * red


def test_hair_follows_the_identity(head: Head, somebody: Identity) -> None:
    def hairy_pixels(hair: Hair) -> int:
        return int((render(head, replace(somebody, hair=hair), Context(), size=SIZE).regions == HAIR).sum())

    bald, short, long = (
        replace(somebody.hair, length=length, bald=bald) for length, bald in ((0.1, True), (0.1, False), (0.9, False))
    )
    assert hairy_pixels(bald) < hairy_pixels(short) < hairy_pixels(long)


def test_hairstyles_show_where_they_should(head: Head, somebody: Identity) -> None:
    """Shares of hair on the forehead, above the ears at the sides, and beside the neck."""

    def shares(**changes: float) -> tuple[float, float, float]:
        hair = replace(somebody.hair, length=0.9, bald=False, **changes)  # type: ignore[arg-type]  # whole buns
        rendered = render(head, replace(somebody, hair=hair), Context(), size=SIZE)
        grown, (left, right) = rendered.regions == HAIR, (rendered.landmarks[:2] * SIZE * OVERSAMPLING).astype(int)
        between = right[0] - left[0]
        forehead = grown[left[1] - between : left[1] - between // 2, left[0] : right[0]]
        aside = grown[: left[1] - between, right[0] + between // 2 : right[0] + between]
        neck = grown[left[1] + between * 3 // 2 :]
        return float(forehead.mean()), float(aside.mean()), float(neck.mean())

    loose, fringe, bun, buns = shares(), shares(fringe=0.45), shares(buns=1), shares(buns=2)
    assert fringe[0] > loose[0] + 0.2
    assert buns[1] > bun[1] + 0.1
    assert loose[2] > bun[2] > buns[2]


def test_ringlets_are_restless(head: Head, somebody: Identity) -> None:
    def restlessness(*, ringlets: bool) -> float:
        hair = replace(somebody.hair, length=0.9, bald=False, buns=0, ringlets=ringlets)
        rendered = render(head, replace(somebody, hair=hair), Context(), size=SIZE)
        return float(rendered.picture[rendered.regions == HAIR].mean(1).std())

    assert restlessness(ringlets=True) > 1.15 * restlessness(ringlets=False)


def test_the_detector_finds_every_face_where_the_render_says_it_is(head: Head) -> None:
    detector, errors = FaceDetector(threads=1), []
    for seed in range(1_000_010, 1_000_018):
        identity = make_identity(seed, slider_count=len(head.sliders))
        rendered = render(head, identity, random_context(np.random.default_rng(seed)), size=SIZE)
        picture = Image.fromarray(rendered.picture)
        (face,) = detector(picture)
        errors.append(np.abs(face.points / picture.width - rendered.landmarks))
    # The detector itself is out by up to a tenth of the picture on turned heads; an eye is a quarter from the other.
    assert np.mean(errors) < 0.03
    assert np.max(errors) < 0.1


def test_a_face_judge_tells_people_apart_and_knows_them_again(head: Head) -> None:
    detector, embed = FaceDetector(threads=1), IdentityEmbedder(threads=1)
    embeddings = []
    for seed in range(1_000_020, 1_000_026):
        identity = make_identity(seed, slider_count=len(head.sliders))
        for view in (0, 1):
            context = random_context(np.random.default_rng([seed, view]))
            embedding = embed(large_picture(head, identity, context), detector)
            assert embedding is not None
            embeddings.append(embedding)
    alike = np.stack(embeddings[::2]) @ np.stack(embeddings[1::2]).T
    assert (alike.argmax(1) == np.arange(6)).mean() >= 5 / 6
