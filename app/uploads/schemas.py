"""A place to put a photo."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from core.ids import UPLOAD, encode_id
from core.storage import UploadForm, UploadPut
from core.tables import Upload


class NewUpload(BaseModel):
    """What will be uploaded."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"size": 2_345_678}]})

    size: int = Field(ge=1, description="Bytes, exactly: the PUT is signed for this length.")
    content_type: Annotated[str, StringConstraints(pattern=r"^image/[a-z0-9.+-]{1,40}$")] = "image/jpeg"


class PostForm(BaseModel):
    """A form: send `fields`, then the photo as `file`, as multipart/form-data."""

    url: str
    fields: dict[str, str]


class PutRequest(BaseModel):
    """A plain file: send it with these headers, exactly."""

    url: str
    headers: dict[str, str]


class UploadRead(BaseModel):
    """Two ways to upload one photo; take one of them."""

    id: str = Field(examples=["upl_01m8398gmne0a84bdbs8wn5qd6"])
    post: PostForm
    put: PutRequest
    expires_at: datetime = Field(description="Until then the addresses work; the photo is to be used within the hour.")


def upload_read(upload: Upload, form: UploadForm, put: UploadPut, expires_at: datetime) -> UploadRead:
    """The upload as callers see it."""
    return UploadRead(
        id=encode_id(UPLOAD, upload.id),
        post=PostForm(url=form.url, fields=form.fields),
        put=PutRequest(url=put.url, headers=put.headers),
        expires_at=expires_at,
    )
