"""`/docs/errors/{code}`: the page that an error's `type` names."""

from html import escape

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from core.errors import FAILURE_TITLES, AppError, FailureCode, NotFound

router = APIRouter(prefix="/docs/errors", include_in_schema=False)
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{code}</title>
<h1><code>{code}</code></h1><p><b>{title}</b></p><p>{text}</p><p>{retry}</p>
<p><a href="/docs/errors">All errors</a></p></html>"""
RETRY = {True: "The same request may succeed later.", False: "The same request will fail again."}


def error_classes() -> dict[str, type[AppError]]:
    """Every error that a request can meet, by its code."""
    found: dict[str, type[AppError]] = {}
    waiting: list[type[AppError]] = [AppError]
    while waiting:
        error = waiting.pop()
        found.setdefault(error.code, error)
        waiting.extend(error.__subclasses__())
    return found


@router.get("", response_class=HTMLResponse)
async def list_errors() -> str:
    """All codes."""
    codes = sorted({*error_classes(), *FailureCode})
    items = "".join(f'<li><a href="/docs/errors/{code}">{code}</a></li>' for code in codes)
    return f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Errors</title><ul>{items}</ul></html>'


@router.get("/{code}", response_class=HTMLResponse)
async def explain_error(code: str) -> str:
    """One code: of a request, of a job, or of both."""
    error = error_classes().get(code)
    if error is not None:
        text = f"HTTP {error.status}. {error.__doc__ or ''}"
        return PAGE.format(code=code, title=escape(error.title), text=escape(text), retry=RETRY[error.retryable])
    if code in set(FailureCode):
        title = FAILURE_TITLES[FailureCode(code)]
        return PAGE.format(code=code, title=escape(title), text="Why a job ended without a result.", retry="")
    raise NotFound("There is no error by that name.")
