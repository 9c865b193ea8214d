import re

import httpx
from sqlalchemy.orm import Session

from app.request_metrics import metric
from core.lifecycle import WorkerRole
from core.statements import report_alive
from tests.app.conftest import submit
from tests.factories import photo_bytes

SAMPLE = re.compile(r'[a-z_]+(\{([a-z_]+="[^"]*",?)*\})? [0-9.e+-]+')


async def test_requests_jobs_and_workers_are_counted(client: httpx.AsyncClient, db: Session) -> None:
    path = (await submit(client, photo_bytes())).headers["Location"]
    db.execute(report_alive("w", WorkerRole.GPU, state="busy", base_model="mini"))
    db.commit()
    await client.get(path)
    text = (await client.get("/metrics", headers={"Authorization": ""})).text

    assert 'hdb_jobs{kind="personalize",status="queued"} 1' in text
    assert 'hdb_workers{role="gpu",base_model="mini",state="busy"} 1' in text
    assert re.search(r'hdb_requests_total\{method="GET",route="/v1/jobs/\{job_id\}",status="200"\} [1-9]', text)
    assert path not in text
    for line in text.splitlines():
        assert line.startswith("# TYPE ") or SAMPLE.fullmatch(line), line


async def test_time_is_counted_in_buckets_that_only_grow(client: httpx.AsyncClient) -> None:
    text = (await client.get("/metrics")).text
    counts = [int(count) for count in re.findall(r"hdb_request_seconds_bucket\{.*\} (\d+)", text)]
    assert counts == sorted(counts)
    assert counts[-1] == int(text.split("hdb_request_seconds_count ")[1].split()[0]) > 0


def test_labels_are_escaped() -> None:
    assert list(metric("m", "gauge", {(("a", 'x"\n\\'),): 1})) == ["# TYPE m gauge", 'm{a="x\\"\\n\\\\"} 1']
