"""Systems of which a potential describes a part: what openmm-ml's embedding leaves to be done."""

import copy
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import openmm
from openmm import unit
from openmm.app import Topology, element

from ..errors import InputError
from .serialization import StoredForce, without_potentials
from .settings import LAMBDA

_WHOLE = 0.01  # e; charges of force fields are rounded
# A plugin's force, such as a TorchForce, comes out of a System as its base class.
_MAYBE_POTENTIALS = (openmm.Force, openmm.PythonForce)
#: Forces in which the energy of some atoms by themselves has no place of its own.
_INDIVISIBLE = (
    "Amoeba", "Hippo", "Drude", "GayBerneForce", "CustomHbondForce", "CustomManyParticleForce",
)  # fmt: skip


def check_force_field(system: openmm.System) -> None:
    """Check that what a region has by the force field can be told from the rest.

    Raises
    ------
    InputError
        Terms couple all atoms, as in polarisable force fields.
    """
    for force in system.getForces():
        kind = type(force).__name__
        if kind.startswith(_INDIVISIBLE):
            raise InputError(
                f"the force field has a {kind}, of which the ML region's own part cannot be taken "
                "out: use a force field with fixed charges"
            )


def take_out(
    system: openmm.System, atoms: Sequence[int]
) -> tuple[openmm.System, list[StoredForce]]:
    """Return a System without its potentials, and these.

    An embedding copies the System that it is given, which a `TorchForce` does not survive.

    Parameters
    ----------
    system
        Returned itself if it has no potential.
    atoms
        That another potential is to describe.

    Raises
    ------
    InputError
        One of the atoms has a potential already, or a `TorchForce` is not of this package.
    """
    if not any(type(force) in _MAYBE_POTENTIALS for force in system.getForces()):
        return system, []
    root, potentials = without_potentials(system)
    if any(node.get("type") == "TorchForce" for node in root.iter()):
        raise InputError(
            "the System holds a TorchForce of another program, which cannot be copied: add it "
            "after createMixedSystem"
        )
    for potential in potentials:
        described = potential.settings.atoms
        if described is None:
            raise InputError("a potential describes all atoms of the System already")
        twice = sorted(set(described) & set(atoms))
        if twice:
            raise InputError(f"atom {twice[0]} has a potential already: leave it out of the region")
    return openmm.XmlSerializer.deserialize(ET.tostring(root, encoding="unicode")), potentials


def name_sites(topology: Topology) -> tuple[Topology, list[int]]:
    """Give an element to sites without one, as of four-site water; return which they are.

    openmm-ml asks every atom for its atomic number. The topology is copied if there are any.
    """
    sites = [atom.index for atom in topology.atoms() if atom.element is None]
    if not sites:
        return topology, sites
    topology = copy.deepcopy(topology)
    for atom in topology.atoms():
        if atom.element is None:
            atom.element = element.hydrogen
    return topology, sites


def unname_sites(topology: Topology, sites: Sequence[int]) -> None:
    """Undo `name_sites` in a topology that was made from its result."""
    atoms = list(topology.atoms())
    for index in sites:
        atoms[index].element = None


def net_charge(system: openmm.System, atoms: Sequence[int]) -> int | None:
    """Return the charge that a force field gives to the atoms, e; `None` if that is no integer."""
    forces = [force for force in system.getForces() if isinstance(force, openmm.NonbondedForce)]
    if len(forces) != 1:
        return None
    charges = [forces[0].getParticleParameters(atom)[0]._value for atom in atoms]
    total = round(sum(charges))
    return total if abs(sum(charges) - total) < _WHOLE else None


def put_back(system: openmm.System, potentials: Sequence[StoredForce]) -> None:
    """Add potentials that were taken out of a System to another one with the same atoms."""
    for potential in potentials:
        system.addForce(potential.build())


def keep_molecules(system: openmm.System, topology: Topology, atoms: Sequence[int]) -> None:
    """Add bonds of zero strength where the force field's are gone.

    By bonds OpenMM tells what is a molecule, which a barostat moves and periodic boundaries wrap
    as a whole.
    """
    region = set(atoms)
    pairs = [(bond.atom1.index, bond.atom2.index) for bond in topology.bonds()]
    inside = [pair for pair in pairs if region.issuperset(pair)]
    if not inside:
        return
    bonds = openmm.HarmonicBondForce()
    bonds.setName("molecules of the ML region")
    for first, second in inside:
        bonds.addBond(first, second, 0.1, 0.0)
    system.addForce(bonds)


def remove_constraints(system: openmm.System, atoms: Sequence[int]) -> None:
    """Remove the constraints between two of the atoms."""
    region = set(atoms)
    for k in reversed(range(system.getNumConstraints())):
        first, second, _ = system.getConstraintParameters(k)
        if first in region and second in region:
            system.removeConstraint(k)


@contextmanager
def at_lambda(context: openmm.Context, value: float) -> Iterator[None]:
    """Set the λ of an interpolated mixed System, and set it back at the end."""
    before = context.getParameter(LAMBDA)
    context.setParameter(LAMBDA, value)
    try:
        yield
    finally:
        context.setParameter(LAMBDA, before)


def energy_derivative(context: openmm.Context) -> float:
    """Return dE/dλ of an interpolated mixed System, kJ/mol.

    The energy is linear in ``lambda_interpolate``, so its derivative is the energy at 1 less that
    at 0, whatever λ is now. It works with every kind of force; OpenMM itself reports the derivative
    (``getState(parameterDerivatives=True)``) with `TorchForce` only.

    Parameters
    ----------
    context
        Its λ is what it was afterwards.

    Raises
    ------
    InputError
        The System has no such parameter.
    """
    if LAMBDA not in dict(context.getParameters()):
        raise InputError(
            f"the System has no parameter '{LAMBDA}': make it by createMixedSystem(..., "
            "interpolate=True)"
        )
    energies = []
    for value in (0.0, 1.0):
        with at_lambda(context, value):
            energy = context.getState(energy=True).getPotentialEnergy()
        energies.append(energy.value_in_unit(unit.kilojoule_per_mole))
    return energies[1] - energies[0]
