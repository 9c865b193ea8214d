from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from hyperdreambooth import finetune
from hyperdreambooth.bank import flatten
from hyperdreambooth.config import FinetuneConfig, LiDBConfig
from hyperdreambooth.diffusion import BaseModel, load_base_model
from hyperdreambooth.finetune import (
    Examples,
    Flight,
    Prompts,
    draw_samples,
    each_by_itself,
    fast_finetune,
    gradients,
    gradients_in_parts,
    learning_rate,
    subject_losses,
    take_step,
)
from hyperdreambooth.lidb import LiDB
from tests.hyperdreambooth.conftest import LIDB, random_lidb

CONFIG = FinetuneConfig(steps=6, noise_draws=2, learning_rate=1e-2, warmup_steps=2)


def examples_of(base_model: BaseModel, subjects: Sequence[int]) -> Examples:
    """Each subject's face, prompt and generator follow from its own number."""
    faces = [
        torch.randn(base_model.latent_shape, generator=torch.Generator().manual_seed(10 + subject))
        for subject in subjects
    ]
    prompts = [f"a {'photo' if subject % 2 else 'pencil sketch'} of a [V] face" for subject in subjects]
    generators = [torch.Generator().manual_seed(subject) for subject in subjects]
    return Examples(torch.stack(faces).to(base_model.dtype), prompts, generators)


def lidb_of(base_model: BaseModel, subjects: Sequence[int], config: LiDBConfig = LIDB) -> LiDB:
    everybody = random_lidb(base_model, subjects=4, rank=2, config=config)
    rows = list(subjects)
    return LiDB(everybody.basis, everybody.a_train[rows] * 0.1, everybody.b_train[rows] * 0.1)


def finetuned(base_model: BaseModel, subjects: Sequence[int], config: FinetuneConfig = CONFIG) -> LiDB:
    return fast_finetune(base_model, lidb_of(base_model, subjects), examples_of(base_model, subjects), config)


@pytest.mark.parametrize("batch", [[0, 1, 2, 3], [3, 1], [2, 0, 1]])
def test_a_batch_gives_each_subject_what_it_gets_alone(base_model_double: BaseModel, batch: list[int]) -> None:
    # In float64, rounding leaves 1e-9 relative; a coupling would leave 1e-3 and more.
    together = flatten(finetuned(base_model_double, batch))
    for row, subject in enumerate(batch):
        alone = flatten(finetuned(base_model_double, [subject]))[0]
        assert torch.linalg.vector_norm(together[row] - alone) <= 1e-9 * torch.linalg.vector_norm(alone)


def test_a_batch_with_several_photos_each_gives_each_subject_what_it_gets_alone(base_model_double: BaseModel) -> None:
    photos = examples_of(base_model_double, [0, 1, 2]).latents
    latents, counts = torch.cat([photos, photos[:1]]), [3, 1]
    examples = replace(examples_of(base_model_double, [0, 1]), latents=latents, photo_counts=counts)
    together = flatten(fast_finetune(base_model_double, lidb_of(base_model_double, [0, 1]), examples, CONFIG))
    own = replace(examples_of(base_model_double, [0]), latents=photos, photo_counts=[3])
    alone = flatten(fast_finetune(base_model_double, lidb_of(base_model_double, [0]), own, CONFIG))
    torch.testing.assert_close(together[0], alone[0], rtol=1e-9, atol=1e-12)
    own = replace(examples_of(base_model_double, [1]), latents=photos[:1])
    alone = flatten(fast_finetune(base_model_double, lidb_of(base_model_double, [1]), own, CONFIG))
    torch.testing.assert_close(together[1], alone[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("photos", [2, 3, 4, 5])
def test_photos_take_turns_at_each_part_of_the_schedule(base_model: BaseModel, photos: int) -> None:
    examples = replace(examples_of(base_model, [0, 1]), photo_counts=[photos, 1])
    chosen = torch.stack([examples.chosen(draws=4, step=step) for step in range(photos)])
    assert all(sorted(turns) == list(range(photos)) for turns in chosen.T[:4].tolist())
    assert (chosen[:, 4:] == photos).all()


@pytest.mark.parametrize(
    "differentiate", [gradients, partial(gradients_in_parts, exact=True), partial(gradients_in_parts, exact=False)]
)
def test_first_gradients_of_a_float32_batch_are_those_of_single_runs(
    base_model: BaseModel, differentiate: Callable[..., tuple[torch.Tensor, torch.Tensor]]
) -> None:
    def first(subjects: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        lidb, examples = lidb_of(base_model, subjects), examples_of(base_model, subjects)
        numbers = flatten(lidb).requires_grad_()
        samples = draw_samples(base_model, examples, CONFIG, step=1)
        prompts = Prompts.of(base_model, lidb.basis.table, examples.prompts)
        with each_by_itself(base_model, draws=CONFIG.noise_draws):
            return (differentiate if len(subjects) > 1 else gradients)(base_model, numbers, lidb, samples, prompts)

    for row, subject in enumerate([0, 1, 2]):
        for together, alone in zip(first([0, 1, 2]), first([subject]), strict=True):
            assert torch.linalg.vector_norm(together[row] - alone[0]) <= 1e-5 * torch.linalg.vector_norm(alone[0])


def test_no_step_asks_the_device_for_a_value(tiny_folder: Path) -> None:
    """On the meta device, which has no values: who waits for a GPU's is refused there."""
    base_model = load_base_model(str(tiny_folder), device=torch.device("cpu"), dtype=torch.float32)
    for network in (base_model.unet, base_model.vae, base_model.text_encoder):
        network.to("meta")
    examples, lidb = examples_of(base_model, [0, 1]), lidb_of(base_model, [0, 1])
    examples = replace(examples, latents=examples.latents.to("meta"))
    flight = Flight.of(base_model, lidb, examples, [CONFIG] * 2)
    for step in (1, 2):
        assert take_step(base_model, flight, lidb, step).device.type == "meta"
    assert flight.optimizer.numbers.device.type == "meta"


def test_the_same_seed_gives_the_same_numbers_bit_for_bit(base_model: BaseModel) -> None:
    assert torch.equal(flatten(finetuned(base_model, [1])), flatten(finetuned(base_model, [1])))


def test_finetuning_lowers_the_loss_on_the_face(base_model: BaseModel) -> None:
    config = FinetuneConfig(steps=60, noise_draws=4, learning_rate=2e-2)

    def loss(lidb: LiDB) -> float:
        examples = examples_of(base_model, [1])
        samples = draw_samples(base_model, examples, replace(config, noise_draws=64), step=1)
        prompts = Prompts.of(base_model, lidb.basis.table, examples.prompts)
        with torch.no_grad():
            return float(subject_losses(base_model, lidb, samples, prompts))

    before, after = loss(lidb_of(base_model, [1])), loss(finetuned(base_model, [1], config))
    assert after < 0.95 * before


def test_a_stopped_subject_keeps_its_numbers_and_its_neighbour_goes_on(base_model_double: BaseModel) -> None:
    base_model, examples = base_model_double, examples_of(base_model_double, [0, 1])
    seen: list[tuple[int, int]] = []

    def on_step(step: int, total: int) -> list[bool]:
        seen.append((step, total))
        return [step < 2, True]

    lidb = fast_finetune(base_model, lidb_of(base_model, [0, 1]), examples, CONFIG, on_step=on_step)
    assert seen == [(step, 6) for step in range(1, 7)]
    alone = flatten(finetuned(base_model, [1]))[0]
    torch.testing.assert_close(flatten(lidb)[1], alone, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(flatten(lidb)[0], flatten(finetuned(base_model, [0]))[0], rtol=1e-3)


@pytest.mark.parametrize("batch", [[0, 1, 2, 3], [3, 1, 0]])
def test_neighbours_with_other_rates_and_steps_or_cancelled_change_nothing(
    base_model_double: BaseModel, batch: list[int]
) -> None:
    def config(subject: int) -> FinetuneConfig:
        return replace(CONFIG, steps=4 + subject, learning_rate=1e-2 / (1 + subject), clip_norm=0.1 * (1 + subject))

    def on_step(step: int, total: int) -> list[bool]:
        assert total == max(config(subject).steps for subject in batch)
        return [subject != 1 or step < 3 for subject in batch]

    lidb, examples = lidb_of(base_model_double, batch), examples_of(base_model_double, batch)
    configs = [config(subject) for subject in batch]
    together = flatten(fast_finetune(base_model_double, lidb, examples, configs, on_step=on_step))
    for row, subject in enumerate(batch):
        if subject != 1:
            alone = flatten(finetuned(base_model_double, [subject], config(subject)))[0]
            assert torch.linalg.vector_norm(together[row] - alone) <= 1e-9 * torch.linalg.vector_norm(alone)


def test_who_is_done_or_cancelled_costs_nothing_any_more(
    base_model: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    forward = base_model.unet.forward

    def counted(latents: torch.Tensor, *arguments: object, **options: object) -> object:
        batches.append(len(latents))
        return forward(latents, *arguments, **options)

    monkeypatch.setattr(base_model.unet, "forward", counted)
    configs = [replace(CONFIG, steps=2), replace(CONFIG, steps=5), replace(CONFIG, steps=5)]
    lidb, examples = lidb_of(base_model, [0, 1, 2]), examples_of(base_model, [0, 1, 2])
    fast_finetune(base_model, lidb, examples, configs, on_step=lambda step, total: [True, step < 3, True])
    assert batches == [CONFIG.noise_draws * subjects for subjects in (3, 3, 2, 1, 1)]


def test_a_subject_that_is_good_enough_stops_early_alone(base_model_double: BaseModel) -> None:
    base_model = base_model_double
    lidb, examples = lidb_of(base_model, [0, 1]), examples_of(base_model, [0, 1])
    configs = [replace(CONFIG, stop_below=1e9), CONFIG]
    first, second = flatten(fast_finetune(base_model, lidb, examples, configs))
    once = fast_finetune(
        base_model,
        lidb_of(base_model, [0]),
        examples_of(base_model, [0]),
        CONFIG,
        on_step=lambda step, total: [False],
    )
    torch.testing.assert_close(first, flatten(once)[0], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(second, flatten(finetuned(base_model, [1]))[0], rtol=1e-9, atol=1e-12)


def test_one_lucky_step_is_no_reason_to_stop(base_model: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The running loss is .8 of what it was and .2 of what is seen: 1, .82, .676, .5608."""
    taken: list[int] = []

    def only_lost(base_model: BaseModel, flight: Flight, lidb: LiDB, step: int) -> torch.Tensor:
        taken.append(step)
        return torch.tensor([1.0 if step == 1 else 0.1])

    monkeypatch.setattr(finetune, "take_step", only_lost)
    fast_finetune(
        base_model, lidb_of(base_model, [0]), examples_of(base_model, [0]), replace(CONFIG, steps=9, stop_below=0.6)
    )
    assert taken == [1, 2, 3, 4]


@pytest.mark.parametrize("batch", [[0, 1, 2], [2, 1]])
def test_forty_steps_in_float32_drift_by_less_than_a_thousandth(base_model: BaseModel, batch: list[int]) -> None:
    config = replace(CONFIG, steps=40)
    together = flatten(finetuned(base_model, batch, config))
    for row, subject in enumerate(batch):
        alone = flatten(finetuned(base_model, [subject], config))[0]
        assert torch.linalg.vector_norm(together[row] - alone) <= 1e-3 * torch.linalg.vector_norm(alone)


def test_finetuning_ends_when_nobody_is_left(base_model: BaseModel) -> None:
    steps: list[int] = []

    def on_step(step: int, total: int) -> list[bool]:
        steps.append(step)
        return [False, False]

    fast_finetune(base_model, lidb_of(base_model, [0, 1]), examples_of(base_model, [0, 1]), CONFIG, on_step=on_step)
    assert steps == [1]


def test_numbers_that_are_not_finite_stay_with_their_subject(base_model_double: BaseModel) -> None:
    examples = examples_of(base_model_double, [0, 1])
    examples.latents[0] = float("nan")
    lidb = fast_finetune(base_model_double, lidb_of(base_model_double, [0, 1]), examples, CONFIG)
    assert not flatten(lidb)[0].isfinite().all()
    torch.testing.assert_close(flatten(lidb)[1], flatten(finetuned(base_model_double, [1]))[0], rtol=1e-9, atol=1e-12)


def test_without_warm_up_the_first_step_has_the_whole_rate() -> None:
    assert learning_rate(1, FinetuneConfig(steps=40, learning_rate=1.0, warmup_steps=0)) == 1.0


def test_the_learning_rate_warms_up_and_ends_at_its_share() -> None:
    config = FinetuneConfig(steps=40, learning_rate=1.0, warmup_steps=5, final_learning_rate=0.05)
    rates = [learning_rate(step, config) for step in range(1, 41)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == rates[4]
    assert rates[-1] == pytest.approx(0.05, abs=0.002)
