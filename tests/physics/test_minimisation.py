"""Minimisation ends where the forces vanish, at the minimum that ASE finds too."""

import ase
import numpy as np
import pytest
from ase.optimize import BFGS

from openmm_nequip import load
from openmm_nequip.analysis.observables import rmsd
from openmm_nequip.config import parse_config
from openmm_nequip.interop.ase import NequIPCalculator
from openmm_nequip.md.config import SimulationConfig
from openmm_nequip.md.preparation import build_simulation, minimise
from openmm_nequip.md.structure import Structure, load_structure

from .conftest import forces_of


def both_minima(structure: Structure, potential: str):
    """Minimise with OpenMM, then from its start with ASE; eV and Å."""
    values = {"structure": "-", "potential": potential, "steps": 1, "precision": "double"}
    config = parse_config(SimulationConfig, values, where="test")
    simulation = build_simulation(config, structure)
    before, after = minimise(simulation, tolerance=0.05)
    assert after < before
    state = simulation.context.getState(positions=True)
    positions = state.getPositions(asNumpy=True)._value * 10.0

    symbols = [atom.element.symbol for atom in structure.topology.atoms()]
    cell = None if structure.box is None else structure.box * 10
    atoms = ase.Atoms(symbols, structure.positions * 10, cell=cell, pbc=structure.box is not None)
    atoms.calc = NequIPCalculator(load(potential).with_dtype("float64"), device="cpu")
    BFGS(atoms, logfile=None).run(fmax=5e-5, steps=500)
    return simulation, after / 96.48533212, positions, atoms


@pytest.mark.slow
def test_ethanol_has_the_minimum_that_ase_finds(trained):
    simulation, energy, positions, atoms = both_minima(load_structure("ethanol"), trained)
    assert np.abs(forces_of(simulation)).max() < 2e-4  # eV/Å
    assert np.linalg.norm(atoms.get_forces(), axis=1).max() < 5e-5
    assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
    assert rmsd(positions[None], atoms.positions)[0] < 2e-3


def test_forces_vanish_at_the_minimum(gas, untrained):
    simulation, energy, _, atoms = both_minima(gas, str(untrained))
    assert np.abs(forces_of(simulation)).max() < 2e-4
    assert energy == pytest.approx(atoms.get_potential_energy(), abs=0.02)  # neighbours at most
