"""Answers that a client can keep: an ETag over the body, 304 for who has it already."""

import hashlib
import re

from fastapi import Response
from pydantic import BaseModel


def etag_of(body: bytes) -> str:
    """A strong ETag."""
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def is_known(etag: str, if_none_match: str | None) -> bool:
    """Does the client have this version? (Weak comparison, as RFC 9110 asks for here.)"""
    if not if_none_match:
        return False
    return any(known.strip().removeprefix("W/") in {etag, "*"} for known in if_none_match.split(","))


def known_version(if_none_match: str | None) -> int | None:
    """The version in the ETag that the client has."""
    found = re.match(r'(?:W/)?"(\d{1,9})\.', if_none_match or "")
    return int(found[1]) if found else None


def conditional(
    content: BaseModel, if_none_match: str | None, headers: dict[str, str], *, version: int | None = None
) -> Response:
    """The content as JSON, or 304 if the client has it. `known_version` finds the version in the ETag again."""
    body = content.model_dump_json().encode()
    etag = etag_of(body) if version is None else f'"{version}.{etag_of(body)[1:]}'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", **headers}
    if is_known(etag, if_none_match):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)
