"""Neighbour lists: all pairs closer than the cutoff, every periodic image counted (by vesin)."""

from collections.abc import Sequence

import numpy as np
from ase.geometry import complete_cell
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from vesin import NeighborList

from ..errors import InputError
from .frame import FloatArray, IntArray

_FARTHEST = 1e4  # Å


def neighbor_list(
    positions: FloatArray,
    cell: FloatArray | None,
    pbc: tuple[bool, bool, bool],
    cutoff: float,
) -> tuple[IntArray, IntArray]:
    """Find all directed pairs ``i <- j`` within `cutoff`.

    Parameters
    ----------
    positions
        Å, shape ``[N, 3]``; they may lie outside the cell.
    cell
        Lattice vectors as rows, Å, shape ``[3, 3]``, or `None`.
    pbc
        Periodic directions; the others see no images.
    cutoff
        Å. The cell may be smaller than the cutoff.

    Returns
    -------
    edge_index
        Shape ``[2, E]``: receiving, sending atom.
    shifts
        Shape ``[E, 3]``: lattice translations of the sending atom.
    """
    if cell is None or not any(pbc):
        # vesin 0.6 ends the process where empty space has many more cells than there are atoms
        pairs = cKDTree(positions).query_pairs(cutoff, output_type="ndarray")
        i, j = np.concatenate([pairs, pairs[:, ::-1]]).T
        order = np.lexsort((j, i))
        return np.stack([i[order], j[order]]).astype(np.int64), np.zeros((len(i), 3), np.int64)
    check_extent(positions, cell, pbc)
    finder = NeighborList(cutoff=cutoff, full_list=True, sorted=True)
    i, j, shifts = finder.compute(
        points=np.ascontiguousarray(positions, dtype=np.float64),
        box=complete_cell(cell),
        periodic=np.asarray(pbc),
        quantities="ijS",
    )
    edge_index = np.stack([i, j]).astype(np.int64)
    return edge_index, shifts.astype(np.int64)


def check_extent(
    positions: FloatArray, cell: FloatArray, pbc: Sequence[bool] | NDArray[np.bool_]
) -> None:
    """Check that vesin can search: it goes through all the space between atoms.

    Raises
    ------
    InputError
        Atoms are far apart along a direction that has no images.
    """
    free = ~np.asarray(pbc)
    if len(positions) == 0 or not free.any():
        return
    inverse = np.linalg.inv(complete_cell(cell))
    spans = np.ptp(positions @ inverse, axis=0) / np.linalg.norm(inverse, axis=0)
    if not spans[free].max() <= _FARTHEST:
        raise InputError(
            f"atoms are {spans[free].max():.3g} Å apart in a direction that is not periodic, more "
            f"than the {_FARTHEST:g} Å that a neighbour search can go through: remove those that "
            "have left"
        )


def pair_distances(
    positions: FloatArray,
    cell: FloatArray | None,
    pbc: tuple[bool, bool, bool],
    cutoff: float,
) -> tuple[IntArray, IntArray, FloatArray]:
    """Return the pairs that `neighbor_list` finds, atom by atom, and their distances.

    Returns
    -------
    receivers, senders
        Shape ``[E]``.
    distances
        Å, shape ``[E]``.
    """
    (i, j), shifts = neighbor_list(positions, cell, pbc, cutoff)
    vectors = positions[j] - positions[i]
    if cell is not None:
        vectors = vectors + shifts @ cell
    return i, j, np.linalg.norm(vectors, axis=1)
