"""Read `POST /v1/subjects`: by hand, so that strangers' bodies are not read and every field is checked."""

import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from app.dependencies import PartsDep, SubjectWriterDep, typed_id
from app.errors import body_pointer, field_errors, pointing_at
from app.idempotency import fingerprint
from app.subjects.schemas import SubjectFields, UploadedSubject
from core.errors import ConsentRequired, InvalidRequest, PhotoTooLarge, UnsupportedMediaType
from core.ids import UPLOAD
from core.schemas import MAX_PHOTOS

MAX_FIELDS = 20
CHUNK_BYTES = 1_000_000


@dataclass(frozen=True, kw_only=True)
class NewSubject:
    """Photos, or where they were uploaded to, and what the caller says about them."""

    photos: Mapping[str, UploadFile | UUID]  # by what to point at when one can't be used
    fields: SubjectFields
    sha256: str  # the same for the same request

    def uploads(self) -> list[tuple[str, UUID]]:
        """Those that were uploaded before."""
        return [(pointer, sent) for pointer, sent in self.photos.items() if isinstance(sent, UUID)]


async def new_subject(request: Request, caller: SubjectWriterDep, parts: PartsDep) -> AsyncIterator[NewSubject]:
    """The request's body. The caller is known by now; photos stay in files until the answer has been given."""
    content_type = request.headers.get("content-type", "").lower()
    if content_type.startswith("application/json"):
        yield _from_json(await request.body())
    elif content_type.startswith("multipart/form-data"):
        async with _form(request, max_photo_bytes=parts.settings.max_photo_bytes) as form:
            yield await _from_form(form)
    else:
        raise UnsupportedMediaType("Send multipart/form-data with a part `photo`, or JSON with `upload_ids`.")


NewSubjectDep = Annotated[NewSubject, Depends(new_subject)]


class PhotoForm(MultiPartParser):
    """A form whose files are photos: each is cut off as soon as it is too large."""

    max_photo_bytes: int
    _taken = 0

    def on_part_begin(self) -> None:
        """Count anew."""
        super().on_part_begin()
        self._taken = 0

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """Take some bytes of a part."""
        self._taken += end - start
        if self._taken > self.max_photo_bytes:
            raise PhotoTooLarge(f"A photo has at most {self.max_photo_bytes:,} bytes.")
        super().on_part_data(data, start, end)


@asynccontextmanager
async def _form(request: Request, *, max_photo_bytes: int) -> AsyncIterator[FormData]:
    async with aclosing(request.stream()) as stream:
        parser = PhotoForm(request.headers, stream, max_files=MAX_PHOTOS, max_fields=MAX_FIELDS)
        parser.max_photo_bytes = max_photo_bytes
        try:
            with pointing_at("#/photo"):
                form = await parser.parse()
        except MultiPartException as error:
            raise InvalidRequest(errors=[{"pointer": "#", "detail": error.message}]) from None
        except UnicodeError:  # of a charset that the header names
            raise InvalidRequest(errors=[{"pointer": "#", "detail": "This is no text in that charset"}]) from None
    try:
        yield form
    finally:
        await form.close()


async def _from_form(form: FormData) -> NewSubject:
    sent = form.getlist("photo")
    photos = {f"#/photo/{index}": part for index, part in enumerate(sent) if isinstance(part, UploadFile)}
    if not sent or len(photos) < len(sent):
        raise InvalidRequest(errors=[{"pointer": "#/photo", "detail": "A file is required"}])
    fields = _fields(form)
    digests = [await _digest(photo) for photo in photos.values()]
    return NewSubject(photos=photos, fields=fields, sha256=_sha256(digests, fields))


async def _digest(photo: UploadFile) -> bytes:
    digest = hashlib.sha256()
    while chunk := await photo.read(CHUNK_BYTES):
        digest.update(chunk)
    await photo.seek(0)
    return digest.digest()


def _fields(form: FormData) -> SubjectFields:
    given = [(name, value) for name, value in form.multi_items() if name != "photo"]
    names = [name for name, _ in given]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidRequest(
            errors=[{"pointer": body_pointer(name), "detail": "Given more than once"} for name in twice]
        )
    if "consent" not in names:
        raise ConsentRequired("Send `consent`: `self` for one's own face, `granted` if the person in the photo agreed.")
    try:
        return SubjectFields.model_validate(dict(given))
    except ValidationError as error:
        raise InvalidRequest(errors=field_errors(error.errors(include_url=False))) from None


def _from_json(body: bytes) -> NewSubject:
    try:
        asked = UploadedSubject.model_validate_json(body)
    except ValidationError as error:
        if any(found["loc"] == ("consent",) and found["type"] == "missing" for found in error.errors()):
            raise ConsentRequired from None
        raise InvalidRequest(errors=field_errors(error.errors(include_url=False))) from None
    fields = SubjectFields.model_validate(asked.model_dump(exclude={"upload_ids"}))
    uploads = {}
    for index, given in enumerate(asked.upload_ids):
        pointer = f"#/upload_ids/{index}"
        with pointing_at(pointer):
            uploads[pointer] = typed_id(UPLOAD, given)
    digest = _sha256([upload_id.bytes for upload_id in uploads.values()], fields)
    return NewSubject(photos=uploads, fields=fields, sha256=digest)


def _sha256(photos: list[bytes], fields: SubjectFields) -> str:
    return fingerprint(b"subject", *photos, fields.model_dump_json().encode())
