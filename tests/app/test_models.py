import httpx
from fastapi import FastAPI
from sqlalchemy import update
from sqlalchemy.orm import Session

from core.lifecycle import WorkerRole
from core.statements import report_alive
from core.tables import Job
from tests.app.conftest import submit
from tests.app.worker_role import claim, finish
from tests.factories import photo_bytes


def report(db: Session, model: str, state: str, *, hypernetwork: bool = False, loaded: bool = True) -> None:
    """A GPU worker says how it is."""
    hash_ = "h" if loaded else None
    name = f"{model} {state}"
    statement = report_alive(
        name, WorkerRole.GPU, state=state, base_model=model, base_model_hash=hash_, has_hypernetwork=hypernetwork
    )
    db.execute(statement)
    db.commit()


async def test_the_deployments_own_model_is_known_without_a_worker(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/models")).json()["models"] == [
        {
            "name": "mini",
            "default": True,
            "state": "absent",
            "workers": 0,
            "has_hypernetwork": None,
            "personalize_seconds": None,
            "generate_seconds": None,
        }
    ]


async def test_workers_say_what_they_serve(client: httpx.AsyncClient, db: Session) -> None:
    report(db, "mini", "busy", hypernetwork=True)
    report(db, "mini", "loading", loaded=False)
    report(db, "sd-15", "loading", loaded=False)
    models = (await client.get("/v1/models")).json()["models"]
    assert [(each["name"], each["state"], each["workers"], each["has_hypernetwork"]) for each in models] == [
        ("mini", "ready", 2, True),
        ("sd-15", "loading", 1, None),
    ]


async def test_a_model_that_a_worker_serves_can_be_asked_for(client: httpx.AsyncClient, db: Session) -> None:
    report(db, "sd-15", "ready")
    assert (await submit(client, photo_bytes(), base_model="sd-15")).json()["subject"]["base_model"] == "sd-15"
    refused = await submit(client, photo_bytes(), base_model="sd-15", method="hyperdreambooth")
    assert (refused.status_code, refused.json()["code"]) == (422, "no_hypernetwork")


async def test_the_seconds_of_recent_jobs_are_told(service: FastAPI, client: httpx.AsyncClient, db: Session) -> None:
    await submit(client, photo_bytes())
    service.state.parts.forecaster.forget()
    finish(db, claim(db))
    db.execute(update(Job).values(timings={"finetuning": 8.2}))
    db.commit()
    assert (await client.get("/v1/models")).json()["models"][0]["personalize_seconds"] == 10
