"""What is wrong is said in one line, before the simulation where possible."""

from dataclasses import replace

import numpy as np
import openmm
import pytest
from openmm import app, unit

from openmm_nequip.errors import InputError
from openmm_nequip.md import probe as probe_module
from openmm_nequip.md.options import ForceOptions, atom_types
from openmm_nequip.md.probe import first_that_works, probe, why_not
from openmm_nequip.units import NM

from .systems import KINDS, context_of, evaluate, random_frame, small_potential, with_potential


@pytest.fixture(scope="module")
def potential():
    return small_potential()


def one_line(error) -> bool:
    return "\n" not in str(error.value)


def test_box_narrower_than_twice_the_cutoff(potential):
    frame = random_frame(periodic=True)
    # edges of 10 Å, but sheared so far that the faces are closer than 8 Å
    sheared = np.array([[10.0, 0.0, 0.0], [5.0, 8.6, 0.0], [5.0, 4.3, 6.5]])
    with pytest.raises(InputError, match=r"twice the potential's cutoff of 0\.4 nm") as error:
        with_potential(potential, replace(frame, cell=sheared))
    assert one_line(error)
    with_potential(potential, replace(frame, cell=np.eye(3) * 8.0))


@pytest.mark.parametrize("engine", ["fused", "reference"])
@pytest.mark.parametrize("kind", KINDS)
def test_box_shrinks_while_running(potential, kind, engine):
    if reason := why_not(kind):
        pytest.skip(reason)
    frame = random_frame(periodic=True)
    system = with_potential(potential, frame, force=kind, engine=engine)
    context = context_of(system, frame.positions)
    evaluate(context)
    context.setPeriodicBoxVectors(*(np.eye(3) * 0.79))
    with pytest.raises(openmm.OpenMMException, match="narrower than twice the cutoff"):
        evaluate(context)


@pytest.mark.parametrize("engine", ["fused", "reference"])
@pytest.mark.parametrize("kind", KINDS)
def test_positions_that_are_not_numbers(potential, kind, engine):
    if reason := why_not(kind):
        pytest.skip(reason)
    frame = random_frame(periodic=False)
    system = with_potential(potential, frame, force=kind, engine=engine)
    context = context_of(system, frame.positions)
    broken = frame.positions * NM
    for value in (np.nan, np.inf):
        broken[3, 1] = value
        context.setPositions(broken)
        with pytest.raises(openmm.OpenMMException, match="NaN"):
            evaluate(context)


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        ([], "no atoms"),
        ([0, 3, 0], "atom 0 is given twice"),
        ([0, 12], "atom 12 does not exist: the topology has the atoms 0 to 11"),
        ([-1], "atom -1 does not exist"),
    ],
)
def test_bad_atoms(potential, atoms, message):
    with pytest.raises(InputError, match=message) as error:
        with_potential(potential, random_frame(False), atoms)
    assert one_line(error)


def test_elements(potential):
    topology = app.Topology()
    residue = topology.addResidue("HOH", topology.addChain())
    topology.addAtom("O", app.element.oxygen, residue)
    topology.addAtom("EP", None, residue)
    topology.addAtom("Cl", app.element.chlorine, residue)
    with pytest.raises(InputError, match=r"atom 1 \(EP of residue HOH\) has no element"):
        atom_types(potential, topology, None)
    with pytest.raises(InputError, match="was not trained on Cl"):
        atom_types(potential, topology, [0, 2])
    assert atom_types(potential, topology, [0]) == [2]
    assert atom_types(potential, topology, [1, 0], ["H", 2]) == [0, 2]


@pytest.mark.parametrize(
    ("types", "message"),
    [
        (["C"], "1 entries for 12 atoms"),
        (["c"] * 12, "'c' is not a type of this potential.*H, C, O"),
        ([3] * 12, "type 3 does not exist; there are 0 to 2"),
    ],
)
def test_bad_atom_types(potential, types, message):
    with pytest.raises(InputError, match=message):
        with_potential(potential, random_frame(False), atomTypes=types)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"force": "torsh"}, r"force='torsh' is not one of .* \(did you mean 'torch'\?\)"),
        ({"precision": "half"}, "precision='half' is not one of"),
        ({"engine": "fuse"}, r"engine='fuse' is not one of .* \(did you mean 'fused'\?\)"),
        ({"engine": "fused", "device": "meta"}, "engine='fused' does not work here: it runs on"),
        ({"returnEnergyType": "interaction"}, "did you mean 'interaction_energy'"),
        ({"device": "abacus"}, "device='abacus' cannot be used"),
    ],
)
def test_bad_values(keywords, message):
    with pytest.raises(InputError, match=message) as error:
        ForceOptions.from_keywords(keywords)
    assert one_line(error)


def test_names_of_keywords():
    with pytest.raises(InputError, match=r"unknown keyword 'forze' \(did you mean 'force'\?\)"):
        ForceOptions.from_keywords({"forze": "python"}, others=())
    assert ForceOptions.from_keywords({"linkAtomDistances": []}) == ForceOptions()


def test_probe_survives_a_crash(tmp_path, monkeypatch):
    """An openmm-torch of another ABI may abort the process that imports it: not ours."""
    (tmp_path / "openmmtorch.py").write_text("import os\nos.abort()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path)
    probe_module._probe_elsewhere.cache_clear()
    try:
        assert "TorchForce crashes the process (signal 6)" in why_not("torch")
        assert not (tmp_path / "cache").exists()  # a failure is not remembered
        monkeypatch.setattr(probe_module, "KINDS", ("torch", "python"))
        assert first_that_works() == "python"
        with pytest.raises(InputError, match="force='torch' does not work here: TorchForce crash"):
            with_potential(small_potential(), random_frame(False), force="torch")
    finally:
        probe_module._probe_elsewhere.cache_clear()


def test_probe_remembers_success(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = []

    def elsewhere(kind: str) -> dict[str, str]:
        calls.append(kind)
        return {"CUDA": "not there", "Reference": ""}

    monkeypatch.setattr(probe_module, "_probe_elsewhere", elsewhere)
    monkeypatch.setattr(probe_module.importlib.util, "find_spec", _Found)
    for _ in range(2):
        assert probe("torch") == {"CUDA": "not there", "Reference": ""}
    assert calls == ["torch"]
    # what fails on the fastest platform is not chosen, though it may be asked for
    assert first_that_works() == "python"
    assert why_not("torch") == ""
    probe("torch", fresh=True)
    assert calls == ["torch", "python-torch", "torch"]


class _Found:
    """An installed package whose file does not change."""

    origin = __file__

    def __init__(self, name: str):
        self.name = name


def test_nothing_works(monkeypatch):
    monkeypatch.setattr(probe_module, "probe", lambda kind, fresh=False: {"Reference": "no"})
    with pytest.raises(InputError, match="openmm-nequip doctor"):
        first_that_works()


def test_a_kind_of_force_that_is_not_to_be_relied_upon_is_warned_about(monkeypatch):
    problems = {"CUDA": probe_module._TOO_EARLY, "Reference": ""}
    monkeypatch.setattr(probe_module, "probe", lambda kind, fresh=False: problems)
    with pytest.warns(UserWarning, match="force='python' can give wrong forces on CUDA"):
        with_potential(small_potential(), random_frame(periodic=False), force="python")


def test_units_of_the_message():
    frame = random_frame(periodic=True)
    with pytest.raises(InputError, match=r"is 0\.700 nm wide"):
        with_potential(small_potential(), replace(frame, cell=np.diag([9.0, 7.0, 9.0])))
    assert unit.nanometer.conversion_factor_to(unit.angstrom) == 10
