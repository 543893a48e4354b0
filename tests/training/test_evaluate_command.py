"""``openmm-nequip evaluate`` as a user calls it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.io import read, write
from typer.testing import CliRunner

from openmm_nequip.architectures.nequip import NequIPConfig
from openmm_nequip.cli import app, commands  # noqa: F401 - registers the command
from openmm_nequip.errors import InputError
from openmm_nequip.potential import Potential
from openmm_nequip.training.assess import assess

from .conftest import TINY, clusters

KCAL, BOHR = 23.0605478, 1 / 0.529177211  # of an eV, of an Å
KEYS = ["--key", "energy=E_pbe", "--key", "forces=F_pbe"]
UNITS = ["--energy-unit", "kcal/mol", "--length-unit", "bohr"]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder with a potential and its working directory."""
    torch.manual_seed(0)
    network = NequIPConfig(**TINY, type_names=["Cu", "Au"], avg_num_neighbors=3.0)
    Potential(network).save(tmp_path / "gold.safetensors")
    write(tmp_path / "plain.xyz", clusters(7), format="extxyz")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_otherwise(path: Path, force_factor: float = KCAL / BOHR, broken: int | None = None):
    """Write the frames of plain.xyz with other names of labels, in kcal/mol and bohr."""
    frames = read("plain.xyz", index=":")
    for k, atoms in enumerate(frames):
        atoms.info["E_pbe"] = atoms.get_potential_energy() * KCAL
        atoms.arrays["F_pbe"] = atoms.get_forces() * force_factor
        atoms.positions *= BOHR
        atoms.calc = None
        if k == broken:
            atoms.info["E_pbe"] = np.nan
    write(path, frames, format="extxyz")


def evaluate(*arguments: str) -> tuple[dict, str]:
    """Return the metrics that a command has written, and what it has printed."""
    result = CliRunner().invoke(app, ["evaluate", *arguments, "--output", "errors"])
    if result.exception is not None:
        raise result.exception
    assert result.exit_code == 0
    return json.loads(Path("errors/metrics.json").read_text()), result.output


def assert_errors_are(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, float):
            assert found[key] == pytest.approx(value, rel=1e-5), key  # the file has 8 digits
    assert found["frames"] == expected["frames"]


def test_names_and_units_of_labels_are_given(here):
    expected = assess("gold.safetensors", Path("plain.xyz"), here / "plain")
    write_otherwise(here / "other.xyz")
    found, printed = evaluate("gold.safetensors", "other.xyz", *KEYS, *UNITS)
    assert_errors_are(found["other.xyz"], expected)
    assert "kcal/mol" in printed
    assert f"energy MAE {expected['energy_mae_meV']:.2f}" in printed


def test_the_unit_of_forces_is_given(here):
    expected = assess("gold.safetensors", Path("plain.xyz"), here / "plain")
    write_otherwise(here / "other.xyz", force_factor=1000.0)
    found, _ = evaluate(
        "gold.safetensors", "other.xyz", *KEYS, *UNITS, "--force-unit", "meV/Å"
    )  # fmt: skip
    assert_errors_are(found["other.xyz"], expected)


def test_labels_under_other_names_are_not_found_by_chance(here):
    write_otherwise(here / "other.xyz")
    with pytest.raises(InputError, match=r"other\.xyz has no energies, forces or stresses"):
        evaluate("gold.safetensors", "other.xyz")


def test_bad_frames_are_left_out_where_that_is_asked_for(here):
    write_otherwise(here / "other.xyz", broken=3)
    arguments = ["gold.safetensors", "other.xyz", *KEYS, *UNITS]
    with pytest.raises(InputError, match=r"frame 3: energy is NaN.*--skip-bad-frames"):
        evaluate(*arguments)
    found, printed = evaluate(*arguments, "--skip-bad-frames")
    frames = read("plain.xyz", index=":")
    write("good.xyz", [*frames[:3], *frames[4:]], format="extxyz")
    assert_errors_are(
        found["other.xyz"], assess("gold.safetensors", Path("good.xyz"), here / "good")
    )
    assert found["other.xyz"]["frames"] == 6
    assert "frame 3: energy is NaN" in printed


def test_the_folder_is_named_after_model_and_data(here):
    result = CliRunner().invoke(app, ["evaluate", "gold.safetensors", "plain.xyz"])
    assert result.exit_code == 0, result.output
    names = {path.name for path in (here / "gold-on-plain").iterdir()}
    assert names == {"metrics.json", "parity.png"}
