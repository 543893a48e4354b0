"""Systems of which a potential describes a part: what openmm-ml's embedding leaves to be done."""

import copy
import itertools
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import openmm
from openmm import unit
from openmm.app import Topology, element

from ..errors import InputError
from .serialization import StoredForce, without_potentials
from .settings import LAMBDA

_EXCLUDED = "excludeForce"  # openmm-ml's, for potentials that reach beyond their cutoff
_WHOLE = 0.01  # e; charges of force fields are rounded
# A plugin's force, such as a TorchForce, comes out of a System as its base class.
_MAYBE_POTENTIALS = (openmm.Force, openmm.PythonForce)
#: Forces in which the energy of some atoms by themselves has no place of its own.
_INDIVISIBLE = (
    "Amoeba", "Hippo", "Drude", "GayBerneForce", "CustomHbondForce", "CustomManyParticleForce",
)  # fmt: skip


def check_force_field(system: openmm.System, atoms: Sequence[int]) -> None:
    """Check that what a region has by the force field can be told from the rest.

    Raises
    ------
    InputError
        Terms couple all atoms, as in polarisable force fields, or the interactions of the region
        depend on parameters, as in alchemical Systems.
    """
    region = set(atoms)
    for force in system.getForces():
        for inner in _nested(force):
            if inner.endswith("NonbondedForce"):
                raise InputError(
                    f"the System has a {inner} within a {type(force).__name__}, of "
                    "which the ML region's own part cannot be taken out: make the mixed System "
                    "first, and change it afterwards"
                )
        if isinstance(force, openmm.NonbondedForce):
            for k in range(force.getNumExceptionParameterOffsets()):
                _, exception, *_ = force.getExceptionParameterOffset(k)
                if region.issuperset(force.getExceptionParameters(exception)[:2]):
                    raise InputError(
                        "interactions within the ML region depend on a parameter (an exception "
                        "offset of the NonbondedForce), which would remain beside the potential: "
                        "make the mixed System first, and change it afterwards"
                    )
        kind = type(force).__name__
        if kind.startswith(_INDIVISIBLE):
            raise InputError(
                f"the force field has a {kind}, of which the ML region's own part cannot be taken "
                "out: use a force field with fixed charges"
            )


def _nested(force: openmm.Force) -> list[str]:
    """Return the kinds of the forces within a force of somebody else's."""
    if isinstance(force, openmm.CustomCVForce):
        names = [force.getGlobalParameterName(k) for k in range(force.getNumGlobalParameters())]
        count = force.getNumCollectiveVariables()
        variables = [force.getCollectiveVariableName(k) for k in range(count)]
        if LAMBDA in names or variables == [_EXCLUDED]:  # from mixed Systems before
            return []
    elif not isinstance(force, openmm.ATMForce):
        return []
    root = ET.fromstring(openmm.XmlSerializer.serialize(force))
    return [node.get("type", "") for node in root.iter() if node is not root]


def virtual_sites(system: openmm.System, topology: Topology, atoms: Sequence[int]) -> list[int]:
    """Return the sites whose places depend on these atoms alone, as the fourth site of a water.

    They are no atoms to the potential, but part of what the force field has for the region.
    """
    region = set(atoms)
    found = []
    for atom in topology.atoms():
        if atom.element is None and system.isVirtualSite(atom.index):
            site = system.getVirtualSite(atom.index)
            if region.issuperset(site.getParticle(k) for k in range(site.getNumParticles())):
                found.append(atom.index)
    return found


def restraints(system: openmm.System, topology: Topology) -> list[int]:
    """Return the forces that no force field makes: biases and restraints of the user's.

    openmm-ml would take their terms for bonds of the region, and remove them. They couple groups
    of atoms, or atoms that are not bonded to each other in a row.
    """
    neighbors: dict[int, set[int]] = {}
    for bond in topology.bonds():
        neighbors.setdefault(bond[0].index, set()).add(bond[1].index)
        neighbors.setdefault(bond[1].index, set()).add(bond[0].index)

    def around(atom: int, steps: int) -> set[int]:
        found = {atom}
        for _ in range(steps):
            found |= {other for one in found for other in neighbors.get(one, ())}
        return found

    def apart(*atoms: int) -> bool:
        """Whether no force field would couple them: each is far from the one before."""
        if not all(atom in neighbors for atom in atoms):
            return False  # of bonds that are not known nothing can be told
        return any(b not in around(a, 3) for a, b in itertools.pairwise(atoms))

    found = []
    for k, force in enumerate(system.getForces()):
        terms: Iterator[Sequence[int]] = iter(())
        if isinstance(force, openmm.CustomBondForce):
            terms = (force.getBondParameters(n)[:2] for n in range(force.getNumBonds()))
        elif isinstance(force, openmm.CustomAngleForce):
            terms = (force.getAngleParameters(n)[:3] for n in range(force.getNumAngles()))
        elif isinstance(force, openmm.CustomTorsionForce):
            terms = (force.getTorsionParameters(n)[:4] for n in range(force.getNumTorsions()))
        groups = isinstance(force, openmm.CustomCentroidBondForce | openmm.CustomCompoundBondForce)
        if groups or any(apart(*term) for term in terms):
            found.append(k)
    return found


def without(
    system: openmm.System, forces: Sequence[int]
) -> tuple[openmm.System, list[openmm.Force]]:
    """Return a System without some forces, and copies of these."""
    if not forces:
        return system, []
    taken = [copy.deepcopy(system.getForce(k)) for k in forces]
    system = copy.deepcopy(system)
    for k in reversed(forces):
        system.removeForce(k)
    return system, taken


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
