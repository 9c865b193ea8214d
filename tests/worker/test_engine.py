"""The real engine on a tiny random Stable Diffusion: the same requests, alone and among others."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from skimage import data
from structlog.testing import capture_logs

from core.ids import new_id
from core.lifecycle import Phase
from core.schemas import GenerateParams, Method, PictureRequest, Verdict
from core.settings import Acceleration, Settings
from hyperdreambooth.batch_size import CPU_SECONDS, SIZES, End
from hyperdreambooth.errors import AdapterError, NoFace, UnsuitableSize
from hyperdreambooth.personalize import Networks
from tests.hyperdreambooth.conftest import write_tiny_folder
from tests.hyperdreambooth.safety_folder import BLOCKS_ALL, BLOCKS_NONE, write_safety_checker
from worker.engine import Engine, load_engine
from worker.failures import OutOfGpuMemory, PromptTooLong
from worker.generate import GenerateRequest, Picture
from worker.personalize import PersonalizeRequest

OWNER = new_id()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_folder(folder, prediction_type="v_prediction")
    return load_engine(Settings(base_model=str(folder), device="cpu", batch_size=4))


@pytest.fixture(scope="module")
def selfie() -> Image.Image:
    return Image.fromarray(data.astronaut())  # type: ignore[no-untyped-call]  # scikit-image has no types


@pytest.fixture(scope="module")
def adapter(engine: Engine, selfie: Image.Image) -> bytes:
    (result,) = engine.personalize([PersonalizeRequest((selfie,), 1, Method.AUTO)], going_on)
    assert isinstance(result, bytes)
    return result


def going_on(phase: Phase, step: int, total_steps: int) -> Sequence[bool]:
    return [True] * 8


def drawing(adapter: bytes, *prompts: str, steps: int = 2, guidance: float | None = None) -> GenerateRequest:
    pictures = [PictureRequest(prompt=prompt, seed=seed) for seed, prompt in enumerate(prompts)]
    return GenerateRequest(OWNER, adapter, GenerateParams(pictures=pictures, steps=steps, guidance=guidance))


def pictures(result: Sequence[Picture] | Exception) -> list[bytes]:
    assert not isinstance(result, Exception), result
    return [picture.image.tobytes() for picture in result]


def test_it_says_what_it_serves(engine: Engine) -> None:
    assert (engine.serves.base_model, engine.serves.has_hypernetwork) == ("tiny", False)
    assert engine.serves.base_model_hash is not None
    assert len(engine.serves.base_model_hash) == 64


def test_it_measures_how_many_to_take_at_once_and_says_what_it_saw(tmp_path: Path) -> None:
    write_tiny_folder(tmp_path / "tiny", prediction_type="v_prediction")
    with capture_logs() as lines:
        engine = load_engine(Settings(base_model=str(tmp_path / "tiny"), device="cpu", batch_size="auto"))
    (said,) = [line for line in lines if line["event"] == "engine.batch_size"]
    assert engine.serves.batch_size == said["batch_size"] in SIZES
    assert said["end"] in set(End)
    assert said["seconds"] < 10 * CPU_SECONDS  # a busy machine
    assert [one.keys() for one in said["measured"]] == [{"subjects", "seconds", "megabytes"}] * len(said["measured"])


def test_a_number_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(networks: Networks) -> int:
        raise AssertionError

    monkeypatch.setattr("worker.engine.measured_batch_size", measured)
    write_tiny_folder(tmp_path / "tiny", prediction_type="v_prediction")
    engine = load_engine(Settings(base_model=str(tmp_path / "tiny"), device="cpu", batch_size=7))
    assert engine.serves.batch_size == 7


def test_the_setting_is_a_number_or_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().batch_size == "auto"
    for given, read in (("auto", "auto"), ("8", 8)):
        monkeypatch.setenv("HDB_BATCH_SIZE", given)
        assert Settings().batch_size == read
    for wrong in ("0", "-1", "many", "2.5"):
        monkeypatch.setenv("HDB_BATCH_SIZE", wrong)
        with pytest.raises(ValidationError):
            Settings()


def test_it_forgets_whom_it_drew_when_asked(engine: Engine, adapter: bytes) -> None:
    engine.generate([drawing(adapter, "{subject}")], going_on)
    held = len(engine._networks.resident)
    assert OWNER in engine.remembered()
    engine.forget({new_id()})
    assert (OWNER in engine.remembered(), len(engine._networks.resident)) == (True, held)
    engine.forget({OWNER})
    assert (OWNER in engine.remembered(), len(engine._networks.resident)) == (False, held - 1)


def test_phases_come_in_order_and_one_photo_can_be_refused(engine: Engine, selfie: Image.Image) -> None:
    phases: list[Phase] = []

    def on_step(phase: Phase, step: int, total_steps: int) -> Sequence[bool]:
        phases.append(phase)
        return [True, True]

    empty = Image.new("RGB", (200, 200), "white")
    requests = [PersonalizeRequest((empty,), 1, Method.AUTO), PersonalizeRequest((selfie,), 1, Method.LIDB)]
    refused, made = engine.personalize(requests, on_step)
    assert isinstance(refused, NoFace)
    assert isinstance(made, bytes)
    assert list(dict.fromkeys(phases)) == [Phase.VALIDATING, Phase.PREDICTING, Phase.FINETUNING]


def test_pictures_do_not_depend_on_their_neighbours(engine: Engine, adapter: bytes) -> None:
    one, other = drawing(adapter, "{subject}"), drawing(adapter, "a {subject}", "{subject} b", guidance=1.5)
    together = engine.generate([one, other, one], going_on)
    (alone,) = engine.generate([one], going_on)
    assert [len(pictures(result)) for result in together] == [1, 2, 1]
    assert pictures(together[0]) == pictures(together[2]) == pictures(alone)


def test_each_is_drawn_with_its_own_weights(engine: Engine, adapter: bytes, selfie: Image.Image) -> None:
    (another,) = engine.personalize([PersonalizeRequest((selfie.rotate(20),), 2, Method.AUTO)], going_on)
    assert isinstance(another, bytes)
    requests = [drawing(adapter, "{subject}"), drawing(another, "{subject}"), drawing(adapter, "a {subject}")]
    together = engine.generate(requests, going_on)
    assert pictures(together[0]) != pictures(together[1])
    for request, result in zip(requests, together, strict=True):
        (alone,) = engine.generate([request], going_on)
        (one,), (other,) = pictures(result), pictures(alone)
        difference = np.frombuffer(one, np.uint8).astype(int) - np.frombuffer(other, np.uint8)
        assert np.abs(difference).max() <= 2  # of 255


def test_steps_count_over_all_pictures(engine: Engine, adapter: bytes) -> None:
    seen: list[tuple[int, int]] = []

    def on_step(phase: Phase, step: int, total_steps: int) -> Sequence[bool]:
        seen.append((step, total_steps))
        return [True, True]

    engine.generate([drawing(adapter, "{subject}", steps=2), drawing(adapter, "{subject}", steps=3)], on_step)
    assert seen == sorted(seen)
    assert seen[-1] == (3, 3)  # one loop: who has fewer steps leaves it early


def test_nobody_draws_for_a_request_that_was_cancelled(engine: Engine, adapter: bytes) -> None:
    requests = [drawing(adapter, "{subject}"), drawing(adapter, "{subject}", steps=3)]
    canceled, wanted = engine.generate(requests, lambda phase, step, total_steps: [False, True])
    assert (len(pictures(canceled)), len(pictures(wanted))) == (0, 1)


def test_sizes_and_steps_may_be_mixed_and_pictures_come_back_in_their_order(engine: Engine, adapter: bytes) -> None:
    wide = [PictureRequest(prompt="{subject}", seed=seed) for seed in (5, 6)]
    requests = [
        GenerateRequest(OWNER, adapter, GenerateParams(pictures=wide, steps=3, width=24, height=16)),
        drawing(adapter, "{subject}", "a {subject}", "{subject} b", steps=2),
    ]
    together = engine.generate(requests, going_on)
    for request, result in zip(requests, together, strict=True):
        (alone,) = engine.generate([request], going_on)
        assert pictures(result) == pictures(alone)
    assert not isinstance(together[0], Exception)
    assert [picture.image.size for picture in together[0]] == [(24, 16)] * 2


def test_a_size_that_cannot_be_drawn_is_refused_alone(engine: Engine, adapter: bytes) -> None:
    huge = GenerateParams(pictures=[PictureRequest(prompt="", seed=1)], steps=2, width=64)
    refused, fine = engine.generate([GenerateRequest(OWNER, adapter, huge), drawing(adapter, "{subject}")], going_on)
    assert isinstance(refused, UnsuitableSize)
    assert len(pictures(fine)) == 1


def test_a_prompt_that_would_be_cut_off_is_refused_alone(engine: Engine, adapter: bytes) -> None:
    refused, fine = engine.generate([drawing(adapter, "face " * 50), drawing(adapter, "{subject}")], going_on)
    assert isinstance(refused, PromptTooLong)
    assert len(pictures(fine)) == 1


def test_weights_that_are_none_are_refused_alone(engine: Engine, adapter: bytes) -> None:
    refused, fine = engine.generate([drawing(b"no weights", "{subject}"), drawing(adapter, "{subject}")], going_on)
    assert isinstance(refused, AdapterError)
    assert len(pictures(fine)) == 1


@pytest.mark.parametrize(("threshold", "is_blocked"), [(BLOCKS_ALL, True), (BLOCKS_NONE, False)])
def test_a_folder_with_a_safety_checker_says_which_pictures_are_blocked(
    adapter: bytes, tmp_path: Path, threshold: float, *, is_blocked: bool
) -> None:
    write_tiny_folder(tmp_path / "tiny", prediction_type="v_prediction")
    write_safety_checker(tmp_path / "tiny", threshold=threshold)
    checked = load_engine(Settings(base_model=str(tmp_path / "tiny"), device="cpu", batch_size=4))
    (drawn,) = checked.generate([drawing(adapter, "{subject}", "a {subject}")], going_on)
    assert not isinstance(drawn, Exception)
    assert [picture.verdict is Verdict.BLOCKED for picture in drawn] == [is_blocked] * 2


def test_what_does_not_fit_is_drawn_fewer_at_once(
    engine: Engine, adapter: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []

    def on_step(phase: Phase, step: int, total_steps: int) -> Sequence[bool]:
        if step == 1 and engine._pictures_at_once > 1:
            raise torch.OutOfMemoryError
        drawn.append(engine._pictures_at_once)
        return [True]

    monkeypatch.setattr(engine, "_pictures_at_once", 4)
    (result,) = engine.generate([drawing(adapter, "{subject}", "a {subject}", "{subject} a")], on_step)
    assert len(pictures(result)) == 3
    assert drawn[0] == 4
    assert drawn[-1] == 1


@pytest.mark.parametrize("at", [Phase.PREDICTING, Phase.FINETUNING])
def test_torchs_out_of_memory_becomes_ours(engine: Engine, selfie: Image.Image, at: Phase) -> None:
    """So that the worker takes half as many the next time."""

    def on_step(phase: Phase, step: int, total_steps: int) -> Sequence[bool]:
        if phase is at:
            raise torch.OutOfMemoryError
        return [True]

    with pytest.raises(OutOfGpuMemory):
        engine.personalize([PersonalizeRequest((selfie,), 1, Method.AUTO)], on_step)


def test_it_ends_where_the_question_raises(engine: Engine, adapter: bytes, selfie: Image.Image) -> None:
    class Enough(Exception):
        pass

    def on_step(phase: Phase, step: int, total_steps: int) -> Sequence[bool]:
        if step == 1:
            raise Enough
        return [True]

    with pytest.raises(Enough):
        engine.personalize([PersonalizeRequest((selfie,), 1, Method.AUTO)], on_step)
    with pytest.raises(Enough):
        engine.generate([drawing(adapter, "{subject}")], on_step)
    (again,) = engine.personalize([PersonalizeRequest((selfie,), 1, Method.AUTO)], going_on)
    assert again == adapter


def test_a_processor_runs_the_networks_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_folder(tmp_path / "tiny", prediction_type="v_prediction")
    compiled: list[object] = []
    monkeypatch.setattr("worker.engine.compile_blocks", compiled.append)
    tiny = str(tmp_path / "tiny")
    with capture_logs() as lines:
        load_engine(Settings(base_model=tiny, device="cpu", batch_size=4, acceleration=Acceleration.COMPILE))
    assert compiled == []
    assert [line["log_level"] for line in lines if line["event"] == "engine.not_compiled"] == ["warning"]


def test_a_processor_computes_in_bfloat16_if_it_is_told_to(tmp_path: Path, selfie: Image.Image) -> None:
    write_tiny_folder(tmp_path / "tiny", prediction_type="v_prediction")
    tiny = str(tmp_path / "tiny")
    engine = load_engine(Settings(base_model=tiny, device="cpu", batch_size=4, acceleration=Acceleration.BFLOAT16))
    assert engine._networks.base_model.dtype == torch.bfloat16
    (outcome,) = engine.personalize([PersonalizeRequest((selfie,), 1, Method.AUTO)], going_on)
    assert isinstance(outcome, bytes)
    (pictures,) = engine.generate([drawing(outcome, "{subject}")], going_on)
    assert not isinstance(pictures, Exception)
    assert len(pictures) == 1


@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_without_instructions_for_it_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, native: bool
) -> None:
    write_tiny_folder(tmp_path / "tiny", prediction_type="v_prediction")
    settings = Settings(
        base_model=str(tmp_path / "tiny"), device="cpu", batch_size=4, acceleration=Acceleration.BFLOAT16
    )
    monkeypatch.setattr("worker.engine.quick_dtype", lambda device: torch.bfloat16 if native else torch.float32)
    with capture_logs() as lines:
        load_engine(settings)
    warned = [line for line in lines if line["event"] == "engine.bfloat16_is_slow"]
    assert len(warned) == (0 if native else 1)
