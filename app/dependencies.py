"""What endpoints ask for."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Header, Path, Query, Request, Security
from fastapi.dependencies.models import Dependant
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import WHO_ASKS, Caller, caller_of, key_sha256
from app.parts import Parts
from app.unit_of_work import UnitOfWork
from core.accounts import TOKEN_SCOPES, Scope
from core.database import read_one
from core.errors import InvalidRequest, NotFound, Unauthorized
from core.ids import GENERATION, JOB, SUBJECT, decode_id

MAX_IDEMPOTENCY_KEY = 255
bearer = HTTPBearer(
    scheme_name="ApiKey",
    auto_error=False,
    description="`Authorization: Bearer hdb_live_...` (`hdb_test_...` where a deployment is for tests), made with "
    "`hdb keys create`. Scopes: read, subjects:write, generations:write, admin.",
)
Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]


# FastAPI runs a dependency that is no coroutine in a thread, which costs more than all that these do.
async def get_parts(request: Request) -> Parts:
    """What `create_app` made."""
    parts: Parts = request.app.state.parts
    return parts


PartsDep = Annotated[Parts, Depends(get_parts)]


async def authenticate(request: Request, scopes: SecurityScopes, parts: PartsDep, credentials: Bearer) -> Caller:
    """The caller, who has the scopes that the endpoint names and requests left in this minute."""
    digest = key_sha256(given_key(credentials), parts.settings.environment)
    caller = caller_of(await read_one(parts.reads, WHO_ASKS, {"key_sha256": digest}))
    admit(request, parts, [Scope(scope) for scope in scopes.scopes], caller)
    return caller


def given_key(credentials: HTTPAuthorizationCredentials | None) -> str:
    """The key as it was sent, for an endpoint that looks it up together with what is asked for."""
    if credentials is None:
        raise Unauthorized("Send `Authorization: Bearer <key>`.")
    return credentials.credentials


def admit(request: Request, parts: Parts, scopes: Sequence[Scope], caller: Caller) -> None:
    """Count the request, then see whether the caller may do this, and whether we know what they ask for."""
    request.state.quota = parts.limiter.quota(caller.key_id)
    parts.limiter.take(request.state.quota)
    for scope in scopes:
        caller.require(scope)
    if request.scope["query_string"]:
        refuse_unknown_query(request)


def refuse_unknown_query(request: Request) -> None:
    """A misspelt filter would answer with everything."""
    known = query_names(request.scope["route"].dependant)
    if unknown := sorted({name for name in request.query_params if name not in known}):
        raise InvalidRequest(
            errors=[{"pointer": f"?{name}", "detail": "There is no such field here"} for name in unknown]
        )


def query_names(dependant: Dependant) -> set[str]:
    """What an endpoint reads from its query, through all of its dependencies."""
    own = {str(parameter.alias) for parameter in dependant.query_params}
    return own.union(*map(query_names, dependant.dependencies))


def caller_with(*scopes: Scope) -> object:
    """A dependency that lets only keys with the scopes in, and shows them in the OpenAPI document."""
    return Security(authenticate, scopes=[scope.value for scope in scopes])


CallerDep = Annotated[Caller, Security(authenticate)]
ReaderDep = Annotated[Caller, caller_with(Scope.READ)]
ReadKeyDep = Annotated[HTTPAuthorizationCredentials | None, Security(bearer, scopes=[Scope.READ.value])]
SubjectWriterDep = Annotated[Caller, caller_with(Scope.SUBJECTS_WRITE)]
GenerationWriterDep = Annotated[Caller, caller_with(Scope.GENERATIONS_WRITE)]
AdminDep = Annotated[Caller, caller_with(Scope.ADMIN)]


async def holder(caller: ReaderDep) -> Caller:
    """A caller with a key of the account's own: a phone's token is not enough."""
    return caller.with_a_key()


async def writing_holder(caller: SubjectWriterDep) -> Caller:
    """The same, for changes."""
    return caller.with_a_key()


async def token_maker(caller: Annotated[Caller, caller_with(*TOKEN_SCOPES)]) -> Caller:
    """The same, with all that a token may do: nobody hands on more."""
    return caller.with_a_key()


TokenMakerDep = Annotated[Caller, Depends(token_maker)]
KeyHolderDep = Annotated[Caller, Depends(holder)]
KeyHolderWriterDep = Annotated[Caller, Depends(writing_holder)]


async def unit_of_work(parts: PartsDep) -> AsyncIterator[UnitOfWork]:
    """One transaction around the endpoint; nothing is kept if it raises."""
    async with parts.sessions() as session:
        uow = UnitOfWork(session, parts.publisher)
        yield uow
        await uow.commit()


async def read_session(parts: PartsDep) -> AsyncIterator[AsyncSession]:
    """For endpoints that only read."""
    async with parts.read_sessions() as session:
        yield session


SessionDep = Annotated[AsyncSession, Depends(read_session, scope="function")]
# With the default scope, the commit would run after the answer has been sent.
UnitOfWorkDep = Annotated[UnitOfWork, Depends(unit_of_work, scope="function")]

IdempotencyKeyDep = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=MAX_IDEMPOTENCY_KEY,
        description="Any unique text. The same key and request give the first answer again, for 24 hours.",
    ),
]
PreferDep = Annotated[
    str | None,
    Header(alias="Prefer", description="`wait=N` (N up to 20) holds the answer until the job's state changes."),
]


@dataclass(frozen=True)
class Repeats:
    """How a request that makes something is told from its repetition."""

    key: str | None
    keep: timedelta


async def repeats(parts: PartsDep, key: IdempotencyKeyDep = None) -> Repeats:
    """From the header and the settings."""
    return Repeats(key, timedelta(hours=parts.settings.idempotency_hours))


RepeatsDep = Annotated[Repeats, Depends(repeats)]


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What a request that makes something says beside its body."""

    key: str | None
    prefer: str | None
    traceparent: str


async def submission(request: Request, key: IdempotencyKeyDep = None, prefer: PreferDep = None) -> Submission:
    """From the headers."""
    return Submission(key=key, prefer=prefer, traceparent=request.state.traceparent)


SubmissionDep = Annotated[Submission, Depends(submission)]
IfNoneMatchDep = Annotated[str | None, Header(alias="If-None-Match", description="An ETag; 304 if it still holds.")]


def typed_id(prefix: str, text: str) -> UUID:
    """What is no id of that type is simply not there."""
    value = decode_id(prefix, text)
    if value is None:
        raise NotFound
    return value


async def subject_id(subject_id: Annotated[str, Path(examples=["sub_01m8398gmne0a84bdbs8wn5qd6"])]) -> UUID:
    """The subject in the path."""
    return typed_id(SUBJECT, subject_id)


JobIdText = Annotated[str, Path(examples=["job_01m8398gmne0a84bdbs8wn5qd6"])]


async def job_id(job_id: JobIdText) -> UUID:
    """The job in the path."""
    return typed_id(JOB, job_id)


async def generation_id(generation_id: Annotated[str, Path(examples=["gen_01m8398gmne0a84bdbs8wn5qd6"])]) -> UUID:
    """The generation in the path."""
    return typed_id(GENERATION, generation_id)


async def subject_filter(
    subject_id: Annotated[
        str | None, Query(pattern=r"^sub_[0-7][0-9a-hjkmnp-tv-z]{25}$", description="Of this subject only.")
    ] = None,
) -> UUID | None:
    """The subject that a list is about."""
    return decode_id(SUBJECT, subject_id) if subject_id else None


SubjectFilterDep = Annotated[UUID | None, Depends(subject_filter)]
SubjectIdDep = Annotated[UUID, Depends(subject_id)]
JobIdDep = Annotated[UUID, Depends(job_id)]
GenerationIdDep = Annotated[UUID, Depends(generation_id)]
