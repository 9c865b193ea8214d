"""How far the ETAs were off: each job remembers what it was promised, so that every process can tell."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.request_metrics import Labels, metric
from core.promises import recently_succeeded

MEASURED_JOBS = 1000


def accuracy_statement() -> Select[*tuple[Any, ...]]:
    """For each kind and base model, over the jobs that ended last: medians of the error of both ETAs."""
    job = recently_succeeded().limit(MEASURED_JOBS).subquery()
    return (
        select(
            job.c.kind,
            job.c.base_model,
            *_columns("submit", job.c.finished_at - job.c.promised_at, job.c.finished_at - job.c.created_at),
            *_columns("start", job.c.finished_at - job.c.start_promised_at, job.c.finished_at - job.c.started_at),
        )
        .group_by(job.c.kind, job.c.base_model)
        .order_by(job.c.kind, job.c.base_model)
    )


def _columns(
    given: str, error: ColumnElement[timedelta], took: ColumnElement[timedelta]
) -> tuple[ColumnElement[Any], ...]:
    seconds = func.abs(func.extract("epoch", error))
    share = seconds / func.nullif(func.extract("epoch", took), 0)
    return (
        func.count(error).label(f"{given}_jobs"),
        func.percentile_cont(0.5).within_group(seconds).label(f"{given}_seconds"),
        func.percentile_cont(0.5).within_group(share).label(f"{given}_ratio"),
    )


ACCURACY = accuracy_statement()


async def accuracy_lines(session: AsyncSession) -> list[str]:
    """As Prometheus reads them."""
    rows = (await session.execute(ACCURACY)).all()
    return [
        *_lines("hdb_eta_error_seconds", "seconds", rows),
        *_lines("hdb_eta_error_ratio", "ratio", rows),
        *_lines("hdb_eta_measured_jobs", "jobs", rows),
    ]


def _lines(name: str, column: str, rows: Sequence[Row[*tuple[Any, ...]]]) -> list[str]:
    values: dict[Labels, float] = {}
    for row in rows:
        for given in ("submit", "start"):
            if row._mapping[f"{given}_jobs"]:
                labels = (("kind", row.kind), ("base_model", row.base_model), ("given", given))
                values[labels] = round(float(row._mapping[f"{given}_{column}"]), 3)
    return list(metric(name, "gauge", values))
