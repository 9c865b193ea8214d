"""What callers are told about base models."""

from enum import StrEnum

from pydantic import BaseModel, Field


class ModelState(StrEnum):
    """Whether jobs for it run now."""

    READY = "ready"
    LOADING = "loading"
    ABSENT = "absent"


class ModelRead(BaseModel):
    """A base model."""

    name: str
    default: bool = Field(description="What a subject gets that names none.")
    state: ModelState = Field(description="`absent`: jobs wait until a worker for it is there.")
    workers: int
    has_hypernetwork: bool | None = Field(description="null before a worker has loaded it.")
    personalize_seconds: int | None = Field(description="Of recent jobs, from start to end; null if unmeasured.")
    generate_seconds: int | None


class ModelList(BaseModel):
    """The base models of this deployment."""

    models: list[ModelRead]
