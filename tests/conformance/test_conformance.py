"""What the OpenAPI document says, the service does: schemathesis asks, with all its checks, as one of two accounts."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from core.settings import Settings
from tests.conformance.deployment import Caller, api_process, new_key, worker_beside
from tests.worker.conftest import Bench

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
# More of them, or others: HDB_TEST_EXAMPLES=200 HDB_TEST_SEED=8 pytest tests/conformance
EXAMPLES, SEED = os.environ.get("HDB_TEST_EXAMPLES", "3"), os.environ.get("HDB_TEST_SEED", "7")


def write_down(callers: dict[str, Caller], folder: Path) -> None:
    """What `schemathesis.toml` refers to: who asks, and ids of things that are there."""
    users = [
        {"name": name, "fixedHeaders": [{"name": "Authorization", "value": f"Bearer {caller.key}"}]}
        for name, caller in callers.items()
    ]
    (folder / "users.json").write_text(json.dumps({"auth": users}))
    for prefix in ("", "doomed_"):
        owned = [caller.make_one_of_each() for caller in callers.values()]
        for kind in owned[0]:
            ids = [own_id for ids in owned for own_id in ids[kind]]
            (folder / f"{prefix}{kind}.dict").write_text("".join(f'"{own_id}"\n' for own_id in ids))


def ask(url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Every operation, in every way that schemathesis knows."""
    config = shutil.copy(HERE / "schemathesis.toml", folder)
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", config, "run"]
    options = ["--checks=all", f"--seed={SEED}", f"--max-examples={EXAMPLES}", "--generation-database=none"]
    return subprocess.run(
        [*command, *options, "--no-color", f"{url}/openapi.json"],
        cwd=folder,
        env=os.environ | {"FOLDER": str(folder), "PYTHONPATH": str(HERE.parents[1]), "NO_PROXY": "*"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_service_does_what_its_document_says(settings: Settings, bench: Bench, tmp_path: Path) -> None:
    with api_process(settings) as url, worker_beside(bench):
        write_down({name: Caller(url, new_key(bench)) for name in ("one", "other")}, tmp_path)
        told = ask(url, tmp_path)
    assert told.returncode == 0, told.stdout[-20_000:] + told.stderr[-2_000:]
