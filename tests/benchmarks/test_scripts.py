"""The scripts in benchmarks/ import what the package has."""

import ast
import importlib
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "script",
    sorted((ROOT / "benchmarks").rglob("*.py")),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_what_is_imported_exists(script):
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("openmm_nequip"):
            module = importlib.import_module(node.module)
            for name in node.names:
                found = hasattr(module, name.name) or find_spec(f"{node.module}.{name.name}")
                assert found, f"{node.module} has no {name.name}"
