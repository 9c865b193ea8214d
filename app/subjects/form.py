"""Read `POST /v1/subjects`: by hand, so that strangers' bodies are not read and every field is checked."""

from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request, UploadFile
from pydantic import ValidationError
from starlette.datastructures import FormData
from starlette.datastructures import UploadFile as FormFile

from app.dependencies import SubjectWriterDep, typed_id
from app.errors import field_errors
from app.idempotency import fingerprint
from app.subjects.schemas import SubjectFields, UploadedSubject
from core.errors import ConsentRequired, InvalidRequest, UnsupportedMediaType
from core.ids import UPLOAD

MAX_FIELDS = 20


@dataclass(frozen=True)
class NewSubject:
    """A photo, or where it was uploaded to, and what the caller says about it."""

    photo: bytes | UUID
    fields: SubjectFields

    @property
    def sha256(self) -> str:
        """The same for the same request."""
        photo = self.photo.bytes if isinstance(self.photo, UUID) else self.photo
        return fingerprint(b"subject", photo, self.fields.model_dump_json().encode())


async def new_subject(request: Request, caller: SubjectWriterDep) -> NewSubject:
    """The request's body. The caller is known by now."""
    content_type = request.headers.get("content-type", "").lower()
    if content_type.startswith("application/json"):
        return _from_json(await request.body())
    if not content_type.startswith("multipart/form-data"):
        raise UnsupportedMediaType("Send multipart/form-data with a part `photo`, or JSON with `upload_ids`.")
    async with request.form(max_files=1, max_fields=MAX_FIELDS) as form:
        return NewSubject(photo=await _photo(form), fields=_fields(form))


def _from_json(body: bytes) -> NewSubject:
    try:
        asked = UploadedSubject.model_validate_json(body)
    except ValidationError as error:
        if any(found["loc"] == ("consent",) and found["type"] == "missing" for found in error.errors()):
            raise ConsentRequired from None
        raise InvalidRequest(errors=field_errors(error.errors(include_url=False))) from None
    fields = SubjectFields.model_validate(asked.model_dump(exclude={"upload_ids"}))
    return NewSubject(photo=typed_id(UPLOAD, asked.upload_ids[0]), fields=fields)


NewSubjectDep = Annotated[NewSubject, Depends(new_subject)]


async def _photo(form: FormData) -> bytes:
    photo = form.get("photo")
    if not isinstance(photo, (FormFile, UploadFile)):
        raise InvalidRequest(errors=[{"pointer": "#/photo", "detail": "A file is required"}])
    return await photo.read()


def _fields(form: FormData) -> SubjectFields:
    given = [(name, value) for name, value in form.multi_items() if name != "photo"]
    names = [name for name, _ in given]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidRequest(errors=[{"pointer": f"#/{name}", "detail": "Given more than once"} for name in twice])
    if "consent" not in names:
        raise ConsentRequired("Send `consent`: `self` for one's own face, `granted` if the person in the photo agreed.")
    try:
        return SubjectFields.model_validate(dict(given))
    except ValidationError as error:
        raise InvalidRequest(errors=field_errors(error.errors(include_url=False))) from None
