"""What endpoints receive, for the `webhooks` section of the OpenAPI document. Nothing here is ever called."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Header

from app.webhooks.schemas import WebhookMessage
from core.webhooks import WebhookEvent

router = APIRouter()
MEANINGS = {
    WebhookEvent.JOB_STARTED: "A worker has begun.",
    WebhookEvent.JOB_SUCCEEDED: "The job has its result.",
    WebhookEvent.JOB_FAILED: "The job ended without a result; ask for its `error`.",
    WebhookEvent.JOB_CANCELED: "The job was cancelled.",
    WebhookEvent.JOB_REJECTED: "The photo or the prompt was refused; ask for the job's `error`.",
    WebhookEvent.JOB_EXPIRED: "The job's deadline passed before a worker was free.",
    WebhookEvent.SUBJECT_ERASED: "The subject's rows and objects are gone.",
}


def _describe(event: WebhookEvent, meaning: str) -> None:
    def message(
        body: WebhookMessage,
        webhook_id: Annotated[str, Header(description="The same in every try: drop what you have seen.")],
        webhook_timestamp: Annotated[str, Header(description="Seconds since 1970; refuse what is minutes old.")],
        webhook_signature: Annotated[str, Header(description="`v1,...`, one for each valid secret.")],
    ) -> None:
        """Answer 2xx within 15 seconds, or it is tried again: ten times over three days. 410 disables the endpoint."""

    name = event.replace(".", "_")
    describe: Callable[..., object] = router.post(event, operation_id=f"on_{name}", summary=meaning, tags=["webhooks"])
    describe(message)


for event, meaning in MEANINGS.items():
    _describe(event, meaning)
