"""The benchmark itself, in small: what it compares must be the same work, and its file what it promises."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from benchmarks.many_subjects import floor, ways
from benchmarks.many_subjects.__main__ import all_shares, main, parse
from benchmarks.many_subjects.bench import Bench, Measured, checked
from benchmarks.many_subjects.child import Child, OutOfMemory
from benchmarks.many_subjects.clock import clocked
from benchmarks.many_subjects.floor import _counter, best_rate, generate_flops, personalize_flops
from benchmarks.many_subjects.models import SD15, Shapes, measured_networks, random_base_model, random_networks
from benchmarks.many_subjects.orders import orders, subjects_of
from benchmarks.many_subjects.peft_training import layers_of
from benchmarks.many_subjects.picture import COLOURS, scaling_picture
from benchmarks.many_subjects.settings import Case, Method, Mix, Settings, Task
from benchmarks.many_subjects.shares import Share, kind_of
from benchmarks.many_subjects.ways import Ours, Way, make_way
from hyperdreambooth.acceleration import compile_blocks, is_compiled
from hyperdreambooth.attach import layer_table
from hyperdreambooth.baselines.peft_layers import peft_layers
from hyperdreambooth.config import LiDBConfig
from hyperdreambooth.diffusion import load_base_model, sample
from hyperdreambooth.personalize import Networks
from tests.hyperdreambooth.conftest import write_tiny_folder

CPU = torch.device("cpu")
PROMISED = {
    "task",
    "method",
    "subjects",
    "mix",
    "seconds_per_subject",
    "images_per_second",
    "peak_bytes",
    "max_weight_difference",
    "max_pixel_difference",
    "floor_seconds",
    "turns",
}
# Stable Diffusion 1.5 with everything narrow: the same blocks, layers and names.
SMALL = Shapes(
    unet={**SD15.unet, "sample_size": 8, "block_out_channels": (32, 32, 32, 32), "cross_attention_dim": 16},
    vae={**SD15.vae, "sample_size": 64, "block_out_channels": (32, 32, 32, 32), "layers_per_block": 1},
    text_encoder={**SD15.text_encoder, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2},
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_folder(folder, prediction_type="v_prediction")
    return Settings(
        model=str(folder),
        subjects=(1, 2),
        methods=(Method.PEFT_LOOP, Method.OURS, Method.BASE),
        mixes=(Mix.DISTINCT, Mix.IDENTICAL),
        rounds=1,
        steps=2,
        noise_draws=2,
        sample_steps=2,
        resident=20,
        switches=3,
        device="cpu",
        threads=1,
    )


@pytest.fixture(scope="module")
def networks(settings: Settings) -> Networks:
    return measured_networks(settings, dtype=torch.float32)


@pytest.fixture(scope="module")
def out(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("out") / "many.json"
    main(settings, path)
    return path


@pytest.fixture(scope="module")
def document(out: Path) -> dict[str, Any]:
    return dict(json.loads(out.read_text()))


def rows_of(document: dict[str, Any], method: Method, task: Task) -> list[dict[str, Any]]:
    return [row for row in document["rows"] if (row["method"], row["task"]) == (method, task)]


def test_the_file_has_the_promised_shape(document: dict[str, Any], settings: Settings) -> None:
    assert (document["model"], document["dtype"], document["acceleration"]) == (settings.model, "float32", "none")
    assert "1 threads" in document["hardware"]
    assert [document[name] for name in ("steps", "noise_draws", "sample_steps")] == [2, 2, 2]
    assert {(row["task"], row["method"], row["subjects"], row["mix"]) for row in document["rows"]} == {
        (case.task, method, case.subjects, case.mix) for case in settings.cases() for method in settings.methods
    }
    for row in document["rows"]:
        assert set(row) >= PROMISED
        assert row["seconds_per_subject"] > row["floor_seconds"] > 0
        assert row["peak_bytes"] > 50_000_000
        assert 1 <= row["turns"] <= settings.rounds
        is_training = row["task"] == Task.PERSONALIZE
        assert (row["images_per_second"] is None, row["max_pixel_difference"] is None) == (is_training, is_training)


def test_our_batches_equal_single_runs(document: dict[str, Any]) -> None:
    personalized, drawn = (rows_of(document, Method.OURS, task) for task in Task)
    assert all(row["max_weight_difference"] <= 1e-3 for row in personalized)
    assert all(row["max_pixel_difference"] <= 2 for row in drawn)
    assert next(row["max_weight_difference_float64"] for row in personalized if row["subjects"] == 2) <= 1e-9
    assert next(row["max_pixel_difference_float64"] for row in drawn if row["subjects"] == 2) == 0


def test_the_base_model_goes_forth_and_back_for_each_subject_by_itself(
    document: dict[str, Any], networks: Networks
) -> None:
    rows = rows_of(document, Method.BASE, Task.PERSONALIZE)
    assert all(row["max_weight_difference"] <= 1e-5 for row in rows)
    (gradient,) = make_way(Method.BASE, networks).personalize([1])
    assert np.abs(gradient).max() > 0
    assert gradient.size == networks.config.finetune.noise_draws * np.prod(networks.base_model.latent_shape)


def test_a_loop_is_timed_once_for_all_larger_batches(settings: Settings) -> None:
    case, skewed = Case(Task.GENERATE, 32), Case(Task.GENERATE, 16, Mix.SKEWED)
    assert settings.timed(case, Method.PEFT_LOOP) == replace(case, subjects=2)
    assert settings.timed(case, Method.OURS) == case
    assert settings.timed(skewed, Method.HOTSWAP) == skewed


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's tracer looks at it itself
@pytest.mark.parametrize(("method", "task"), [(Method.OURS, Task.GENERATE), (Method.BASE, Task.PERSONALIZE)])
def test_compiled_blocks_are_measured_too(
    method: Method, task: Task, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ways, "compile_blocks", partial(compile_blocks, backend="aot_eager"))  # generates no code
    bench = Bench(replace(settings, acceleration="compile"), method)
    assert is_compiled(bench.way.networks.base_model)
    measured = bench.measure(Case(task, 2))
    assert measured.seconds > 0
    assert measured.difference is not None
    assert measured.difference <= (1e-3 if task is Task.PERSONALIZE else 2)
    assert not is_compiled(Bench(settings, method).way.networks.base_model)


def test_a_table_and_a_picture_lie_beside_the_file(out: Path) -> None:
    text = out.with_suffix(".md").read_text()
    assert "| personalize |  | 2 | ours |" in text
    assert "| ours | 20 |" in text
    assert "| ours, alone | 20 |" in text
    assert "where the time goes: generate" in text
    colours = {colour for _, colour in Image.open(out.with_suffix(".png")).getcolors(1 << 20) or ()}
    assert {rgb(COLOURS[Method.OURS]), rgb(COLOURS[Method.PEFT_LOOP])} <= colours


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))


def test_methods_of_which_nothing_fitted_into_memory_have_no_line(document: dict[str, Any]) -> None:
    missing = [row | {"seconds_per_subject": None} for row in document["rows"]]
    assert scaling_picture(missing).getcolors(1) is not None


@pytest.fixture(params=[method for method in Method if method is not Method.OURS])
def other_way(request: pytest.FixtureRequest, networks: Networks, settings: Settings) -> Way:
    # A base model of its own: some methods leave their layers in it.
    base_model = load_base_model(settings.model, device=CPU, dtype=torch.float32)
    return make_way(request.param, replace(networks, base_model=base_model))


def test_every_method_draws_the_pictures_that_ours_does(other_way: Way, networks: Networks) -> None:
    wanted, ours = orders(3, Mix.UNIFORM), Ours(networks)
    for way in (ours, other_way):
        way.prepare([order.subject for order in wanted])
    other_way.generate(wanted)  # whoever was drawn before must not be seen
    difference = largest_difference(ours.generate(wanted), other_way.generate(wanted))
    # A LoRA file is rounded to fp16; without any adapter the pictures are others altogether.
    assert difference > 20 if "Base" in type(other_way).__name__ else difference <= 4


def test_pefts_training_is_about_our_layers_and_leaves_none_of_its_own(networks: Networks) -> None:
    rank, before = networks.config.finetune.rank, dict(networks.base_model.unet.named_modules())
    with peft_layers(networks.base_model, layers_of(networks), rank=rank) as parameters:
        trained = sum(parameter.numel() for parameter in parameters.values())
        assert all(parameter.requires_grad for parameter in parameters.values())
    assert trained == sum(rank * (layer.n + layer.m) for layer in networks.basis.table.layers)
    assert dict(networks.base_model.unet.named_modules()) == before


def largest_difference(some: Sequence[Image.Image], others: Sequence[Image.Image]) -> int:
    pairs = zip(some, others, strict=True)
    return max(int(np.abs(np.asarray(one, int) - np.asarray(other, int)).max()) for one, other in pairs)


@pytest.mark.parametrize("method", [Method.PEFT_LOOP, Method.MERGED, Method.HOTSWAP])
def test_a_switch_is_timed(method: Method, settings: Settings) -> None:
    (switched,) = Bench(settings, method).switches().values()
    assert 0 < switched.p50_ms <= switched.p99_ms


@pytest.mark.parametrize(
    ("mix", "popularity"), [("distinct", [1] * 16), ("uniform", [4] * 4), ("skewed", [7, 4, 3, 2]), ("identical", [16])]
)
def test_mixes_are_as_popular_as_they_say(mix: str, popularity: list[int]) -> None:
    assert sorted(Counter(subjects_of(16, Mix(mix))).values(), reverse=True) == popularity


def test_stable_diffusions_size_is_the_real_one() -> None:
    # Paper, section 4.1: about 30 K numbers; and the 860 million weights of the published UNet.
    base_model = random_base_model(SD15, device=torch.device("meta"), dtype=torch.bfloat16)
    table = layer_table(base_model.unet, base_model.text_encoder, LiDBConfig())
    assert (len(table.layers), table.total_a + table.total_b) == (200, 30_000)
    assert sum(weight.numel() for weight in base_model.unet.parameters()) == 859_520_964
    assert base_model.resolution == 512
    assert base_model.latent_shape == (4, 64, 64)


def test_random_weights_of_that_shape_are_personalised_and_drawn() -> None:
    networks = random_networks(SMALL, device=CPU, dtype=torch.float32)
    finetune = replace(networks.config.finetune, steps=1, noise_draws=1)
    sample = replace(networks.config.sample, steps=2)
    ours = Ours(replace(networks, config=replace(networks.config, finetune=finetune, sample=sample)))
    ours.prepare([0, 1])
    table = ours.networks.basis.table
    assert [numbers.shape for numbers in ours.personalize([0, 1])] == [(2, table.total_a + table.total_b)] * 2
    assert [image.size for image in ours.generate(orders(2, Mix.DISTINCT))] == [(64, 64)] * 2


def test_flops_are_those_of_a_whole_run(networks: Networks) -> None:
    finetune = replace(networks.config.finetune, steps=3, noise_draws=4)
    sampling = replace(networks.config.sample, steps=5)
    networks = replace(networks, config=replace(networks.config, finetune=finetune, sample=sampling))
    Ours(networks).finetuned([0])  # what is tried the first time is not counted
    with _counter() as personalized:
        Ours(networks).finetuned([0])
    assert personalize_flops(networks) == personalized.get_total_flops() > 0
    torch.set_num_threads(2)  # a subject's teams, of which the counter sees one
    assert personalize_flops(networks) == personalized.get_total_flops()
    with _counter() as drawn:
        sample(networks.base_model, ["a face"], seeds=[3], config=sampling)
    assert generate_flops(networks) == drawn.get_total_flops() > 0


def test_the_cpus_attention_is_counted_like_its_two_products() -> None:
    query, key, value = (torch.randn(2, 3, length, 8, requires_grad=True) for length in (16, 24, 24))
    with _counter() as forward:
        answer = F.scaled_dot_product_attention(query, key, value)
    assert forward.get_total_flops() == 2 * (2 * 2 * 3 * 16 * 24 * 8)
    with _counter() as backward:
        answer.sum().backward()  # type: ignore[no-untyped-call]  # torch
    assert backward.get_total_flops() == 5 * (2 * 2 * 3 * 16 * 24 * 8)


@pytest.mark.parametrize("faster", ["_products", "_convolutions"])
def test_the_best_rate_is_the_faster_ones(faster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {"_products": 100, "_convolutions": 90}
    for kind, flops in kinds.items():
        seconds = 0.5 if kind == faster else 1.0
        monkeypatch.setattr(floor, kind, lambda *_, work=(flops, seconds): iter([(work[0], lambda: work[1])]))
    monkeypatch.setattr(floor, "_seconds", lambda call, device: call())
    assert best_rate(CPU, torch.float32) == 2 * kinds[faster]


def test_a_rate_counts_what_is_really_done() -> None:
    for tried in (floor._products, floor._convolutions):
        flops, call = next(tried(CPU, torch.float32))
        with _counter() as counter:
            call()
        assert counter.get_total_flops() == flops


@pytest.mark.parametrize(
    ("operator", "kind"),
    [
        ("aten::mkldnn_convolution", "convolutions"),
        ("sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128x128x64", "convolutions"),
        ("void cutlass__5x_cudnn::Kernel<cutlass_tensorop_bf16_s16816dgrad_optimized_bf16>", "convolutions"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64", "matrix products"),
        ("aten::addmm", "matrix products"),
        ("aten::bmm", "deltas and batched products"),
        ("void pytorch_flash::flash_fwd_kernel<...>", "attention"),
        ("triton_poi_fused_convolution_silu_3", "compiled code"),
        ("aten::native_group_norm", "norms"),
        ("Memcpy HtoD (Pinned -> Device)", "other"),
    ],
)
def test_kernels_are_what_their_names_say(operator: str, kind: str) -> None:
    assert kind_of(operator) == kind


def test_the_first_and_the_last_of_a_batch_are_checked() -> None:
    assert (checked(1, 2), checked(32, 2), checked(4, 9)) == ([0], [0, 31], [0, 1, 2, 3])


def test_the_command_line_names_batches_and_methods() -> None:
    settings, out = parse(["--subjects", "1,16", "--methods", "ours,base", "--steps", "5", "--out", "x.json"])
    assert (settings.subjects, settings.methods, settings.steps) == ((1, 16), (Method.OURS, Method.BASE), 5)
    assert out == Path("x.json")


def test_a_peak_is_this_calls_own() -> None:
    def fill(megabytes: int) -> int:
        return int(torch.ones(megabytes, 1 << 20, dtype=torch.uint8).sum())

    small, large, again = (clocked(partial(fill, size), CPU) for size in (1, 300, 1))
    assert large.peak_bytes > small.peak_bytes + 250e6
    assert again.peak_bytes < large.peak_bytes - 250e6
    assert large.result == 300 << 20
    assert large.seconds > 0


def test_what_does_not_fit_costs_its_own_answer_alone() -> None:
    asked: list[tuple[object, ...]] = []

    class Full:
        def ask(self, question: str, *arguments: object) -> list[Share]:
            asked.append(arguments)
            if arguments[0] is Task.PERSONALIZE:
                raise OutOfMemory
            return [Share(Task.GENERATE, "other", 1.0)]

    measured = [(Case(task, subjects), Method.OURS) for task in Task for subjects in (1, 8)]
    taken = Measured(seconds=1.0, cpu_seconds=1.0, peak_bytes=1, difference=0.0)
    turns = {timed: [taken] for timed in [*measured, (Case(Task.GENERATE, 32), Method.BASE)]}
    turns[Case(Task.GENERATE, 64), Method.OURS] = []  # didn't fit
    assert all_shares(cast(Child, Full()), turns) == [Share(Task.GENERATE, "other", 1.0)]
    assert asked == [(Task.PERSONALIZE, 8), (Task.GENERATE, 8)]  # the largest of ours that was measured
