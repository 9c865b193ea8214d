"""Lists, newest first: a limit, an opaque cursor, and the next page as a link."""

import base64
import binascii
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Query, Request
from pydantic import BaseModel, Field

from core.errors import InvalidRequest

CURSOR = r"^[A-Za-z0-9_-]{22}$"


class PageRequest(BaseModel):
    """Which part of a list is asked for."""

    limit: int
    before: UUID | None


class Page(BaseModel):
    """A part of a list."""

    next_cursor: str | None = Field(description="For the page after this one; null on the last.")


def page_request(
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(pattern=CURSOR, description="`next_cursor` of the page before.")] = None,
) -> PageRequest:
    """`?limit=&cursor=`."""
    return PageRequest(limit=limit, before=decode_cursor(cursor) if cursor else None)


PageDep = Annotated[PageRequest, Depends(page_request)]


def encode_cursor(last: UUID) -> str:
    """Opaque: what is in it may change."""
    return base64.urlsafe_b64encode(last.bytes).decode().rstrip("=")


def decode_cursor(cursor: str) -> UUID:
    """The id behind a cursor of ours."""
    try:
        return UUID(bytes=base64.b64decode(f"{cursor}==", altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        raise InvalidRequest(errors=[{"pointer": "?cursor", "detail": "This is no cursor of ours."}]) from None


def next_cursor(ids: list[UUID], page: PageRequest) -> str | None:
    """For a query that asked for one row more than the page holds."""
    return encode_cursor(ids[page.limit - 1]) if len(ids) > page.limit else None


def next_link(request: Request, cursor: str | None) -> dict[str, str]:
    """The next page as a header (RFC 8288), with the same filters."""
    if cursor is None:
        return {}
    url = request.url.include_query_params(cursor=cursor)
    return {"Link": f'<{url.path}?{url.query}>; rel="next"'}
