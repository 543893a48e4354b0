"""What can be wrong with a simulation, found before its first step.

Elements and charge are checked where a potential is added to a System; this is about the rest. Each
function returns one line for each thing that is wrong, and nothing where all is well.
"""

from collections.abc import Sequence

import numpy as np
import openmm
from ase.data import covalent_radii
from openmm import app, unit

from ..data.neighbors import pair_distances
from ..errors import InputError
from ..units import NM
from .bonded import constrained_pairs
from .domain import atom_name
from .images import near_image

_HYDROGEN = 1.008  # Da
_LONGEST_STEP = 1.0  # fs, where bonds of hydrogen vibrate
_OVERLAP, _CLASH, _BOND, _TORN = 0.5, 0.8, 1.2, 1.6  # of the sum of the covalent radii
_SHOWN = 3  # atoms or pairs in a message
MAX_FORCE = 1e5  # kJ/mol/nm; some 50 times the forces in a liquid


def check_run(
    simulation: app.Simulation,
    ml_atoms: Sequence[int] | None = None,
    max_force: float = MAX_FORCE,
) -> None:
    """Check a simulation that is about to begin; call it when positions are set and minimised.

    Parameters
    ----------
    simulation
        Nothing in it is changed.
    ml_atoms
        Indices of the atoms that a potential describes; `None` is all.
    max_force
        On an atom, kJ/mol/nm.

    Raises
    ------
    InputError
        All that `find_problems` finds, in one line.
    """
    problems = find_problems(simulation, ml_atoms, max_force)
    if problems:
        raise InputError("; ".join(problems))


def find_problems(
    simulation: app.Simulation,
    ml_atoms: Sequence[int] | None = None,
    max_force: float = MAX_FORCE,
) -> list[str]:
    """Return what is wrong, a line each; parameters as in `check_run`."""
    system, topology, context = simulation.system, simulation.topology, simulation.context
    state = context.getState(positions=True)
    positions = state.getPositions(asNumpy=True)._value
    box = state.getPeriodicBoxVectors(asNumpy=True)._value
    periodic = system.usesPeriodicBoundaryConditions()
    timestep = simulation.integrator.getStepSize().value_in_unit(unit.femtosecond)
    return [
        *long_cutoffs(system, box),
        *cut_bonds(system, topology, ml_atoms),
        *long_time_step(system, topology, timestep, ml_atoms),
        *overlapping_atoms(system, topology, positions, box if periodic else None),
        *long_bonds(topology, positions, box if periodic else None),
        *strong_forces(context, topology, max_force),
    ]


def long_time_step(
    system: openmm.System,
    topology: app.Topology,
    timestep: float,
    ml_atoms: Sequence[int] | None = None,
) -> list[str]:
    """Find constraints where the potential acts, and bonds too stiff for the time step.

    A flexible bond of hydrogen has a period of some 10 fs, which takes steps of at most 1 fs; it
    grows with the square root of the mass, which other programs make use of by making hydrogen
    heavier.

    Parameters
    ----------
    system, topology
        With the same atoms; the System may have link atoms in addition.
    timestep
        fs.
    ml_atoms
        As in `check_run`.
    """
    atoms = list(topology.atoms())
    region = set(range(len(atoms)) if ml_atoms is None else ml_atoms)
    found, held, inside = [], set[int](), []
    for pair in constrained_pairs(system):
        held.update(pair)
        if region.issuperset(pair):
            inside.append(pair)
    if inside:
        found.append(
            f"{len(inside)} constraint{'s' * (len(inside) > 1)} inside the ML region "
            f"({_pairs(atoms, inside)}), where the potential then has no say: leave "
            "removeConstraints at True"
        )
    mass = [system.getParticleMass(k).value_in_unit(unit.dalton) for k in range(len(atoms))]
    flexible = [
        atom.index
        for atom in atoms
        if mass[atom.index] > 0
        and atom.index not in held
        and (atom.index in region or atom.element is app.element.hydrogen)
    ]
    if flexible:
        lightest = min(flexible, key=lambda k: mass[k])
        longest = _LONGEST_STEP * (mass[lightest] / _HYDROGEN) ** 0.5
        if timestep > 1.01 * longest:
            found.append(
                f"a time step of {timestep:g} fs is too long for {atom_name(atoms[lightest])}, "
                f"whose bonds vibrate: with its mass of {mass[lightest]:.3g} Da "
                f"{longest:.2g} fs are the most, 0.5 fs are safe"
            )
    return found


def long_cutoffs(system: openmm.System, box: np.ndarray) -> list[str]:
    """Find cutoffs of more than half the box; `box` holds its vectors as rows, nm."""
    narrowest, found = float(np.diag(box).min()), []
    for force in system.getForces():
        if not (hasattr(force, "getCutoffDistance") and force.usesPeriodicBoundaryConditions()):
            continue
        cutoff = force.getCutoffDistance().value_in_unit(unit.nanometer)
        if 2 * cutoff > narrowest:
            found.append(
                f"the cutoff of {force.getName()}, {cutoff:g} nm, is more than half the box of "
                f"{narrowest:.3f} nm: make the box larger or the cutoff shorter"
            )
    return found


def cut_bonds(
    system: openmm.System, topology: app.Topology, ml_atoms: Sequence[int] | None
) -> list[str]:
    """Find bonds between the ML region and the rest that no link atom caps.

    A bond is what the topology says, and what the force field holds together, but for springs
    between the ends of an angle (Urey and Bradley's).
    """
    if ml_atoms is None:
        return []
    region, atoms = set(ml_atoms), list(topology.atoms())
    bonds = {(bond[0].index, bond[1].index) for bond in topology.bonds()}
    partners: dict[int, set[int]] = {}
    for first, second in bonds:
        partners.setdefault(first, set()).add(second)
        partners.setdefault(second, set()).add(first)
    for force in system.getForces():
        if isinstance(force, openmm.HarmonicBondForce):
            terms = [force.getBondParameters(k) for k in range(force.getNumBonds())]
            bonds |= {
                (first, second)
                for first, second, _, strength in terms
                if strength._value and not partners.get(first, set()) & partners.get(second, set())
            }
    bonds.update(constrained_pairs(system))
    sites = [
        system.getVirtualSite(k) for k in range(system.getNumParticles()) if system.isVirtualSite(k)
    ]
    capped = [
        {site.getParticle(k) for k in range(site.getNumParticles())}
        for site in sites
        if isinstance(site, openmm.LocalCoordinatesSite)
    ]
    cut = sorted(
        {
            (min(bond), max(bond))
            for bond in bonds
            if (bond[0] in region) != (bond[1] in region) and set(bond) not in capped
        }
    )
    if not cut:
        return []
    return [
        f"the border of the ML region cuts {len(cut)} bond{'s' * (len(cut) > 1)} without a link "
        f"atom ({_pairs(atoms, cut)}): choose whole molecules, or give createMixedSystem a "
        "topology that has these bonds"
    ]


def long_bonds(topology: app.Topology, positions: np.ndarray, box: np.ndarray | None) -> list[str]:
    """Find bonds of the topology that are far too long.

    Readers of PDB files bond residues that follow each other in a chain, also where others between
    them are missing; minimisation would pull their ends together.

    Parameters
    ----------
    topology, positions, box
        As in `overlapping_atoms`.
    """
    # the two hydrogens of a rigid water are bonded in some files
    bonds = [
        b for b in topology.bonds() if None not in (b[0].element, b[1].element)
        and not b[0].element is b[1].element is app.element.hydrogen
    ]  # fmt: skip
    if not bonds:
        return []
    pairs = np.array([(bond[0].index, bond[1].index) for bond in bonds])
    vectors = positions[pairs[:, 1]] - positions[pairs[:, 0]]
    if box is not None:
        vectors = near_image(vectors, box)
    radii = np.array([[covalent_radii[a.element.atomic_number] for a in bond] for bond in bonds])
    lengths = np.linalg.norm(vectors, axis=1)
    found = np.flatnonzero(lengths > _TORN * radii.sum(axis=1) * NM)
    if not len(found):
        return []
    worst = found[np.argsort(-lengths[found])]
    return [
        f"{len(found)} bond{'s' * (len(found) > 1)} of the topology "
        f"{'are' if len(found) > 1 else 'is'} far too long "
        f"({_pairs(list(topology.atoms()), [tuple(pairs[k]) for k in worst])}; "
        f"{10 * lengths[worst[0]]:.1f} Å): residues may be missing between them, which PDBFixer "
        "adds; or end the chain there (TER), with capped ends"
    ]


def overlapping_atoms(
    system: openmm.System, topology: app.Topology, positions: np.ndarray, box: np.ndarray | None
) -> list[str]:
    """Find atoms that are nearer to each other than half of any bond.

    Parameters
    ----------
    system, topology
        With the same atoms; virtual sites do not count.
    positions
        nm, shape ``[N, 3]``.
    box
        Lattice vectors as rows, nm, shape ``[3, 3]``; `None` for no box.
    """
    atoms = list(topology.atoms())
    first, second, distance, _ = near_pairs(_OVERLAP, system, topology, positions, box)
    near = first < second
    if not near.any():
        return []
    order = np.argsort(distance[near])
    pairs = list(zip(first[near][order].tolist(), second[near][order].tolist(), strict=True))
    return [
        f"{len(pairs)} pair{'s' * (len(pairs) > 1)} of atoms overlap ({_pairs(atoms, pairs)}; the "
        f"nearest are {10 * distance[near].min():.2f} Å apart): look for atoms or molecules that "
        "are there twice, and for a box that is too small"
    ]


def near_pairs(
    factor: float,
    system: openmm.System,
    topology: app.Topology,
    positions: np.ndarray,
    box: np.ndarray | None,
    of: Sequence[int] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return pairs nearer than `factor` times the sum of their covalent radii, in both orders.

    Parameters as in `overlapping_atoms`; `of` are the atoms to look at, `None` for all.

    Returns
    -------
    first, second, distance, sums
        Atoms, distances and sums of the radii, nm; arrays of one length.
    """
    chosen = None if of is None else set(of)
    real = [
        atom
        for atom in topology.atoms()
        if atom.element is not None
        and not system.isVirtualSite(atom.index)
        and (chosen is None or atom.index in chosen)
    ]
    rows = np.array([atom.index for atom in real], dtype=int)
    radii = np.array([covalent_radii[atom.element.atomic_number] for atom in real])
    i, j, distances = pair_distances(
        positions[rows] / NM,
        None if box is None else box / NM,
        (box is not None,) * 3,
        2 * factor * float(radii.max()),
    )
    sums = radii[i] + radii[j]
    near = distances < factor * sums
    return rows[i][near], rows[j][near], distances[near] * NM, sums[near] * NM


def torn_bonds(
    system: openmm.System,
    topology: app.Topology,
    before: np.ndarray,
    after: np.ndarray,
    box: np.ndarray | None,
    ml_atoms: Sequence[int] | None = None,
) -> list[str]:
    """Find bonds of the potential that minimisation has torn.

    Parameters
    ----------
    system, topology, ml_atoms
        As in `check_run`.
    before, after
        Positions, nm, shape ``[N, 3]``.
    box
        Lattice vectors as rows, nm, shape ``[3, 3]``; `None` for no box.
    """
    atoms = list(topology.atoms())
    first, second, distance, sums = near_pairs(_BOND, system, topology, before, box, ml_atoms)
    bonded = distance > _CLASH * sums
    bonds = set(zip(first[bonded].tolist(), second[bonded].tolist(), strict=True))
    known = {tuple(sorted((bond[0].index, bond[1].index))) for bond in topology.bonds()}
    if known:  # of two molecules that were too close some atoms may have been as near as if bonded
        bonds &= known
    first, second, *_ = near_pairs(_TORN, system, topology, after, box, ml_atoms)
    near = set(zip(first.tolist(), second.tolist(), strict=True))
    torn = sorted(pair for pair in bonds - near if pair[0] < pair[1])
    if not torn:
        return []
    return [
        f"minimisation has torn {len(torn)} bond{'s' * (len(torn) > 1)} ({_pairs(atoms, torn)}): "
        "look for missing hydrogen atoms, wrong charges and molecules that the potential does not "
        "know"
    ]


def strong_forces(
    context: openmm.Context, topology: app.Topology, max_force: float = MAX_FORCE
) -> list[str]:
    """Find the atom with the largest force, if that is more than `max_force`, kJ/mol/nm."""
    atom, size = strongest_force(context, topology)
    if size <= max_force:
        return []
    return [
        f"the force on {atom_name(atom)} is {size:.3g} kJ/mol/nm, more than "
        f"{max_force:.3g}: minimise first, and look for atoms too close to it"
    ]


def strongest_force(
    context: openmm.Context, topology: app.Topology
) -> tuple[app.topology.Atom, float]:
    """Return the atom with the largest force and its size, kJ/mol/nm; infinite if not a number."""
    forces = context.getState(forces=True).getForces(asNumpy=True)._value
    sizes = np.linalg.norm(forces[: topology.getNumAtoms()], axis=1)
    sizes[~np.isfinite(sizes)] = np.inf
    worst = int(np.argmax(sizes))
    return list(topology.atoms())[worst], float(sizes[worst])


def _pairs(atoms: Sequence[app.topology.Atom], pairs: Sequence[tuple[int, int]]) -> str:
    """Return the first pairs in words; particles behind the topology's have no name."""

    def name(index: int) -> str:
        return atom_name(atoms[index]) if index < len(atoms) else f"particle {index}"

    shown = [f"{name(first)} and {name(second)}" for first, second in pairs[:_SHOWN]]
    return ", ".join(shown) + (", ..." if len(pairs) > _SHOWN else "")
