"""Small potentials and Systems for the tests of the forces."""

from collections.abc import Sequence

import numpy as np
import openmm
import torch
from openmm import app, unit

from openmm_nequip.architectures.nequip import NequIPConfig
from openmm_nequip.data.frame import Frame
from openmm_nequip.md.force import add_force
from openmm_nequip.md.options import ForceOptions, atom_types
from openmm_nequip.potential import Potential
from openmm_nequip.units import KJ_PER_MOL, KJ_PER_MOL_NM, NM

KINDS = ["torch", "python"]
ENGINE = "auto"  # unless a test names one
SYMBOLS = ["H", "C", "O"]
TRICLINIC = np.array([[11.0, 0.0, 0.0], [2.5, 10.5, 0.0], [-3.0, 3.5, 10.8]])


def small_potential(model_dtype: str = "float64", **config: object) -> Potential:
    """Random weights, cutoff 4 Å; scaled so that forces are of a molecule's size."""
    torch.manual_seed(1)
    values = {
        "type_names": SYMBOLS,
        "r_max": 4.0,
        "num_layers": 2,
        "num_features": 4,
        "avg_num_neighbors": 8.0,
        "per_type_energy_scales": 3.0,
        "per_type_energy_shifts": {"H": -13.6, "C": -1030.0, "O": -2042.0},
        "model_dtype": model_dtype,
        **config,
    }
    return Potential(NequIPConfig.model_validate(values)).eval()


def random_frame(periodic: bool, n: int = 12, seed: int = 0) -> Frame:
    """H, C and O at least 1 Å apart, in a cluster or in a triclinic box."""
    rng = np.random.default_rng(seed)
    cell = TRICLINIC if periodic else np.eye(3) * 6.0
    positions: list[np.ndarray] = []
    while len(positions) < n:
        point = rng.random(3) @ cell
        if all(np.linalg.norm(point - other) > 1.0 for other in positions):
            positions.append(point)
    numbers = rng.choice([1, 6, 8], n)
    return Frame(numbers, np.array(positions), TRICLINIC if periodic else None, (periodic,) * 3)


def topology_of(frame: Frame) -> app.Topology:
    """One residue without bonds."""
    topology = app.Topology()
    residue = topology.addResidue("MOL", topology.addChain())
    for number in frame.numbers:
        element = app.Element.getByAtomicNumber(int(number))
        topology.addAtom(element.symbol, element, residue)
    if frame.cell is not None:
        topology.setPeriodicBoxVectors(frame.cell * NM * unit.nanometer)
    return topology


def system_of(frame: Frame) -> openmm.System:
    """Particles and box, no forces."""
    system = openmm.System()
    for _ in frame.numbers:
        system.addParticle(12.0)
    if frame.cell is not None:
        system.setDefaultPeriodicBoxVectors(*(frame.cell * NM))
    return system


def with_potential(
    potential: Potential,
    frame: Frame,
    atoms: Sequence[int] | None = None,
    interpolate: bool = False,
    **keywords: object,
) -> openmm.System:
    """Return a System with the potential on all or some atoms."""
    system, topology = system_of(frame), topology_of(frame)
    options = ForceOptions.from_keywords({"engine": ENGINE, **keywords})
    types = atom_types(potential, topology, atoms, options.atomTypes)
    add_force(potential, topology, system, atoms, types, 0, options, interpolate)
    return system


def context_of(
    system: openmm.System, positions: np.ndarray, platform: str = "Reference"
) -> openmm.Context:
    """Return a Context; `positions` in Å."""
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.0005), openmm.Platform.getPlatformByName(platform)
    )
    context.setPositions(positions * NM)
    return context


def evaluate(context: openmm.Context, groups: int = -1) -> tuple[float, np.ndarray]:
    """Return energy, kJ/mol, and forces, kJ/mol/nm."""
    state = context.getState(energy=True, forces=True, groups=groups)
    return state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value


def expected(
    potential: Potential, frame: Frame, atoms: Sequence[int] | None = None
) -> tuple[float, np.ndarray]:
    """Return the same directly from the potential, forces on all atoms of the frame."""
    chosen = np.arange(len(frame)) if atoms is None else np.array(atoms)
    part = Frame(frame.numbers[chosen], frame.positions[chosen], frame.cell, frame.pbc)
    output = potential(potential.to_graph(part))
    forces = np.zeros((len(frame), 3))
    forces[chosen] = output.forces.numpy() * KJ_PER_MOL_NM
    return float(output.energy) * KJ_PER_MOL, forces
