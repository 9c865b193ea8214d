"""Tokens for phones."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

MAX_TOKEN_SECONDS = 900


class NewToken(BaseModel):
    """What the token is for."""

    model_config = ConfigDict(extra="forbid")

    subject_id: str | None = Field(None, description="To watch this subject; absent: to make one, then watch it.")
    seconds: int = Field(MAX_TOKEN_SECONDS, ge=1, le=MAX_TOKEN_SECONDS, description="How long it works.")


class TokenRead(BaseModel):
    """The token, shown this once."""

    token: str | None = Field(description="Use it like a key. null in a repeated answer: it is shown once.")
    subject_id: str | None
    expires_at: datetime
