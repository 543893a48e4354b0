"""A molecule and what is around it: plain functions of arrays.

Lengths are in Å, areas in Å², angles in degrees. F is the number of frames, N of atoms.
"""

import mdtraj
import numpy as np

from .observables import as_trajectory

_POLAR = (7, 8)  # atomic numbers of what gives and takes hydrogen bonds
_HELD = 2_000_000  # pairs times frames whose distances are held at a time


def sasa(numbers: np.ndarray, positions: np.ndarray, probe: float = 1.4) -> np.ndarray:
    """Solvent-accessible surface of each atom (Shrake and Rupley, 1973; Bondi's radii).

    Parameters
    ----------
    numbers
        Atomic numbers, shape ``[N]``.
    positions
        Å, shape ``[F, N, 3]``, without the solvent; no molecule split across the box.
    probe
        Radius of a molecule of the solvent, Å.

    Returns
    -------
    ndarray
        Å², shape ``[F, N]``.
    """
    trajectory = as_trajectory(positions, numbers=numbers)
    # Frame by frame: in one call mdtraj (1.11) adds 0.1% of each frame to the next.
    frames = [mdtraj.shrake_rupley(frame, probe_radius=probe / 10.0) for frame in trajectory]
    return np.concatenate(frames).astype(float) * 100.0


def neighbour_count(
    positions: np.ndarray,
    around: np.ndarray,
    others: np.ndarray,
    cutoff: float,
    box: np.ndarray | None = None,
) -> np.ndarray:
    """How many atoms are near any atom of a group.

    Parameters
    ----------
    positions
        Å, shape ``[F, N, 3]``.
    around, others
        Atom indices: the group, and what is counted.
    cutoff
        Å.
    box
        Box vectors, Å, shape ``[F, 3, 3]``.

    Returns
    -------
    ndarray of int
        Shape ``[F]``.
    """
    near = mdtraj.compute_neighbors(
        as_trajectory(positions, box), cutoff / 10.0, around, others, periodic=box is not None
    )
    return np.array([len(found) for found in near])


def polar_hydrogens(numbers: np.ndarray, bonds: np.ndarray) -> np.ndarray:
    """Return N-H and O-H bonds as ``[donor, hydrogen]``, shape ``[D, 2]``."""
    both = np.concatenate([bonds, bonds[:, ::-1]]).astype(int).reshape(-1, 2)
    return both[np.isin(numbers[both[:, 0]], _POLAR) & (numbers[both[:, 1]] == 1)]


def acceptors(numbers: np.ndarray) -> np.ndarray:
    """Return the indices of N and O, shape ``[A]``."""
    return np.flatnonzero(np.isin(numbers, _POLAR))


def hydrogen_bonds(
    positions: np.ndarray,
    donors: np.ndarray,
    takers: np.ndarray,
    box: np.ndarray | None = None,
    distance: float = 3.5,
    angle: float = 30.0,
) -> np.ndarray:
    """Hydrogen bonds by the geometry of Luzar and Chandler (1996).

    The donor's heavy atom is nearer to the acceptor than `distance`, and the angle at the donor
    between hydrogen and acceptor is smaller than `angle`.

    Parameters
    ----------
    positions
        Å, shape ``[F, N, 3]``.
    donors
        ``[donor, hydrogen]``, shape ``[D, 2]``.
    takers
        Acceptors, shape ``[A]``.
    box
        Box vectors, Å, shape ``[F, 3, 3]``.
    distance, angle
        Å and degrees.

    Returns
    -------
    ndarray of int
        ``[frame, row of donors, row of takers]`` of each bond, shape ``[K, 3]``.
    """
    rows, columns = np.meshgrid(np.arange(len(donors)), np.arange(len(takers)), indexing="ij")
    other = donors[rows, 0] != takers[columns]
    rows, columns = rows[other], columns[other]
    if len(rows) == 0:
        return np.empty((0, 3), dtype=int)
    trajectory, periodic = as_trajectory(positions, box), box is not None
    pairs = np.stack([donors[rows, 0], takers[columns]], axis=1)
    near = mdtraj.compute_distances(trajectory, pairs, periodic=periodic) < distance / 10.0
    frame, pair = np.nonzero(near)
    # Angles only where the distance is right: few of very many pairs.
    used, which = np.unique(pair, return_inverse=True)
    to_taker = mdtraj.compute_displacements(trajectory, pairs[used], periodic=periodic)
    along = mdtraj.compute_displacements(trajectory, donors, periodic=periodic)
    first, second = along[frame, rows[pair]], to_taker[frame, which]
    cosine = (first * second).sum(axis=1) / (
        np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    )
    bonded = cosine > np.cos(np.radians(angle))
    return np.stack([frame, rows[pair], columns[pair]], axis=1)[bonded]


def hydrogen_bond_count(
    positions: np.ndarray,
    donors: np.ndarray,
    takers: np.ndarray,
    box: np.ndarray | None = None,
) -> np.ndarray:
    """How many `hydrogen_bonds` each frame has.

    Parameters
    ----------
    positions
        Å, shape ``[F, N, 3]``.
    donors
        ``[donor, hydrogen]``, shape ``[D, 2]``.
    takers
        Acceptors, shape ``[A]``.
    box
        Box vectors, Å, shape ``[F, 3, 3]``.

    Returns
    -------
    ndarray of int
        Shape ``[F]``.
    """
    size = max(1, _HELD // max(1, len(donors) * len(takers)))
    counts = []
    for start in range(0, len(positions), size):
        part = slice(start, start + size)
        found = hydrogen_bonds(positions[part], donors, takers, None if box is None else box[part])
        counts.append(np.bincount(found[:, 0], minlength=len(positions[part])))
    return np.concatenate(counts)
