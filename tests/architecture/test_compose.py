"""The compose file: what has to run always comes back with the machine, and is told settings that exist."""

from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own

from core.settings import Settings
from tests.architecture.test_documents import DOCS

COMPOSE: dict[str, Any] = yaml.safe_load((DOCS.parent / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_all_but_the_migration_come_back_with_the_machine(name: str) -> None:
    assert SERVICES[name]["restart"] == ("no" if name == "migrate" else "unless-stopped")


@pytest.mark.parametrize("name", ["api", "worker", "housekeeping", "migrate"])
def test_our_processes_are_told_settings_that_exist(name: str) -> None:
    known = {f"HDB_{field}".upper() for field in Settings.model_fields}
    assert set(SERVICES[name]["environment"]) <= known


@pytest.mark.parametrize("name", ["worker", "housekeeping"])
def test_a_stop_has_the_time_that_our_workers_take(name: str) -> None:
    assert float(SERVICES[name]["stop_grace_period"].removesuffix("s")) > Settings().stop_seconds


def test_data_lies_in_volumes() -> None:
    kept = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert kept == set(COMPOSE["volumes"]) == {"postgres", "valkey", "s3"}
