"""The wheel has all that the package needs, and nothing else."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "openmm_nequip"
MODELS = sorted(path.parent.name for path in ROOT.glob("models/*/card.md"))

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    for needed in ("pip", "hatchling"):
        if find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, str(ROOT)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (file,) = folder.iterdir()
    return file


@pytest.fixture(scope="module")
def unpacked(wheel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    ZipFile(wheel).extractall(folder)
    return folder


def run(unpacked: Path, *arguments: str, cwd: Path) -> str:
    """Run the command of the wheel; nothing of this checkout is on the path."""
    done = subprocess.run(
        [sys.executable, "-m", "openmm_nequip", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(unpacked), "COLUMNS": "400"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_is_in_it(wheel):
    names = set(ZipFile(wheel).namelist())
    needed = [*PACKAGE.rglob("*.py"), *PACKAGE.glob("analysis/templates/*"), PACKAGE / "py.typed"]
    expected = {path.relative_to(ROOT).as_posix() for path in needed}
    for name in MODELS:
        expected |= {
            f"openmm_nequip/models/{name}/{file}" for file in ("card.md", f"{name}.safetensors")
        }
    assert expected - names == set()
    others = {name for name in names - expected if ".dist-info/" not in name}
    assert {Path(name).suffix for name in others} <= {".yaml"}  # recipes
    assert all(name.startswith("openmm_nequip/models/") for name in others)
    assert wheel.stat().st_size < 25e6


def test_bundled_potentials_are_found_in_it(unpacked, tmp_path):
    listed = run(unpacked, "models", cwd=tmp_path)
    assert "organic-small" in MODELS
    assert all(name in listed for name in MODELS)
    shown = run(unpacked, "info", "organic-small", cwd=tmp_path)
    assert str(unpacked / "openmm_nequip/models/organic-small/organic-small.safetensors") in shown


def test_the_command_says_its_version(unpacked, tmp_path, wheel):
    assert run(unpacked, "--version", cwd=tmp_path).split()[1] == wheel.name.split("-")[1]
