"""Every number of the method, with its source: the paper (Ruiz et al., arXiv 2307.06949), or ours and why."""

import json
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from hyperdreambooth.layers import LayerKind

Config = TypeVar("Config")
PERSONALIZATION_FILE = "personalization.json"  # beside model_index.json: how this base model likes to be personalised


@dataclass(frozen=True, kw_only=True)
class LiDBConfig:
    """Lightweight DreamBooth: ΔW = A_aux A_train B_train B_aux."""

    a: int = 100  # width of A_aux (paper, section 4.1); at most a layer's outputs
    b: int = 50  # width of B_aux (same); at most a layer's inputs
    # The UNet's attention and the text encoder (paper, section 4.1). Ours: `convolution`, the resnets' 3 x 3 ones.
    layers: tuple[LayerKind, ...] = (LayerKind.ATTENTION, LayerKind.TEXT)
    start_std: float = 0.2  # ours: of the B_train from which everybody starts; see `lidb.shared_start`
    aux_seed: int = 0  # part of the adapter format: changing it breaks stored adapters


@dataclass(frozen=True, kw_only=True)
class HypernetworkConfig:
    """Face to train matrices: an encoder of its latents, and a transformer decoder over one token per target layer."""

    patch_size: int = 2  # side of a patch, in latents (ours: the paper's encoder, a ViT-H, looks at pixels)
    width: int = 192
    heads: int = 4
    encoder_layers: int = 2
    decoder_layers: int = 2  # paper, section 4.2
    refinement_passes: int = 2  # paper, section 4.2: several, number not given
    rank: int = 1  # of the prediction (paper, section 4.1); more is ours


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Rank-relaxed fast finetuning (paper, section 4.3)."""

    steps: int = 40  # paper, section 4.3
    rank: int = 2  # ours: 120 000 bytes in fp16 on SD 1.5
    learning_rate: float = 2e-3  # ours; the paper gives none
    warmup_steps: int = 5  # ours
    final_learning_rate: float = 0.05  # ours: the end of the cosine, as a share of learning_rate
    noise_draws: int = 4  # ours: noisy copies of the face in each step, at stratified timesteps
    views: int = 8  # ours: the face, its mirror image and slightly moved copies, in turns; see `views.py`
    background_weight: float = 0.1  # ours: of what surrounds the head in the loss; it is not the person
    clip_norm: float = 1.0  # ours: of one subject's gradient
    new_rank_std: float = 0.05  # ours: of the columns that rank relaxation adds to A_train
    stop_below: float = 0.0  # ours: a subject whose running loss falls below this is done; 0: never


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """How pictures are drawn when the caller does not say."""

    steps: int = 25
    guidance: float = 3.0
    negative_prompt: str = ""
    width: int | None = None  # in pixels; None: the base model's own
    height: int | None = None


@dataclass(frozen=True, kw_only=True)
class PersonalizeConfig:
    """One base model's way from a photo to an adapter. Defaults fit Stable Diffusion 1.x."""

    identifier: str = "sks"  # the rare token that stands for the subject ([V] in the paper)
    class_noun: str = "person"
    instance_prompt: str = "a photo of a {subject}"  # {subject} becomes identifier and class noun
    min_face_pixels: int = 96  # shorter side of the face in the photo
    lidb: LiDBConfig = field(default_factory=LiDBConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    # Without a hypernetwork the start knows nobody: more steps (ours, after DreamBooth's 400 in the paper's table 2).
    finetune_from_start: FinetuneConfig = field(default_factory=lambda: FinetuneConfig(steps=400, learning_rate=5e-3))
    sample: SampleConfig = field(default_factory=SampleConfig)

    @property
    def subject(self) -> str:
        """What `{subject}` in a prompt becomes."""
        return f"{self.identifier} {self.class_noun}"

    def fill_prompt(self, prompt: str) -> str:
        """Put the subject where the prompt says `{subject}`, or in front where it doesn't."""
        prompt = prompt if "{subject}" in prompt else f"{{subject}}, {prompt}" if prompt.strip() else "{subject}"
        return prompt.replace("{subject}", self.subject)


def load_personalize_config(folder: Path) -> PersonalizeConfig:
    """What the base model's folder asks for; the defaults where it says nothing."""
    path = folder / PERSONALIZATION_FILE
    return from_json(PersonalizeConfig, path.read_text()) if path.exists() else PersonalizeConfig()


def to_json(config: Any) -> str:  # noqa: ANN401 - any of the dataclasses above
    """The config as JSON, the same bytes every time."""
    return json.dumps(asdict(config), sort_keys=True, separators=(",", ":"))


def from_json(kind: type[Config], text: str) -> Config:
    """Read a config back. Missing fields keep their defaults; an unknown one is an error: it would be ignored."""
    return _from_dict(kind, json.loads(text))


def _from_dict(kind: type[Config], values: dict[str, Any]) -> Config:
    assert is_dataclass(kind), kind
    unknown = values.keys() - {entry.name for entry in fields(kind)}
    if unknown:
        raise ValueError(f"{kind.__name__} has no {', '.join(sorted(unknown))}")
    types = get_type_hints(kind)
    return replace(kind(), **{name: _value(types[name], value) for name, value in values.items()})


def _value(kind: Any, value: Any) -> Any:  # noqa: ANN401 - whatever a field may be
    if is_dataclass(kind) and isinstance(kind, type):
        return _from_dict(kind, value)
    if isinstance(value, list):
        kind, *_ = get_args(kind)
        return tuple(map(kind, value))
    return value
