"""`/v1/tokens`: short-lived keys for phones."""

from fastapi import APIRouter, Response

from app.dependencies import PartsDep, RepeatsDep, TokenMakerDep, UnitOfWorkDep, typed_id
from app.documented import problems
from app.idempotency import replay_headers
from app.tokens import service
from app.tokens.schemas import NewToken, TokenRead
from core.errors import IdempotencyInFlight, IdempotencyMismatch, NotFound
from core.ids import SUBJECT, encode_id

router = APIRouter(prefix="/v1/tokens", tags=["tokens"])


@router.post("", status_code=201, responses=problems(NotFound, IdempotencyInFlight, IdempotencyMismatch))
async def create_token(
    new: NewToken,
    caller: TokenMakerDep,
    uow: UnitOfWorkDep,
    parts: PartsDep,
    repeats: RepeatsDep,
    response: Response,
) -> TokenRead:
    """Make a token that a phone can hold: it makes one subject and watches what becomes of it."""
    subject_id = typed_id(SUBJECT, new.subject_id) if new.subject_id else None
    token, text = await service.create_token(
        uow.session, caller, subject_id, repeats, seconds=new.seconds, environment=parts.settings.environment
    )
    response.headers.update(replay_headers(replayed=text is None))
    assert token.expires_at is not None
    shown = encode_id(SUBJECT, token.subject_id) if token.subject_id else None
    return TokenRead(token=text, subject_id=shown, expires_at=token.expires_at)
