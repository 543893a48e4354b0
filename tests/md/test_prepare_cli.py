"""``openmm-nequip prepare`` as a user calls it."""

import json

import pytest

from openmm_nequip.cli.prepare import _length
from openmm_nequip.errors import InputError

from ..test_cli import openmm_nequip


def test_shortest_command(tmp_path):
    result = openmm_nequip("prepare", "CCO", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert {path.name for path in (tmp_path / "ethanol").iterdir()} == {
        "system.xml", "structure.cif", "simulate.yaml", "prepared.json",
    }  # fmt: skip
    record = json.loads((tmp_path / "ethanol" / "prepared.json").read_text())
    assert record["box_nm"][0][0] > 2.0
    for text in (
        "LIG (CCO): Lennard-Jones of GAFF 1.81",
        "no bonded terms; charges MMFF94 (RDKit",
        f"{record['waters']} waters",
        "ML region 'resname LIG': 9 atoms, charge 0",
        "without the potential the ML region falls apart",
        "openmm-nequip simulate ethanol/simulate.yaml",
    ):
        assert text in result.stdout
    again = openmm_nequip("prepare", "CCO", cwd=tmp_path)
    assert again.returncode == 1
    assert again.stderr.strip().startswith("error: 'ethanol' exists already")
    assert [path.name for path in tmp_path.iterdir()] == ["ethanol"]


def test_nothing_is_left_of_a_failure(tmp_path):
    result = openmm_nequip("prepare", "CBr", "--output", "x", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "not trained on Br" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "nanometers"), [("1nm", 1.0), ("10 Å", 1.0), ("8.5A", 0.85), ("1e1 nm", 10.0)]
)
def test_lengths(text, nanometers):
    assert _length(text, "--box") == pytest.approx(nanometers, rel=1e-12)


@pytest.mark.parametrize("text", ["1", "nm", "-1nm", "0nm", "1.2.3nm", "1 furlong"])
def test_no_lengths(text):
    with pytest.raises(InputError, match=f"--box '{text}': "):
        _length(text, "--box")
