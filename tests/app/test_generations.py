import io
from datetime import timedelta

import httpx
import pytest
from PIL import Image
from sqlalchemy.orm import Session

from core.schemas import GenerateParams, PictureFormat, Verdict
from core.storage import ObjectStore
from core.tables import Generation, Job
from hyperdreambooth.errors import UnsuitableSize
from tests.app.conftest import MakeClient, submit
from tests.app.worker_role import draw, personalize
from tests.factories import photo_bytes
from tests.worker.conftest import Bench


@pytest.fixture
async def path(client: httpx.AsyncClient, db: Session, store: ObjectStore) -> str:
    """Where to ask for pictures of a subject who has weights."""
    subject = (await submit(client, photo_bytes())).json()["subject"]
    personalize(db, store)
    return f"{subject['links']['self']}/generations"


async def test_pictures_are_asked_for_drawn_and_fetched(
    client: httpx.AsyncClient, db: Session, store: ObjectStore, path: str
) -> None:
    asked = await client.post(path, json={"prompts": ["oil painting of {subject}", "pixel art"], "count": 2, "seed": 7})
    assert asked.status_code == 202
    generation, job = asked.json()["generation"], asked.json()["job"]
    assert (job["kind"], job["generation_id"], generation["images"]) == ("generate", generation["id"], [])
    assert asked.headers["Location"] == job["links"]["self"]

    draw(db, store, b"a picture")
    done = (await client.get(job["links"]["self"])).json()
    drawn = (await client.get(done["result"]["generation"])).json()
    assert drawn["status"] == "succeeded"
    assert [(image["prompt"], image["seed"]) for image in drawn["images"]] == [
        ("oil painting of {subject}", 7),
        ("oil painting of {subject}", 8),
        ("{subject}, pixel art", 7),
        ("{subject}, pixel art", 8),
    ]
    async with httpx.AsyncClient() as phone:
        picture = await phone.get(drawn["images"][0]["url"])
        without_signature = await phone.get(drawn["images"][0]["url"].split("?")[0])
    assert (picture.content, picture.headers["Content-Type"]) == (b"a picture", "image/png")
    assert without_signature.status_code == 403


async def test_blocked_pictures_are_told_and_not_shown(client: httpx.AsyncClient, bench: Bench, path: str) -> None:
    bench.engine.judge = lambda prompt: Verdict.BLOCKED
    asked = (await client.post(path, json={"prompt": "a", "count": 2})).json()
    bench.generating().run_one("mini")
    generation = (await client.get(asked["generation"]["links"]["self"])).json()
    assert generation["status"] == "succeeded"
    told = [(image["verdict"], image["url"], image["size"]) for image in generation["images"]]
    assert told == [("blocked", None, 0)] * 2
    listed = (await client.get("/v1/generations")).json()["generations"]
    assert listed == [generation]


async def test_without_a_seed_one_is_drawn(client: httpx.AsyncClient, db: Session, path: str) -> None:
    for _ in range(2):
        await client.post(path, json={"prompt": "a"})
    seeds = {job.seed for job in db.query(Job).filter_by(kind="generate")}
    assert len(seeds) == 2


async def test_options_reach_the_worker(client: httpx.AsyncClient, db: Session, path: str) -> None:
    options = {"steps": 9, "guidance": 2.5, "negative_prompt": "blur", "width": 96, "height": 64, "format": "webp"}
    await client.post(path, json={"prompt": "a", "seed": 1} | options)
    params = db.query(Job).filter_by(kind="generate").one().params
    assert params == {"pictures": [{"prompt": "{subject}, a", "seed": 1}]} | options
    assert GenerateParams.model_validate(params).format is PictureFormat.WEBP


async def test_what_is_not_asked_for_is_the_models_own(client: httpx.AsyncClient, db: Session, path: str) -> None:
    await client.post(path, json={"prompt": "a"})
    params = GenerateParams.model_validate(db.query(Job).filter_by(kind="generate").one().params)
    assert (params.width, params.height, params.steps, params.format) == (None, None, None, PictureFormat.PNG)


@pytest.mark.parametrize(
    ("form", "content_type", "suffix"),
    [("png", "image/png", "png"), ("jpeg", "image/jpeg", "jpg"), ("webp", "image/webp", "webp")],
)
async def test_pictures_come_in_the_format_that_was_asked_for(
    client: httpx.AsyncClient, bench: Bench, path: str, form: str, content_type: str, suffix: str
) -> None:
    asked = (await client.post(path, json={"prompt": "a secret garden", "format": form})).json()
    bench.generating().run_one("mini")
    (image,) = (await client.get(asked["generation"]["links"]["self"])).json()["images"]
    async with httpx.AsyncClient() as phone:
        saved = await phone.get(image["url"])
    assert (image["format"], saved.headers["Content-Type"]) == (form, content_type)
    assert saved.headers["Content-Disposition"] == f'inline; filename="{image["id"]}.{suffix}"'
    picture = Image.open(io.BytesIO(saved.content))
    assert (picture.format, picture.size) == (form.upper(), (image["width"], image["height"]))
    assert b"digitalsourcetype/trainedAlgorithmicMedia" in saved.content
    assert b"garden" not in saved.content


@pytest.mark.parametrize(
    ("asked", "pointer"),
    [
        ({}, "#"),
        ({"prompt": "a", "prompts": ["b"]}, "#"),
        ({"prompt": "a", "count": 17}, "#/count"),
        ({"prompts": ["a"] * 9, "count": 2}, "#"),
        ({"prompt": ""}, "#/prompt"),
        ({"prompt": "a", "seed": -1}, "#/seed"),
        ({"prompt": "a", "lora": "x"}, "#/lora"),
        ({"prompt": "a", "width": 65}, "#/width"),
        ({"prompt": "a", "width": 56}, "#/width"),
        ({"prompt": "a", "height": 1032}, "#/height"),
        ({"prompt": "a", "format": "gif"}, "#/format"),
        ({"prompt": "a", "client_reference": "a\x00b"}, "#/client_reference"),
    ],
)
async def test_a_wrong_field_is_pointed_at(
    client: httpx.AsyncClient, path: str, asked: dict[str, object], pointer: str
) -> None:
    answer = await client.post(path, json=asked)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


async def test_a_size_that_the_model_does_not_draw_is_rejected_with_a_reason(
    client: httpx.AsyncClient, bench: Bench, path: str
) -> None:
    bench.engine.refuse = lambda request: UnsuitableSize("width and height must be at most 128 pixels")
    asked = (await client.post(path, json={"prompt": "a", "width": 1024})).json()
    bench.generating().run_one("mini")
    job = (await client.get(asked["job"]["links"]["self"])).json()
    assert (job["status"], job["error"]["code"]) == ("rejected", "unsuitable_size")
    assert "128 pixels" in job["error"]["detail"]


async def test_a_prompt_with_weights_in_it_is_refused(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.post(path, json={"prompt": "{subject} <lora:someone:1>"})
    assert (answer.status_code, answer.json()["code"]) == (422, "prompt_rejected")


async def test_a_body_that_is_no_json_is_refused(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.post(path, content=b"{", headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_a_body_larger_than_any_request_is_refused(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.post(path, json={"prompt": "a" * 200_000})
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


async def test_a_subject_without_weights_is_not_drawn(client: httpx.AsyncClient) -> None:
    subject = (await submit(client, photo_bytes())).json()["subject"]
    answer = await client.post(f"{subject['links']['self']}/generations", json={"prompt": "a"})
    assert (answer.status_code, answer.json()["code"]) == (409, "subject_not_ready")
    assert answer.json()["retryable"]


async def test_an_idempotency_key_makes_one_generation(client: httpx.AsyncClient, db: Session, path: str) -> None:
    key = {"Idempotency-Key": "k"}
    first = await client.post(path, json={"prompt": "a"}, headers=key)
    again = await client.post(path, json={"prompt": "a"}, headers=key)
    other = await client.post(path, json={"prompt": "b"}, headers=key)
    assert again.json()["generation"]["id"] == first.json()["generation"]["id"]
    assert (again.headers["Idempotency-Replayed"], other.json()["code"]) == ("true", "idempotency_mismatch")
    assert db.query(Generation).count() == 1


async def test_what_was_deleted_since_is_not_given_again(client: httpx.AsyncClient, db: Session, path: str) -> None:
    key = {"Idempotency-Key": "k"}
    asked = await client.post(path, json={"prompt": "a"}, headers=key)
    await client.delete(asked.json()["generation"]["links"]["self"])
    deleted = await client.post(path, json={"prompt": "a"}, headers=key)
    db.query(Generation).delete()  # as the sweeper does
    db.commit()
    swept = await client.post(path, json={"prompt": "a"}, headers=key)
    assert [(each.status_code, each.json()["code"]) for each in (deleted, swept)] == [(404, "not_found")] * 2


async def test_a_deleted_generation_is_gone_and_its_job_ends(client: httpx.AsyncClient, path: str) -> None:
    asked = (await client.post(path, json={"prompt": "a"})).json()
    itself = asked["generation"]["links"]["self"]
    assert (await client.delete(itself)).status_code == 204
    assert (await client.get(itself)).status_code == 404
    assert (await client.get(asked["job"]["links"]["self"])).json()["status"] == "canceled"
    assert (await client.get("/v1/generations")).json()["generations"] == []


async def test_generations_are_listed_by_subject(client: httpx.AsyncClient, path: str) -> None:
    ids = [(await client.post(path, json={"prompt": "a"})).json()["generation"]["id"] for _ in range(3)]
    listed = await client.get("/v1/generations", params={"subject_id": path.split("/")[3], "limit": 2})
    assert [generation["id"] for generation in listed.json()["generations"]] == ids[:0:-1]
    other = await client.get("/v1/generations", params={"subject_id": "sub_01m8398gmne0a84bdbs8wn5qd6"})
    assert other.json()["generations"] == []


async def test_strangers_see_nothing(make_client: MakeClient, client: httpx.AsyncClient, path: str) -> None:
    itself = (await client.post(path, json={"prompt": "a"})).json()["generation"]["links"]["self"]
    stranger = make_client()
    assert (await stranger.get(itself)).status_code == 404
    assert (await stranger.delete(itself)).status_code == 404
    assert (await stranger.post(path, json={"prompt": "a"})).status_code == 404


async def test_pictures_are_kept_as_long_as_the_setting_says(client: httpx.AsyncClient, db: Session, path: str) -> None:
    await client.post(path, json={"prompt": "a"})
    generation = db.query(Generation).one()
    assert generation.expires_at - generation.created_at == timedelta(days=30)
