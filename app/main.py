"""The service. START HERE: `create_app` puts the parts together; `uvicorn --factory app.main:create_app` runs it.

A request meets `app/middleware.py`, then an endpoint (a selfie begins in `app/subjects/endpoints.py`), which calls one
method of a service (`app/subjects/service.py`). Next: `core/statements.py`, how a job moves.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import APIRouter, FastAPI

import app.generations.endpoints
import app.jobs.endpoints
import app.models.endpoints
import app.subjects.endpoints
import app.tokens.endpoints
import app.uploads.endpoints
import app.usage.endpoints
import app.webhooks.endpoints
import app.webhooks.messages
import app.weights.endpoints
from app import error_pages, health, metrics
from app.errors import add_error_responses
from app.middleware import BodyLimit, RequestContext
from app.openapi import openapi_document
from app.parts import make_parts, running
from core.logs import configure_logs
from core.schemas import MAX_PHOTOS
from core.settings import Settings

# What a multipart body needs beside its photos, and more than any JSON body needs.
SMALL_BODY_BYTES = 100_000
# Tried one after another: jobs, which are polled, come first.
ROUTERS: tuple[APIRouter, ...] = (
    app.jobs.endpoints.router,
    app.uploads.endpoints.router,
    app.subjects.endpoints.router,
    app.weights.endpoints.router,
    app.generations.endpoints.router,
    app.webhooks.endpoints.router,
    app.tokens.endpoints.router,
    app.models.endpoints.router,
    app.usage.endpoints.router,
    health.router,
    metrics.router,
    error_pages.router,
)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application; the settings are read from the environment unless given."""
    settings = settings or Settings()
    configure_logs(settings)
    parts = make_parts(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with running(parts):
            yield

    service = FastAPI(
        lifespan=lifespan,
        version=version("hyperdreambooth-service"),
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        webhooks=app.webhooks.messages.router,
    )
    service.state.parts = parts
    service.state.limiter = parts.limiter
    service.state.routes = [route for router in ROUTERS for route in router.routes]
    for router in ROUTERS:
        service.include_router(router)
    add_error_responses(service)
    service.add_middleware(
        BodyLimit,
        form_bytes=MAX_PHOTOS * settings.max_photo_bytes + SMALL_BODY_BYTES,
        other_bytes=SMALL_BODY_BYTES,
    )
    service.add_middleware(RequestContext, metrics=parts.metrics, limiter=parts.limiter)
    service.openapi = lambda: openapi_document(service)  # type: ignore[method-assign]
    return service
