"""`/v1/subjects/{id}/weights`: the file, to keep."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Response

from app.answers import is_known
from app.dependencies import IfNoneMatchDep, PartsDep, ReaderDep, SessionDep, SubjectIdDep
from app.documented import problems
from app.weights import service
from app.weights.ranges import requested_range
from app.weights.schemas import WeightsFormat
from core.errors import NotFound, RangeNotSatisfiable, SubjectNotReady
from core.ids import SUBJECT, encode_id

router = APIRouter(prefix="/v1/subjects/{subject_id}/weights", tags=["weights"])
MEDIA_TYPE = "application/octet-stream"
BINARY = {"content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}}
RESPONSES = problems(NotFound, RangeNotSatisfiable, SubjectNotReady, also_304=True) | {
    200: {"description": "The safetensors file", **BINARY},
    206: {"description": "The range that was asked for", **BINARY},
}
RangeDep = Annotated[str | None, Header(alias="Range", description="`bytes=0-1023`")]


@router.get("", response_class=Response, responses=RESPONSES)
async def download_weights(
    subject_id: SubjectIdDep,
    caller: ReaderDep,
    session: SessionDep,
    parts: PartsDep,
    *,
    format: Annotated[WeightsFormat, Query()] = WeightsFormat.LIDB,
    if_none_match: IfNoneMatchDep = None,
    range_: RangeDep = None,
    if_range: Annotated[str | None, Header(alias="If-Range")] = None,
) -> Response:
    """The subject's weights. The ETag is the file's SHA-256."""
    adapter = await service.stored_weights(parts, session, caller, subject_id)
    await session.close()  # no connection is held while the bucket answers
    etag = f'"{adapter.sha256}"'
    name = f"{encode_id(SUBJECT, subject_id)}.{format}.safetensors"
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", "Accept-Ranges": "bytes"}
    if is_known(etag, if_none_match):
        return Response(status_code=304, headers=headers)
    headers["Content-Disposition"] = f'attachment; filename="{name}"'
    part = requested_range(range_, adapter.size) if if_range in {None, etag} else None
    content = await service.read_weights(parts, adapter)
    if part is None:
        return Response(content, media_type=MEDIA_TYPE, headers=headers)
    headers["Content-Range"] = f"bytes {part[0]}-{part[1] - 1}/{adapter.size}"
    return Response(content[part[0] : part[1]], status_code=206, media_type=MEDIA_TYPE, headers=headers)
