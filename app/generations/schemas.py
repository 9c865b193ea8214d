"""What callers ask to see, and the pictures they get."""

from datetime import datetime
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from app.jobs.schemas import JobRead
from app.links import generation_path, job_path, subject_path
from app.paging import Page
from app.subjects.schemas import MAX_DEADLINE_SECONDS
from app.texts import ONE_LINE, ShortText
from core.ids import GENERATION, IMAGE, SUBJECT, encode_id
from core.lifecycle import JobStatus
from core.schemas import MAX_IMAGES, MAX_PROMPT_CHARACTERS, PictureFormat, Verdict
from core.tables import GeneratedImage, Generation, Job

MAX_SEED = 2**32 - 1
MIN_SIDE, MAX_SIDE, SIDE_STEP = 64, 1024, 8  # pixels; every Stable Diffusion's autoencoder halves three times
Side = Annotated[int, Field(ge=MIN_SIDE, le=MAX_SIDE, multiple_of=SIDE_STEP)]
# `core/prompts.py` says more about what it refuses than a schema's pattern could.
DOCUMENTED: dict[str, JsonValue] = {"maxLength": MAX_PROMPT_CHARACTERS, "pattern": ONE_LINE}
PUT_IN = "`{subject}` stands for the person; put in front when absent."
Prompt = Annotated[str, Field(min_length=1, description=PUT_IN, json_schema_extra=DOCUMENTED)]


class NewGeneration(BaseModel):
    """Pictures of a subject: one prompt or several, each drawn `count` times."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"prompt": "an oil painting of {subject}", "count": 4, "seed": 7}]},
    )

    prompt: Prompt | None = None
    prompts: list[Prompt] | None = Field(None, min_length=1, max_length=MAX_IMAGES)
    negative_prompt: Annotated[str, Field(json_schema_extra=DOCUMENTED)] = ""
    count: int = Field(1, ge=1, le=MAX_IMAGES, description="Pictures of each prompt.")
    seed: int | None = Field(
        None, ge=0, le=MAX_SEED, description="Of the first picture of each prompt; the next one's is one higher."
    )
    steps: int | None = Field(None, ge=1, le=150)
    guidance: float | None = Field(None, ge=1, le=30)
    width: Side | None = Field(None, description="Pixels, a multiple of 8; the base model's own if absent.")
    height: Side | None = Field(None, description="The same; a model draws up to twice its own size in a direction.")
    format: PictureFormat = Field(PictureFormat.PNG, description="As what the pictures are stored.")
    deadline_seconds: int | None = Field(None, ge=1, le=MAX_DEADLINE_SECONDS)
    client_reference: ShortText | None = None

    @model_validator(mode="after")
    def one_way_of_asking(self) -> Self:
        """Either `prompt` or `prompts`, and not too many pictures."""
        if (self.prompt is None) == (self.prompts is None):
            raise ValueError("Give either `prompt` or `prompts`.")
        if len(self.all_prompts) * self.count > MAX_IMAGES:
            raise ValueError(f"At most {MAX_IMAGES} pictures in one generation.")
        return self

    @property
    def all_prompts(self) -> list[str]:
        """The prompts, however they were given."""
        return self.prompts or [self.prompt or ""]


class ImageRead(BaseModel):
    """One picture."""

    id: str
    position: int
    prompt: str
    seed: int
    width: int
    height: int
    size: int = Field(description="Bytes; 0 of a blocked picture.")
    format: PictureFormat
    verdict: Verdict = Field(
        description="`no_face`: no face was found in the picture. `blocked`: the base model's safety checker refused "
        "it, and it was not stored."
    )
    url: str | None = Field(
        description="Works for a few minutes; read the generation again for a fresh one. null of a blocked picture."
    )


class GenerationRead(BaseModel):
    """A generation."""

    id: str = Field(examples=["gen_01m8398gmne0a84bdbs8wn5qd6"])
    subject_id: str
    status: JobStatus
    created_at: datetime
    expires_at: datetime
    images: list[ImageRead]
    links: dict[str, str]


class GenerationAndJob(BaseModel):
    """A generation and the job that draws it."""

    generation: GenerationRead
    job: JobRead


class GenerationList(Page):
    """A page of generations."""

    generations: list[GenerationRead]


def image_read(image: GeneratedImage, url: str | None) -> ImageRead:
    """The picture as callers see it."""
    return ImageRead(
        id=encode_id(IMAGE, image.id),
        position=image.position,
        prompt=image.prompt,
        seed=image.seed,
        width=image.width,
        height=image.height,
        size=image.size,
        format=image.format,
        verdict=Verdict(image.verdict),
        url=url,
    )


def generation_read(generation: Generation, job: Job, images: list[ImageRead]) -> GenerationRead:
    """The generation as callers see it."""
    return GenerationRead(
        id=encode_id(GENERATION, generation.id),
        subject_id=encode_id(SUBJECT, generation.subject_id),
        status=job.status,
        created_at=generation.created_at,
        expires_at=generation.expires_at,
        images=images,
        links={
            "self": generation_path(generation.id),
            "job": job_path(job.id),
            "subject": subject_path(generation.subject_id),
        },
    )
