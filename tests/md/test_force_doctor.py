"""The doctor's verdict."""

import numba
import numpy as np
import pytest
from typer.testing import CliRunner

from openmm_nequip.cli import app, commands, doctor
from openmm_nequip.kernels import engine
from openmm_nequip.md import probe as probe_module

assert commands  # registers the command


def verdict(monkeypatch, problems):
    def probed(kind, fresh=False):
        return problems.get(kind, {"Reference": "not installed"})

    monkeypatch.setattr(probe_module, "probe", probed)
    return CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "200"})


def test_healthy(monkeypatch):
    result = verdict(monkeypatch, {"python": {"CPU": "", "Reference": ""}})
    assert result.exit_code == 0, result.output
    assert "MLPotential('nequip') is ours" in result.output
    assert "force='auto' takes 'python'" in result.output
    assert f"engine='auto' on cpu is fused: Numba {numba.__version__}, thr" in result.output
    assert result.output.count("ok") == 2
    assert "openmm-nequip[torch-force]" in result.output  # there is something faster


def test_no_numba(monkeypatch):
    def missing(name):
        raise ImportError(f"No module named '{name}'")

    monkeypatch.setattr(engine, "import_module", missing)
    result = verdict(monkeypatch, {"python": {"Reference": ""}})
    assert result.exit_code == 0, result.output  # there is the reference
    assert "engine='auto' on cpu is reference: numba cannot be imported" in result.output
    assert "for the fast engine on cpu: numba cannot be imported" in result.output


def test_no_force(monkeypatch):
    result = verdict(monkeypatch, {})
    assert result.exit_code == 1
    assert "pip install 'openmm>=8.5'" in result.output


def test_wrong_numbers(monkeypatch):
    monkeypatch.setattr(doctor, "_error", lambda *arguments: 0.1)
    result = verdict(monkeypatch, {"python": {"Reference": ""}})
    assert result.exit_code == 1
    assert "do not use force='python' on Reference: its numbers are wrong" in result.output


def test_hexanol():
    molecule = doctor.hexanol()
    assert len(molecule) == 21
    distances = molecule.get_all_distances()
    bonded = (distances < 1.6).sum(axis=1) - 1
    np.testing.assert_array_equal(bonded, [4] * 6 + [2] + [1] * 14)
    assert distances[distances > 0].min() == pytest.approx(0.96)
