"""Shapes of a molecule along a trajectory: plain functions of arrays.

Lengths are in Å, angles in degrees. F is the number of frames, N of atoms, T of torsions.
"""

from collections.abc import Iterator

import mdtraj
import networkx
import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from .observables import as_trajectory

_SURROUNDINGS = 8  # bonds, within which branches that look the same are alike


def superpose(positions: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Shift and rotate each frame onto a reference.

    Parameters
    ----------
    positions
        Å, shape ``[F, N, 3]``.
    reference
        Å, shape ``[N, 3]``.

    Returns
    -------
    ndarray
        Å, shape ``[F, N, 3]``.
    """
    # mdtraj's superpose leaves what is half a turn away as it is.
    moved = positions - positions.mean(axis=1, keepdims=True)
    centre = reference.mean(axis=0)
    left, _, right = np.linalg.svd(np.einsum("fna,nb->fab", moved, reference - centre))
    left[:, :, 2] *= np.linalg.det(left @ right)[:, None]  # rotations only, no reflection
    return moved @ (left @ right) + centre


def rmsf(positions: np.ndarray) -> np.ndarray:
    """Root mean square fluctuation of each atom around its mean position.

    Frames are superposed on the mean structure.

    Parameters
    ----------
    positions
        Å, shape ``[F, N, 3]``.

    Returns
    -------
    ndarray
        Å, shape ``[N]``.
    """
    mean = superpose(positions, positions[0]).mean(axis=0)
    around = superpose(positions, mean)
    return np.sqrt(((around - around.mean(axis=0)) ** 2).sum(axis=2).mean(axis=0))


def radius_of_gyration(positions: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Radius of gyration about the centre of mass.

    Parameters
    ----------
    positions
        Å, shape ``[F, N, 3]``; no molecule split across the box.
    masses
        Any unit, shape ``[N]``.

    Returns
    -------
    ndarray
        Å, shape ``[F]``.
    """
    # mdtraj's compute_rg weights with masses, but measures from the unweighted centre.
    weights = (masses / masses.sum())[:, None]
    centred = positions - (positions * weights).sum(axis=1, keepdims=True)
    return np.sqrt((centred**2 * weights).sum(axis=(1, 2)))


def rotatable_bonds(numbers: np.ndarray, bonds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Torsions that tell conformers apart: one for each bond about which a molecule can turn.

    Those are the bonds outside rings whose two ends both have further neighbours. Ends that look
    the same after a third of a turn (CH₃, CF₃, C(CH₃)₃) and linear ones (C≡C, C≡N) do not count;
    with one that looks the same after half a turn (C₆H₅, NO₂, CO₂⁻) angles repeat after 180°.

    Parameters
    ----------
    numbers
        Atomic numbers, shape ``[N]``.
    bonds
        Shape ``[B, 2]``.

    Returns
    -------
    torsions : ndarray of int
        Atoms a-b-c-d of each torsion, shape ``[T, 4]``; a and d begin the largest branches, so
        that torsions follow the main chain.
    periods : ndarray
        Degrees after which a torsion looks the same, 180 or 360, shape ``[T]``.
    """
    graph = networkx.Graph(np.asarray(bonds).tolist())

    def branch(start: int, end: int) -> int:
        """Count the atoms on the side of `start` once `end` is taken away."""
        left = networkx.restricted_view(graph, [end], [])
        return len(networkx.node_connected_component(left, start))

    def outer(atom: int, other: int) -> tuple[int, float] | None:
        """Return the atom that the torsion goes on to, and the period of this end."""
        rest = sorted(set(graph[atom]) - {other}, key=lambda k: (-branch(k, atom), -numbers[k], k))
        if not rest or (len(rest) == 1 and _is_linear(graph, numbers, atom, rest[0])):
            return None
        alike = len(rest) > 1 and _look_the_same(graph, numbers, atom, other, rest)
        if alike and len(rest) == 3:
            return None
        return rest[0], 180.0 if alike and _is_planar(graph, numbers, atom) else 360.0

    found, periods = [], []
    for first, second in sorted(tuple(sorted(bond)) for bond in networkx.bridges(graph)):
        before, after = outer(first, second), outer(second, first)
        if before is not None and after is not None:
            found.append((before[0], first, second, after[0]))
            periods.append(min(before[1], after[1]))
    return np.array(found, dtype=int).reshape(-1, 4), np.array(periods)


def _is_linear(graph: networkx.Graph, numbers: np.ndarray, atom: int, beyond: int) -> bool:
    """Whether an atom with two neighbours is that of an alkyne, nitrile, azide or the like."""
    azide = numbers[atom] == numbers[beyond] == 7 and graph.degree(beyond) == 1
    return bool(azide or numbers[atom] == 6)


def _look_the_same(
    graph: networkx.Graph, numbers: np.ndarray, atom: int, other: int, rest: list[int]
) -> bool:
    """Whether the neighbours `rest` of `atom`, seen from `other`, have the same surroundings."""
    if len({(numbers[k], len(graph[k])) for k in rest}) > 1:
        return False  # most of them, without a search
    away = networkx.restricted_view(graph, [other], [])
    side = networkx.Graph(networkx.ego_graph(away, atom, _SURROUNDINGS))
    names = {k: f"{numbers[k]}" for k in side} | {atom: "root"}
    networkx.set_node_attributes(side, names, "name")
    hashes = networkx.weisfeiler_lehman_subgraph_hashes(
        side, node_attr="name", iterations=_SURROUNDINGS
    )
    return len({hashes[k][-1] for k in rest}) == 1


def _is_planar(graph: networkx.Graph, numbers: np.ndarray, atom: int) -> bool:
    """Whether an atom with three neighbours lies among them: sp² carbon, boron, nitro, amide."""
    if numbers[atom] != 7:
        return len(graph[atom]) == 3 and numbers[atom] in (5, 6)
    oxides = sum(numbers[k] == 8 and len(graph[k]) == 1 for k in graph[atom])
    return oxides == 2 or any(numbers[k] == 6 and len(graph[k]) == 3 for k in graph[atom])


def torsions(positions: np.ndarray, quadruples: np.ndarray) -> np.ndarray:
    """Torsion angles, IUPAC's sign: 180° is trans.

    Parameters
    ----------
    positions
        Å, shape ``[F, N, 3]``; no molecule split across the box.
    quadruples
        Atom indices, shape ``[T, 4]``.

    Returns
    -------
    ndarray
        Degrees in [-180, 180], shape ``[F, T]``.
    """
    return np.degrees(mdtraj.compute_dihedrals(as_trajectory(positions), quadruples))


def backbone(topology: mdtraj.Topology) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Find φ and ψ of the residues that have both.

    Parameters
    ----------
    topology
        Of mdtraj: names of atoms and residues say what is a backbone.

    Returns
    -------
    phi, psi : ndarray of int
        Atoms C-N-CA-C and N-CA-C-N, shape ``[R, 4]``.
    residues : list of str
        Their names, such as 'ALA2'.
    """
    by_alpha = [
        {int(atoms[alpha]): atoms for atoms in find(topology)}
        for find, alpha in ((mdtraj.geometry.indices_phi, 2), (mdtraj.geometry.indices_psi, 1))
    ]
    both = [atom for atom in by_alpha[0] if atom in by_alpha[1]]
    phi, psi = (
        np.array([found[atom] for atom in both], dtype=int).reshape(-1, 4) for found in by_alpha
    )
    return phi, psi, [str(topology.atom(atom).residue) for atom in both]


def ramachandran(
    positions: np.ndarray, phi: np.ndarray, psi: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Backbone torsions φ and ψ.

    Parameters
    ----------
    positions
        Å, shape ``[F, N, 3]``; no molecule split across the box.
    phi, psi
        Atom indices of the torsions, as `backbone` finds them, shape ``[R, 4]``.

    Returns
    -------
    phi, psi : ndarray
        Degrees in [-180, 180], shape ``[F, R]``.
    """
    return torsions(positions, phi), torsions(positions, psi)


def secondary_structure(trajectory: mdtraj.Trajectory) -> np.ndarray:
    """Secondary structure of each residue by DSSP (Kabsch and Sander, 1983).

    Parameters
    ----------
    trajectory
        Of mdtraj, with a protein in it: beside positions DSSP needs names of atoms and residues.

    Returns
    -------
    ndarray of str
        'H' helix, 'E' strand, 'C' neither, 'NA' no amino acid; shape ``[F, R]``.
    """
    return mdtraj.compute_dssp(trajectory, simplified=True)


def rmsd_matrix(positions: np.ndarray) -> np.ndarray:
    """RMSD of all pairs of frames after the best superposition.

    Parameters
    ----------
    positions
        Å, shape ``[F, N, 3]``.

    Returns
    -------
    ndarray
        Å, shape ``[F, F]``.
    """
    trajectory = as_trajectory(positions)
    trajectory.center_coordinates()
    rows = [mdtraj.rmsd(trajectory, trajectory, k, precentered=True) for k in range(len(positions))]
    matrix = np.array(rows, dtype=float) * 10.0
    np.fill_diagonal(matrix, 0.0)
    return (matrix + matrix.T) / 2


def torsion_matrix(angles: np.ndarray, periods: np.ndarray | float = 360.0) -> np.ndarray:
    """Largest difference of any torsion, for all pairs of frames.

    Parameters
    ----------
    angles
        Degrees, shape ``[F, T]``.
    periods
        Degrees after which each looks the same, shape ``[T]``, or all do.

    Returns
    -------
    ndarray
        Degrees in [0, 180], shape ``[F, F]``.
    """
    largest = np.zeros((len(angles), len(angles)))
    for angle, period in zip(angles.T, np.broadcast_to(periods, angles.shape[1]), strict=True):
        difference = angle[:, None] - angle
        np.maximum(largest, np.abs((difference + period / 2) % period - period / 2), out=largest)
    return largest


def clusters(distances: np.ndarray, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    """Group frames by average linkage.

    Parameters
    ----------
    distances
        Of all pairs of frames, shape ``[F, F]``.
    cutoff
        Clusters are joined while the mean distance between their members is smaller.

    Returns
    -------
    labels : ndarray of int
        Cluster of each frame, shape ``[F]``; 0 is the most populated one.
    centres : ndarray of int
        The frame of each cluster that is nearest to its other members.
    """
    if len(distances) < 2:
        return np.zeros(len(distances), dtype=int), np.arange(len(distances))
    tree = linkage(squareform(distances, checks=False), "average")
    found = fcluster(tree, cutoff, "distance") - 1
    by_population = np.argsort(-np.bincount(found), kind="stable")
    labels = np.argsort(by_population)[found]
    return labels, np.array(list(_centres(distances, labels)))


def _centres(distances: np.ndarray, labels: np.ndarray) -> Iterator[int]:
    for label in range(labels.max() + 1):
        members = np.flatnonzero(labels == label)
        yield int(members[distances[np.ix_(members, members)].sum(axis=1).argmin()])
