"""Which servers a stack starts, and what its processes are told."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli.stack import Stack
from core.settings import Settings


@contextmanager
def planned(directory: Path, **options: object) -> Iterator[Stack]:
    """A stack that is never started."""
    stack = Stack(directory, Settings(), lambda _: None, **options)  # type: ignore[arg-type]
    try:
        yield stack
    finally:
        stack.stop()


@pytest.mark.parametrize(
    ("variable", "replaced"),
    [("HDB_DATABASE_URL", "postgres"), ("HDB_BROKER_URL", "valkey"), ("HDB_S3_ENDPOINT", "seaweed")],
)
def test_a_given_server_is_used_instead_of_its_embedded_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, replaced: str
) -> None:
    elsewhere = {
        "HDB_DATABASE_URL": "postgresql+psycopg://me:mine@elsewhere/db",
        "HDB_BROKER_URL": "redis://elsewhere/0",
        "HDB_S3_ENDPOINT": "https://elsewhere",
    }[variable]
    monkeypatch.setenv(variable, elsewhere)
    with planned(tmp_path) as stack:
        names = {server.name for server in stack.embedded.servers}
        assert names == {"postgres", "valkey", "seaweed"} - {replaced}
        known = stack.settings.model_dump(mode="python")[variable.removeprefix("HDB_").lower()]
        assert elsewhere in (known if isinstance(known, str) else known.get_secret_value())
        for service in stack.services:
            assert service.env[variable] == elsewhere


def test_every_process_is_told_where_the_embedded_servers_are(tmp_path: Path) -> None:
    with planned(tmp_path) as stack:
        for service in stack.services:
            assert service.env["HDB_DATABASE_URL"] == stack.settings.database_url.get_secret_value()
            assert service.env["HDB_BROKER_URL"] == stack.settings.broker_url.get_secret_value()
            assert service.env["HDB_S3_ENDPOINT"] == stack.settings.s3_endpoint
            assert service.env["HDB_API_PORT"] == str(stack.settings.api_port)


def test_a_default_of_the_stack_gives_way_to_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = {"lease_seconds": "20", "sweep_seconds": "1"}
    monkeypatch.setenv("HDB_LEASE_SECONDS", "33")
    with planned(tmp_path, defaults=defaults) as stack:
        assert stack.settings.lease_seconds == 33
        assert stack.settings.sweep_seconds == 1
        assert {service.env["HDB_LEASE_SECONDS"] for service in stack.services} == {"33"}
        assert {service.env["HDB_SWEEP_SECONDS"] for service in stack.services} == {"1"}
