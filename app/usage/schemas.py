"""What an account used, by day."""

from datetime import date

from pydantic import BaseModel, Field


class UsageDay(BaseModel):
    """One day in UTC."""

    day: date
    jobs: dict[str, int] = Field(description="Jobs that were asked for, by kind.")
    seconds: float = Field(description="Of work on jobs that ended that day.")
    images: int = Field(description="Pictures that were drawn, deleted ones not included.")
    bytes: int = Field(description="Of weights and pictures that were stored, deleted ones not included.")


class Usage(BaseModel):
    """Days with any use, oldest first."""

    days: list[UsageDay]
