"""Which atoms a force field holds together."""

from collections.abc import Collection, Iterator
from typing import Any

import openmm
from openmm.app import Topology

from ..errors import InputError
from .domain import atom_name


def atoms_without_bonded_terms(topology: Topology, system: openmm.System) -> list[int]:
    """Return the atoms with a bond to which the System gives no energy and no fixed length.

    They would fly apart without a potential that describes them: molecules of which `prepare` has
    made the Lennard-Jones parameters and charges only.

    Parameters
    ----------
    topology
        Knows the bonds.
    system
        Of a force field, not yet of a potential.
    """
    held = {frozenset(pair) for pair in (*_bonds(system), *constrained_pairs(system))}
    loose: set[int] = set()
    for bond in topology.bonds():
        pair = (bond[0].index, bond[1].index)
        if frozenset(pair) not in held and not _has_site(bond):
            loose.update(pair)
    return sorted(loose)


def check_interpolation(topology: Topology, system: openmm.System, region: Collection[int]) -> None:
    """Check that the force field alone would hold a region together, as it has to at λ = 0.

    Constraints do not count: they are removed where the potential acts.

    Raises
    ------
    InputError
        A bond of the region has no energy.
    """
    held, inside = {frozenset(pair) for pair in _bonds(system)}, set(region)
    for bond in topology.bonds():
        pair = (bond[0].index, bond[1].index)
        if inside.issuperset(pair) and frozenset(pair) not in held and not _has_site(bond):
            raise InputError(
                f"interpolation needs a force field with all bonds of the ML region, and "
                f"{atom_name(bond[0])} - {atom_name(bond[1])} has none: if it is constrained, "
                "create the System with flexibleConstraints=True; a molecule with Lennard-Jones "
                "parameters and charges only cannot be interpolated"
            )


def _has_site(bond: Any) -> bool:
    """Whether one of its atoms is none: AMBER bonds the fourth site of a water to its oxygen."""
    return bond[0].element is None or bond[1].element is None


def _bonds(system: openmm.System) -> Iterator[tuple[int, int]]:
    for force in system.getForces():
        if isinstance(force, openmm.HarmonicBondForce | openmm.CustomBondForce):
            for k in range(force.getNumBonds()):
                first, second, *_ = force.getBondParameters(k)
                yield first, second


def constrained_pairs(system: openmm.System) -> Iterator[tuple[int, int]]:
    """Yield the particles of each constraint."""
    for k in range(system.getNumConstraints()):
        first, second, _ = system.getConstraintParameters(k)
        yield first, second
