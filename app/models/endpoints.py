"""`/v1/models`: what this deployment can draw with."""

from fastapi import APIRouter

from app.dependencies import PartsDep, ReaderDep, SessionDep
from app.documented import problems
from app.models import service
from app.models.schemas import ModelList

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("", responses=problems())
async def list_models(caller: ReaderDep, session: SessionDep, parts: PartsDep) -> ModelList:
    """The base models, which of them can predict weights from a photo, and how long jobs take."""
    return ModelList(models=await service.list_models(session, parts))
