"""`/v1/uploads`: a place to put a photo, for phones that upload in the background."""

from fastapi import APIRouter

from app.dependencies import PartsDep, SubjectWriterDep, UnitOfWorkDep
from app.documented import problems
from app.uploads import service
from app.uploads.schemas import NewUpload, UploadRead
from core.errors import PhotoTooLarge

router = APIRouter(prefix="/v1/uploads", tags=["uploads"])


@router.post("", status_code=201, responses=problems(PhotoTooLarge))
async def create_upload(new: NewUpload, caller: SubjectWriterDep, uow: UnitOfWorkDep, parts: PartsDep) -> UploadRead:
    """Ask where to put a photo. Then upload it there, and make the subject with its `upload_ids`."""
    return await service.create_upload(parts, uow.session, caller, new)
