"""The algorithm, top to bottom: photos in, adapters out; adapters and prompts in, pictures out. START HERE.

Read next: `lidb.py` (the few numbers that are a person), `hypernetwork.py` (the first guess), `finetune.py` (the rest).
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cached_property, partial
from itertools import chain

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hyperdreambooth.adapter import Adapter, Provenance
from hyperdreambooth.attach import Deltas, attach, aux_basis
from hyperdreambooth.basis import load_learned
from hyperdreambooth.config import (
    FinetuneConfig,
    PersonalizeConfig,
    SampleConfig,
    load_personalize_config,
)
from hyperdreambooth.denoise import OnStep
from hyperdreambooth.diffusion import (
    BaseModel,
    base_model_folder,
    encode_images,
    load_base_model,
    sample,
)
from hyperdreambooth.errors import Diverged, FaceError, PersonalizeError, WeightsDamaged
from hyperdreambooth.faces import FaceDetector, align_face
from hyperdreambooth.finetune import Examples, fast_finetune
from hyperdreambooth.hypernetwork import FOLDER, Hypernetwork, hypernetwork_hash, load_hypernetwork
from hyperdreambooth.lidb import AuxBasis, GroupedLiDB, LiDB, narrow_rank, relax_rank, shared_start
from hyperdreambooth.merge import merged
from hyperdreambooth.resident import Resident
from hyperdreambooth.views import views_of


class Phase(StrEnum):
    VALIDATING = "validating"
    PREDICTING = "predicting"
    FINETUNING = "finetuning"


# Phase, steps done, steps in all; may answer, for each subject, whether it is still wanted.
OnProgress = Callable[[Phase, int, int], Sequence[bool] | None]


@dataclass(frozen=True, eq=False)
class Networks:
    """What is loaded once and serves everybody. Without a hypernetwork a subject starts from the shared start."""

    base_model: BaseModel
    basis: AuxBasis
    face_detector: FaceDetector
    hypernetwork: Hypernetwork | None
    hypernetwork_hash: str | None
    config: PersonalizeConfig  # what the base model's folder asks for

    @property
    def prediction_rank(self) -> int:
        """Of the first guess, which a finetuning can only widen."""
        return self.hypernetwork.config.rank if self.hypernetwork else 1

    @cached_property
    def resident(self) -> Resident:
        """The adapters drawn with lately."""
        return Resident(self.basis)


def load_networks(folder_or_hub_id: str, *, device: torch.device, dtype: torch.dtype) -> Networks:
    """The base model, its own wishes, and the hypernetwork if there is one. WeightsDamaged where they disagree."""
    folder = base_model_folder(folder_or_hub_id)
    base_model = load_base_model(folder_or_hub_id, device=device, dtype=dtype)
    config = load_personalize_config(folder)
    basis = aux_basis(base_model, config.lidb, load_learned(folder))
    trained = (folder / FOLDER).is_dir()
    hypernetwork = load_hypernetwork(folder / FOLDER, basis) if trained else None
    if hypernetwork is not None and hypernetwork.latent_shape != base_model.latent_shape:
        raise WeightsDamaged(f"{folder}: the hypernetwork was trained for other latents")
    return Networks(
        base_model=base_model,
        basis=basis,
        face_detector=FaceDetector(),
        hypernetwork=hypernetwork,
        hypernetwork_hash=hypernetwork_hash(folder / FOLDER) if trained else None,
        config=config,
    )


def personalize(
    photos: Sequence[Sequence[Image.Image]],
    networks: Networks,
    config: PersonalizeConfig,
    *,
    seeds: Sequence[int],
    on_progress: OnProgress | None = None,
) -> list[Adapter | PersonalizeError]:
    """One or more photos of each subject to its adapter. What is wrong with one subject's photos is its own result."""
    report = on_progress or (lambda phase, step, total: None)
    portraits: list[list[Image.Image] | FaceError] = []
    seen, total = 0, sum(map(len, photos))
    for own_photos in photos:
        report(Phase.VALIDATING, seen, total)
        portraits.append(_portraits(own_photos, networks, config))
        seen += len(own_photos)
    accepted = [index for index, portrait in enumerate(portraits) if not isinstance(portrait, FaceError)]

    def report_accepted(phase: Phase, step: int, total: int) -> Sequence[bool] | None:
        wanted = report(phase, step, total)
        return None if wanted is None else [wanted[index] for index in accepted]

    faces = [own_faces for own_faces in portraits if not isinstance(own_faces, FaceError)]
    own_seeds = [seeds[index] for index in accepted]
    outcomes = iter(personalize_faces(faces, networks, config, seeds=own_seeds, report=report_accepted))
    return [portrait if isinstance(portrait, FaceError) else next(outcomes) for portrait in portraits]


def personalize_faces(
    faces: Sequence[Sequence[Image.Image]],
    networks: Networks,
    config: PersonalizeConfig,
    *,
    seeds: Sequence[int],
    report: OnProgress,
) -> list[Adapter | Diverged]:
    """HyperDreamBooth, section 4, on each subject's aligned faces: predict, relax the rank, finetune, pack."""
    if not faces:
        return []
    report(Phase.PREDICTING, 0, 1)
    finetune = config.finetune if networks.hypernetwork else config.finetune_from_start
    examples = examples_of(networks.base_model, faces, config, finetune, seeds=seeds)
    lidb = at_rank_of(finetune, predict(networks, examples), examples.generators)
    lidb = fast_finetune(networks.base_model, lidb, examples, finetune, on_step=partial(report, Phase.FINETUNING))
    return [pack(lidb, row, networks, config, finetune, seed=seed) for row, seed in enumerate(seeds)]


def examples_of(
    base_model: BaseModel,
    faces: Sequence[Sequence[Image.Image]],
    config: PersonalizeConfig,
    finetune: FinetuneConfig,
    *,
    seeds: Sequence[int],
) -> Examples:
    """What each subject is finetuned on: all views of its faces, and a generator of its own."""
    views = [
        [view for face in own for view in views_of(face, finetune.views, seed=seed)]
        for own, seed in zip(faces, seeds, strict=True)
    ]
    if base_model.device.type == "cpu":  # one by one, as `predict` does
        each = base_model.seating.one_by_one(lambda own: encode_images(base_model, views[own]), len(views))
        latents = torch.cat(each)
    else:
        latents = encode_images(base_model, list(chain(*views)))
    prompts = [config.fill_prompt(config.instance_prompt)] * len(faces)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return Examples(latents, prompts, generators, photo_counts=list(map(len, views)))


def generate(
    networks: Networks,
    adapters: Sequence[Adapter],
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    config: SampleConfig | Sequence[SampleConfig],
    on_step: OnStep | None = None,
) -> list[Image.Image]:
    """One picture for each adapter, prompt and seed; `{subject}` in a prompt is the adapter's person.

    Subjects and configs may be mixed freely: a picture depends on its own adapter, prompt, seed and config alone.
    """
    subjects = list({id(adapter): adapter for adapter in adapters}.values())
    rows = {id(adapter): row for row, adapter in enumerate(subjects)}
    subject_of_sample = torch.tensor([rows[id(adapter)] for adapter in adapters], device=networks.base_model.device)
    filled = [networks.config.fill_prompt(prompt) for prompt in prompts]
    with drawn_as(networks, unpack(networks, subjects), subject_of_sample) as base_model:
        return sample(base_model, filled, seeds=seeds, config=config, on_step=on_step)


def drawn_as(networks: Networks, deltas: Deltas, subject_of_sample: Tensor) -> AbstractContextManager[BaseModel]:
    """One subject alone is merged into the weights and costs no more than the base model; several stand beside them."""
    if deltas.subjects == 1:
        return merged(networks.base_model, deltas)
    return attach(networks.base_model, deltas, subject_of_sample=subject_of_sample)


@torch.no_grad()
def predict(networks: Networks, examples: Examples) -> LiDB:
    """The first guess: the hypernetwork's, or the shared start where there is none (rank 1).

    Several pictures of a subject are averaged train matrix by train matrix. All predictions are differences from one
    start, so neither a sign nor a scale can cancel between two of them, and ΔW of the mean is nearly the mean of ΔW.
    """
    hypernetwork = networks.hypernetwork
    if hypernetwork is None:
        return shared_start(networks.basis, subjects=len(examples.prompts))
    latents = examples.latents.to(networks.basis.dtype)
    if latents.device.type == "cpu":  # one by one, so that nobody's bits depend on others, nor on the machine's cores
        views = torch.split(latents, 1)
        predictions = networks.base_model.seating.one_by_one(lambda own: hypernetwork(views[own]), len(views))
    else:
        predictions = [hypernetwork(latents)]
    counts = [len(own) for own in examples.faces]
    a_train, b_train = (
        torch.stack([own.mean(dim=0) for own in torch.split(torch.cat(trains), counts)])
        for trains in zip(*((own.a_train, own.b_train) for own in predictions), strict=True)
    )
    return LiDB(networks.basis, a_train, b_train)


def at_rank_of(finetune: FinetuneConfig, prediction: LiDB, generators: Sequence[torch.Generator]) -> LiDB:
    """Relaxed to the rank that is finetuned; narrowed where the prediction's is higher."""
    if prediction.rank > finetune.rank:
        prediction = narrow_rank(prediction, finetune.rank)
    return relax_rank(prediction, finetune.rank, generators, std=finetune.new_rank_std)


def pack(
    lidb: LiDB, row: int, networks: Networks, config: PersonalizeConfig, finetune: FinetuneConfig, *, seed: int
) -> Adapter | Diverged:
    """One subject's row of a batch as an adapter."""
    a_train, b_train = (train[row].double().cpu().numpy() for train in (lidb.a_train, lidb.b_train))
    if not (np.isfinite(a_train).all() and np.isfinite(b_train).all()):
        return Diverged("the finetuning diverged")
    provenance = Provenance(
        base_model=networks.base_model.name,
        base_model_hash=networks.base_model.weights_hash,
        hypernetwork_hash=networks.hypernetwork_hash,
        aux_seed=networks.basis.config.aux_seed,
        aux_sha256=networks.basis.learned_hash,
        a=networks.basis.config.a,
        b=networks.basis.config.b,
        rank=lidb.rank,
        seed=seed,
        trigger=config.subject,
        method="hyperdreambooth" if networks.hypernetwork else "lidb",
        finetune=asdict(finetune),
    )
    return Adapter.pack(networks.basis.table, a_train, b_train, provenance)


def unpack(networks: Networks, adapters: Sequence[Adapter]) -> GroupedLiDB:
    """Adapters of any ranks as one batch. WrongBaseModel unless all were made for these networks."""
    for adapter in adapters:
        check_fits(networks, adapter)
    return networks.resident.lidb(adapters)


def check_fits(networks: Networks, adapter: Adapter) -> None:
    """WrongBaseModel unless the adapter was made for these networks."""
    adapter.check_fits(
        base_model_hash=networks.base_model.weights_hash,
        table=networks.basis.table,
        aux_seed=networks.basis.config.aux_seed,
        aux_sha256=networks.basis.learned_hash,
    )


def _portraits(
    photos: Sequence[Image.Image], networks: Networks, config: PersonalizeConfig
) -> list[Image.Image] | FaceError:
    """The aligned faces, or what is wrong with the first bad photo, as a value: it must not end the batch."""
    assert photos, "a subject without a photo"
    size, portraits = networks.base_model.resolution, []
    for index, photo in enumerate(photos):
        try:
            face = align_face(photo, networks.face_detector, size=size, min_face_pixels=config.min_face_pixels)
        except FaceError as error:
            error.photo = index
            return error
        portraits.append(face)
    return portraits
