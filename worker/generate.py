"""Jobs of kind `generate`: an adapter's bytes and prompts in, pictures' bytes out, for a batch of subjects."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, assert_never
from uuid import UUID

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from sqlalchemy import select
from sqlalchemy.orm import Session

from core.database import Sessions
from core.ids import new_id
from core.lifecycle import JobKind
from core.object_keys import picture_key
from core.schemas import GenerateParams, PictureFormat, Verdict
from core.statements import add_images
from core.storage import ObjectMissing, ObjectStore
from core.tables import Adapter, Generation, Job, Subject
from hyperdreambooth.errors import AdapterError
from worker.attempts import OnStep
from worker.failures import SubjectErased
from worker.ledger import Record

QUALITY = 95  # of the formats that lose something
# What the IPTC calls a picture that was made by a trained model. Nothing about the prompt or the account is written.
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    'Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/>'
    "</rdf:RDF></x:xmpmeta>"
)


@dataclass(frozen=True)
class GenerateRequest:
    """What one generation's pictures are made from."""

    subject_id: UUID
    adapter: bytes
    params: GenerateParams


@dataclass(frozen=True)
class Picture:
    """One drawn picture. A blocked one goes no further."""

    image: Image.Image
    verdict: Verdict


class Painter(Protocol):
    """What this work asks of an engine."""

    def generate(self, requests: Sequence[GenerateRequest], on_step: OnStep) -> Sequence[Sequence[Picture] | Exception]:
        """A picture for each of a request's prompts, or an error for the request, in order."""


class Generating:
    """The work of a `generate` job."""

    kind = JobKind.GENERATE

    def __init__(self, engine: Painter, sessions: Sessions, store: ObjectStore) -> None:
        self._engine, self._sessions, self._store = engine, sessions, store

    def fetch(self, job: Job) -> GenerateRequest:
        """The weights that the subject points at now."""
        assert job.subject_id is not None
        statement = select(Adapter.object_key).join(Subject, Subject.adapter_id == Adapter.id)
        with self._sessions() as session:
            key = session.scalar(statement.where(Subject.id == job.subject_id, Subject.erased_at.is_(None)))
        if key is None:
            raise SubjectErased
        try:
            adapter = self._store.get(key)
        except ObjectMissing as error:
            raise AdapterError("the subject's weights are gone") from error
        return GenerateRequest(job.subject_id, adapter, GenerateParams.model_validate(job.params))

    def run(self, inputs: Sequence[GenerateRequest], on_step: OnStep) -> Sequence[Sequence[Picture] | Exception]:
        """The engine's part."""
        return self._engine.generate(inputs, on_step)

    def store(self, job: Job, output: Sequence[Picture]) -> Record:
        """The pictures under keys of this attempt's own; then their rows."""
        with self._sessions() as session:
            generation = session.scalars(select(Generation).where(Generation.job_id == job.id)).one()
        params = GenerateParams.model_validate(job.params)
        rows = []
        for position, (wanted, picture) in enumerate(zip(params.pictures, output, strict=True)):
            key = picture_key(generation.subject_id, generation.id, job.attempt, position, params.format.suffix)
            size = self._put(key, picture, params.format)
            rows.append(
                {
                    "id": new_id(),
                    "generation_id": generation.id,
                    "position": position,
                    "object_key": key if size else None,
                    "prompt": wanted.prompt,
                    "seed": wanted.seed,
                    "width": picture.image.width,
                    "height": picture.image.height,
                    "size": size,
                    "format": params.format,
                    "verdict": picture.verdict,
                }
            )

        def record(session: Session) -> None:
            alive = select(Generation.id).join(Subject, Subject.id == Generation.subject_id)
            alive = alive.where(
                Generation.id == generation.id, Generation.erased_at.is_(None), Subject.erased_at.is_(None)
            )
            if session.scalar(alive.with_for_update(key_share=True)) is None:
                raise SubjectErased
            session.execute(add_images(rows))

        return record

    def _put(self, key: str, picture: Picture, form: PictureFormat) -> int:
        """How many bytes are in the bucket now."""
        if picture.verdict is Verdict.BLOCKED:
            return 0
        content = encode(picture.image, form)
        self._store.put(key, content, content_type=form.content_type)
        return len(content)

    def clean_up(self, job: Job) -> None:
        """Nothing that only the job needed."""


def encode(image: Image.Image, form: PictureFormat) -> bytes:
    """The picture as a file that says it is synthetic."""
    content = io.BytesIO()
    image.save(content, form.value, **_options(form))
    return content.getvalue()


def _options(form: PictureFormat) -> dict[str, Any]:
    match form:
        case PictureFormat.PNG:
            notes = PngInfo()
            notes.add_itxt("XML:com.adobe.xmp", XMP)
            return {"pnginfo": notes}
        case PictureFormat.JPEG:
            return {"xmp": XMP.encode(), "quality": QUALITY, "subsampling": 0}
        case PictureFormat.WEBP:
            return {"xmp": XMP.encode(), "quality": QUALITY}
        case _:
            assert_never(form)
