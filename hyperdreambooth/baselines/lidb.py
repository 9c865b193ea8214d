"""HyperDreamBooth itself, and LiDB without a hypernetwork, in the shape in which the others are compared."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace

from PIL import Image

from hyperdreambooth.adapter import Adapter
from hyperdreambooth.attach import attach
from hyperdreambooth.config import FinetuneConfig
from hyperdreambooth.diffusion import BaseModel
from hyperdreambooth.personalize import Networks, personalize_faces, unpack


@dataclass(frozen=True, eq=False)
class AttachedAdapter:
    """An adapter as the service would keep it."""

    networks: Networks
    adapter: Adapter

    @property
    def subject(self) -> str:
        return self.adapter.provenance.trigger

    @property
    def stored_bytes(self) -> int:
        return len(self.adapter.to_bytes())

    def attached(self, base_model: BaseModel) -> AbstractContextManager[BaseModel]:
        return attach(base_model, unpack(self.networks, [self.adapter]))


def hyperdreambooth(networks: Networks, face: Image.Image, finetune: FinetuneConfig, *, seed: int) -> AttachedAdapter:
    """Prediction (where there is a hypernetwork), relaxation, finetuning. No steps: the prediction alone."""
    config = replace(networks.config, finetune=finetune, finetune_from_start=finetune)
    (outcome,) = personalize_faces([[face]], networks, config, seeds=[seed], report=lambda phase, step, total: None)
    if isinstance(outcome, Exception):
        raise outcome
    return AttachedAdapter(networks, outcome)


def lidb_alone(networks: Networks, face: Image.Image, finetune: FinetuneConfig, *, seed: int) -> AttachedAdapter:
    """Everybody starts from the same start, which knows nobody."""
    return hyperdreambooth(without_hypernetwork(networks), face, finetune, seed=seed)


def without_hypernetwork(networks: Networks) -> Networks:
    return replace(networks, hypernetwork=None, hypernetwork_hash=None)


@contextmanager
def refinement_passes(networks: Networks, passes: int) -> Iterator[Networks]:
    """The hypernetwork with another k than it was trained with."""
    assert networks.hypernetwork is not None
    decoder = networks.hypernetwork.decoder
    trained = decoder.refinement_passes
    decoder.refinement_passes = passes
    try:
        yield networks
    finally:
        decoder.refinement_passes = trained
