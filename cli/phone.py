"""What a phone does: sends a photo, watches the job, asks for pictures, downloads them. Plain HTTP, nothing else."""

import time
import uuid
from collections.abc import Callable
from typing import Any, Self

import httpx

from cli.errors import Refused

FINAL = frozenset({"succeeded", "failed", "canceled", "expired", "rejected"})
POLL_SECONDS = 0.5
PATIENCE_SECONDS = 60  # how long a service that doesn't answer is asked again
Json = dict[str, Any]


class Phone:
    """A client on a bad network: every request may be repeated, since each carries an Idempotency-Key."""

    def __init__(self, url: str, key: str, *, transport: httpx.BaseTransport | None = None) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        self._client = httpx.Client(base_url=url, headers=headers, timeout=30, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def send_photo(self, photo: bytes, *, name: str) -> Json:
        """Upload a photo; returns the subject and its first job."""
        form = {"name": name, "consent": "self"}
        created: Json = self._ask("POST", "/v1/subjects", files={"photo": (name, photo)}, data=form).json()
        return created

    def cancel_leftovers(self) -> None:
        """End what an earlier visit, cut short, left in the queue."""
        for job in self._ask("GET", "/v1/jobs").json()["jobs"]:
            if job["status"] not in FINAL:
                self._ask("POST", job["links"]["cancel"])

    def order_pictures(self, subject_id: str, prompts: list[str], *, count: int, seed: int) -> Json:
        """Ask for some pictures of each prompt; returns the generation and its job."""
        order = {"prompts": prompts, "count": count, "seed": seed}
        ordered: Json = self._ask("POST", f"/v1/subjects/{subject_id}/generations", json=order).json()
        return ordered

    def follow(self, job: Json, watch: Callable[[Json], None]) -> Json:
        """Poll until the job ends, at no cost while nothing changes; a job without a result is `Refused`."""
        path, tag = job["links"]["self"], ""
        while True:
            answer = self._ask("GET", path, headers={"If-None-Match": tag} if tag else {})
            if answer.status_code != httpx.codes.NOT_MODIFIED:
                job, tag = answer.json(), answer.headers.get("ETag", "")
                watch(job)
            if job["status"] in FINAL:
                break
            time.sleep(POLL_SECONDS)
        if job["status"] != "succeeded":
            error = job["error"] or {"code": job["status"], "detail": "The job has no result."}
            raise Refused(error["code"], error["detail"])
        return job

    def weights(self, subject_id: str) -> bytes:
        """The subject's LiDB file."""
        return self._ask("GET", f"/v1/subjects/{subject_id}/weights", params={"format": "lidb"}).content

    def pictures(self, generation_id: str) -> list[bytes]:
        """The pictures of a generation that is done, by their presigned links."""
        images = self._ask("GET", f"/v1/generations/{generation_id}").json()["images"]
        return [httpx.get(image["url"], timeout=30).raise_for_status().content for image in images if image["url"]]

    def _ask(self, method: str, path: str, **request: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own arguments
        headers = {**request.pop("headers", {}), **({"Idempotency-Key": uuid.uuid4().hex} if method == "POST" else {})}
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                answer = self._client.request(method, path, headers=headers, **request)
            except httpx.TransportError:
                if time.monotonic() > deadline:
                    raise Refused("unreachable", "The service does not answer.") from None
            else:
                if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                    return _or_refused(answer)
            time.sleep(POLL_SECONDS)


def _or_refused(answer: httpx.Response) -> httpx.Response:
    """An error answer becomes its problem's code and words."""
    if answer.is_success or answer.status_code == httpx.codes.NOT_MODIFIED:
        return answer
    if "problem+json" not in answer.headers.get("Content-Type", ""):
        raise Refused(f"http_{answer.status_code}", answer.text[:200])
    problem = answer.json()
    raise Refused(problem["code"], problem["detail"])
