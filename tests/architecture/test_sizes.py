"""What a reader can hold in mind at once."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_FILE, MAX_FUNCTION, MAX_RECIPE_FUNCTION = 400, 50, 80
FILES = sorted(
    path for name in ("app", "cli", "core", "hyperdreambooth", "worker") for path in (ROOT / name).rglob("*.py")
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_short(path: Path) -> None:
    source = path.read_text()
    limit = MAX_RECIPE_FUNCTION if "recipes" in path.parts else MAX_FUNCTION
    functions = [
        node for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    long = {node.name: lines for node in functions if (lines := (node.end_lineno or 0) - node.lineno + 1) > limit}
    assert long == {}
    assert len(source.splitlines()) <= MAX_FILE
