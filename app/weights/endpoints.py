"""`/v1/subjects/{id}/weights`: the file, to keep."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response

from app.answers import is_known
from app.dependencies import IfNoneMatchDep, PartsDep, ReaderDep, SubjectIdDep, UnitOfWorkDep
from app.documented import JOB_HEADERS, problems
from app.jobs.endpoints import accepted_headers
from app.jobs.schemas import JobRead
from app.jobs.service import describe_new
from app.weights import service
from app.weights.ranges import requested_range
from app.weights.schemas import WeightsFormat
from app.weights.service import StoredFile
from core.errors import NotFound, RangeNotSatisfiable, SubjectNotReady, TooManyJobs
from core.ids import SUBJECT, encode_id

router = APIRouter(prefix="/v1/subjects/{subject_id}/weights", tags=["weights"])
MEDIA_TYPE = "application/octet-stream"
BINARY = {"content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}}
RESPONSES = problems(NotFound, RangeNotSatisfiable, SubjectNotReady, TooManyJobs, also_304=True) | {
    200: {"description": "The safetensors file", **BINARY},
    202: {"description": "It is being folded: watch this job", "model": JobRead, "headers": JOB_HEADERS},
    206: {"description": "The range that was asked for", **BINARY},
}


@router.get("", response_class=Response, responses=RESPONSES)
async def download_weights(
    caller: ReaderDep,
    subject_id: SubjectIdDep,
    uow: UnitOfWorkDep,
    parts: PartsDep,
    request: Request,
    *,
    format: Annotated[WeightsFormat, Query()] = WeightsFormat.LIDB,
    if_none_match: IfNoneMatchDep = None,
    range_: Annotated[str | None, Header(alias="Range", description="`bytes=0-1023`")] = None,
    if_range: Annotated[str | None, Header(alias="If-Range")] = None,
) -> Response:
    """The subject's weights; `lidb` at once, the LoRA formats after a job on first request. The ETag is the SHA-256."""
    trace = request.state.traceparent
    found = await service.find_weights(parts, uow, caller, subject_id, format, traceparent=trace)
    if not isinstance(found, StoredFile):
        job = await describe_new(parts, uow, caller, found, prefer=None)
        headers = accepted_headers(job, None)
        return Response(job.model_dump_json(), status_code=202, media_type="application/json", headers=headers)
    await uow.session.close()  # no connection is held while the bucket answers
    etag = f'"{found.sha256}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", "Accept-Ranges": "bytes"}
    if is_known(etag, if_none_match):
        return Response(status_code=304, headers=headers)
    name = f"{encode_id(SUBJECT, subject_id)}.{format}.safetensors"
    headers["Content-Disposition"] = f'attachment; filename="{name}"'
    part = requested_range(range_, found.size) if if_range in {None, etag} else None
    return await _answer(parts, found, part, headers)


async def _answer(parts: PartsDep, file: StoredFile, part: tuple[int, int] | None, headers: dict[str, str]) -> Response:
    content = await service.read_weights(parts, file)
    if part is None:
        return Response(content, media_type=MEDIA_TYPE, headers=headers)
    headers["Content-Range"] = f"bytes {part[0]}-{part[1] - 1}/{file.size}"
    return Response(content[part[0] : part[1]], status_code=206, media_type=MEDIA_TYPE, headers=headers)
