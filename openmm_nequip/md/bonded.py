"""Which atoms a force field holds together."""

from collections.abc import Iterator

import openmm
from openmm.app import Topology


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
    held = {frozenset(pair) for pair in _held_pairs(system)}
    loose: set[int] = set()
    for bond in topology.bonds():
        pair = (bond[0].index, bond[1].index)
        if frozenset(pair) not in held:
            loose.update(pair)
    return sorted(loose)


def _held_pairs(system: openmm.System) -> Iterator[tuple[int, int]]:
    for k in range(system.getNumConstraints()):
        first, second, _ = system.getConstraintParameters(k)
        yield first, second
    for force in system.getForces():
        if isinstance(force, openmm.HarmonicBondForce | openmm.CustomBondForce):
            for k in range(force.getNumBonds()):
                first, second, *_ = force.getBondParameters(k)
                yield first, second
