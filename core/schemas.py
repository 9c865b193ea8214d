"""What API and worker tell each other: a job's `params`, and words that rows hold."""

from enum import StrEnum
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

MAX_IMAGES = 16
MAX_PHOTOS = 8
MAX_PROMPT_CHARACTERS = 1000


class Method(StrEnum):
    """How a subject is personalised."""

    AUTO = "auto"
    HYPERDREAMBOOTH = "hyperdreambooth"
    LIDB = "lidb"


class PictureFormat(StrEnum):
    """As what a generation's pictures are stored."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"

    @property
    def content_type(self) -> str:
        """What the bucket says that the file is."""
        return f"image/{self.value}"

    @property
    def suffix(self) -> str:
        """How such a file's name ends."""
        return ".jpg" if self is PictureFormat.JPEG else f".{self.value}"


class Verdict(StrEnum):
    """What a look at a drawn picture said."""

    OK = "ok"
    NO_FACE = "no_face"
    BLOCKED = "blocked"


class Params(BaseModel):
    """Unknown fields are a bug of ours: they fail loudly."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PersonalizeParams(Params):
    """A person's photos to one adapter."""

    method: Method = Method.AUTO


class ExportParams(Params):
    """One adapter into another tool's format."""

    adapter_id: UUID
    format: str


class PictureRequest(Params):
    """One picture to draw: `{subject}` in the prompt stands for the person."""

    prompt: str
    seed: int


class GenerateParams(Params):
    """The pictures of one generation, each with its own prompt and seed."""

    pictures: list[PictureRequest] = Field(min_length=1, max_length=MAX_IMAGES)
    negative_prompt: str = ""
    steps: int | None = None
    guidance: float | None = None
    format: PictureFormat = PictureFormat.PNG
    width: int | None = None  # pixels; None is the base model's own resolution
    height: int | None = None
