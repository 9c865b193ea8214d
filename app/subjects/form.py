"""Read `POST /v1/subjects`: by hand, so that strangers' bodies are not read and every field is checked."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request, UploadFile
from pydantic import ValidationError
from starlette.datastructures import FormData
from starlette.datastructures import UploadFile as FormFile

from app.dependencies import SubjectWriterDep
from app.errors import field_errors
from app.idempotency import fingerprint
from app.subjects.schemas import SubjectFields
from core.errors import ConsentRequired, InvalidRequest, UnsupportedMediaType

MAX_FIELDS = 20


@dataclass(frozen=True)
class NewSubject:
    """A photo, and what the caller says about it."""

    photo: bytes
    fields: SubjectFields

    @property
    def sha256(self) -> str:
        """The same for the same request."""
        return fingerprint(b"subject", self.photo, self.fields.model_dump_json().encode())


async def new_subject(request: Request, caller: SubjectWriterDep) -> NewSubject:
    """The request's body. The caller is known by now."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise UnsupportedMediaType("Send multipart/form-data with a part `photo`.")
    async with request.form(max_files=1, max_fields=MAX_FIELDS) as form:
        return NewSubject(photo=await _photo(form), fields=_fields(form))


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
