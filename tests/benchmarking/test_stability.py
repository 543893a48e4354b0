"""Molecules in molecular dynamics, as the cards of potentials report it."""

import ase.build
import numpy as np
import pytest

from openmm_nequip.benchmarking import stability
from openmm_nequip.md.structure import bonded_pairs
from openmm_nequip.modelfile import find_model


def start(name: str) -> stability.Start:
    atoms = ase.build.molecule(name)
    return stability.Start(atoms.numbers, atoms.positions, bonded_pairs(atoms))


def test_broken_and_new_bonds_are_seen():
    numbers = np.array([8, 1, 1, 8])
    watch = stability.Watch(numbers, np.array([[0, 1], [0, 2]]))
    x = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0], [2.8, 0, 0]])
    assert watch.changes(x) == []
    x[1, 0] = 1.5  # 0.97 Å is the sum of the radii
    assert watch.changes(x) == []
    x[1, 0] = 1.8
    assert watch.changes(x) == ["O0-H1 broken (1.80 Å)", "H1-O3 new (1.00 Å)"]
    assert len(watch.changes(np.full((4, 3), np.nan))) == 2


@pytest.mark.slow
def test_a_run_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(stability, "_SAVED", 2)
    model, state = find_model("ethanol-pbe"), tmp_path / "state.npz"
    ethanol = {"ethanol": start("CH3CH2OH")}
    found = stability.run_nvt(model, ethanol, 300, 0.2, state)
    assert found == {"ethanol": {"ps": 0.2, "change": "", "at_ps": None}}
    assert np.load(state)["look"] == 2
    steps = []
    context_of = stability.context_of

    def counted(model, numbers, positions, integrator):
        step = integrator.step
        integrator.step = lambda n: (steps.append(n), step(n))
        return context_of(model, numbers, positions, integrator)

    monkeypatch.setattr(stability, "context_of", counted)
    stability.run_nvt(model, ethanol, 300, 0.4, state)
    assert sum(steps) == 200  # of 400
    drift = stability.run_nve(model, ethanol["ethanol"], 0.2)
    assert abs(drift["fluctuation_meV_per_atom"]) < 0.5


@pytest.mark.slow
def test_a_molecule_that_falls_apart_is_put_back():
    # of two molecules one is torn
    molecules = [start("CH3CH2OH"), start("CH3CHO")]
    watches = [stability.Watch(m.numbers, m.bonds) for m in molecules]
    whole = [m.positions + 100 * k for k, m in enumerate(molecules)]
    numbers = np.concatenate([m.numbers for m in molecules])
    torn = np.concatenate(whole)
    torn[0] += 3
    integrator = stability.langevin(300, 1)
    context = stability.context_of(find_model("ethanol-pbe"), numbers, torn, integrator)
    found = stability._changes(context, watches, whole)
    assert list(found) == [0]
    assert "broken" in found[0]
    now = context.getState(positions=True).getPositions(asNumpy=True)._value * 10
    assert np.allclose(now, np.concatenate(whole), atol=1e-4)
