"""`/v1/uploads`: a place to put a photo, for phones that upload in the background."""

from fastapi import APIRouter, Response

from app.dependencies import PartsDep, RepeatsDep, SubjectWriterDep, UnitOfWorkDep
from app.documented import problems
from app.idempotency import replay_headers
from app.uploads import service
from app.uploads.schemas import NewUpload, UploadRead
from core.errors import IdempotencyInFlight, IdempotencyMismatch, PhotoTooLarge

router = APIRouter(prefix="/v1/uploads", tags=["uploads"])


@router.post("", status_code=201, responses=problems(PhotoTooLarge, IdempotencyInFlight, IdempotencyMismatch))
async def create_upload(
    new: NewUpload,
    caller: SubjectWriterDep,
    uow: UnitOfWorkDep,
    parts: PartsDep,
    repeats: RepeatsDep,
    response: Response,
) -> UploadRead:
    """Ask where to put a photo. Then upload it there, and make the subject with its `upload_ids`."""
    upload, replayed = await service.create_upload(parts, uow.session, caller, new, repeats)
    response.headers.update(replay_headers(replayed=replayed))
    return upload
