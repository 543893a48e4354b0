"""What the tests of `prepare` share."""

import json
from pathlib import Path

import numpy as np
import openmm
import pytest
import yaml
from openmm import app

from openmm_nequip.config import parse_config
from openmm_nequip.md.choices import Choices
from openmm_nequip.md.config import SimulationConfig
from openmm_nequip.md.prepare import Prepared
from openmm_nequip.md.structure import load_structure
from openmm_nequip.units import NM

from .systems import context_of, small_potential

ORGANIC = ["H", "C", "N", "O", "S"]


def organic_model(folder: Path) -> str:
    """Write a potential that knows the elements of proteins."""
    path = folder / "organic.safetensors"
    small_potential(type_names=ORGANIC, per_type_energy_shifts=0.0).save(path)
    return str(path)


def small(source: str, **choices: object) -> Choices:
    """Choices with a small box, for speed."""
    return Choices(source, **{"width": 1.7, "cutoff": 0.7, **choices})


def nonbonded(system: openmm.System) -> openmm.NonbondedForce:
    (force,) = (force for force in system.getForces() if isinstance(force, openmm.NonbondedForce))
    return force


def charges_of(system: openmm.System) -> list[float]:
    force = nonbonded(system)
    return [force.getParticleParameters(k)[0]._value for k in range(system.getNumParticles())]


def energy_of(system: openmm.System, positions: np.ndarray) -> float:
    return context_of(system, positions / NM).getState(energy=True).getPotentialEnergy()._value


def bonds_of(topology: app.Topology) -> set[tuple[int, ...]]:
    return {tuple(sorted((bond[0].index, bond[1].index))) for bond in topology.bonds()}


def description(topology: app.Topology) -> list[tuple[object, ...]]:
    return [
        (atom.element, atom.name, atom.residue.name, atom.residue.id, atom.residue.chain.id)
        for atom in topology.atoms()
    ]


def check_folder(prepared: Prepared, folder: Path) -> SimulationConfig:
    """What was written is what there was; return the configuration."""
    prepared.write(folder)
    assert {path.name for path in folder.iterdir()} == {
        "system.xml", "structure.cif", "simulate.yaml", "prepared.json",
    }  # fmt: skip
    structure = load_structure(str(folder / "structure.cif"))
    assert description(structure.topology) == description(prepared.topology)
    assert bonds_of(structure.topology) == bonds_of(prepared.topology)
    np.testing.assert_allclose(structure.positions, prepared.positions, atol=5.1e-6)
    system = openmm.XmlSerializer.deserialize((folder / "system.xml").read_text())
    if structure.box is not None:
        vectors = [list(row._value) for row in system.getDefaultPeriodicBoxVectors()]
        # the same lattice: each vector of one is a sum of whole vectors of the other
        steps = structure.box @ np.linalg.inv(vectors)
        np.testing.assert_allclose(steps, steps.round(), atol=1e-5)
        assert abs(np.linalg.det(steps)) == pytest.approx(1, abs=1e-4)
    energy = energy_of(prepared.system, prepared.positions)
    assert energy_of(system, prepared.positions) == pytest.approx(energy, rel=1e-12)
    assert json.loads((folder / "prepared.json").read_text()) == prepared.record
    values = yaml.safe_load((folder / "simulate.yaml").read_text())
    return parse_config(SimulationConfig, values, "simulate.yaml")
