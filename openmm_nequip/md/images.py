"""Periodic images of vectors in a box, whose vectors are reduced as OpenMM wants them."""

import itertools

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components

_NEXT = np.array(list(itertools.product((0.0, -1.0, 1.0), repeat=3)))


def near_image(vectors: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return the nearest image of vectors that have one well within the box, such as bonds.

    Parameters
    ----------
    vectors
        Shape ``[..., 3]``.
    box
        Lattice vectors as rows, in the same unit, shape ``[3, 3]`` or ``[..., 3, 3]``.
    """
    for k in (2, 1, 0):
        count = np.round(vectors[..., k : k + 1] / box[..., k, k, None])
        vectors = vectors - count * box[..., k, :]
    return vectors


def shortest(vectors: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return the nearest image of any vectors, in a skewed box too; as `near_image`."""
    images = near_image(vectors, box)[..., None, :] + _NEXT @ box
    best = np.linalg.norm(images, axis=-1).argmin(axis=-1)
    found: np.ndarray = np.take_along_axis(images, best[..., None, None], axis=-2)[..., 0, :]
    return found


def along_bonds(positions: np.ndarray, bonds: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Put the atoms of each molecule one after the other, from the first on.

    Parameters
    ----------
    positions
        Shape ``[N, 3]``.
    bonds
        Pairs of atoms, shape ``[B, 2]``.
    steps
        Along each bond, from its first atom to the second, shape ``[B, 3]``.

    Returns
    -------
    ndarray
        Shape ``[N, 3]``.
    """
    count = len(positions)
    molecules = coo_matrix((np.ones(len(bonds)), bonds.T), (count, count))
    labels = connected_components(molecules, directed=False)[1]
    first = np.unique(labels, return_index=True)[1]
    # one more node is bonded to the first atom of each molecule, so that one search finds all
    edges = np.concatenate([bonds, np.stack([np.full(len(first), count), first], axis=1)])
    graph = coo_matrix((np.ones(len(edges)), edges.T), (count + 1, count + 1)).tocsr()
    order, before = breadth_first_order(graph, count, directed=False)
    step_of = {tuple(pair): step for pair, step in zip(bonds.tolist(), steps, strict=True)}
    step_of |= {(j, i): -step for (i, j), step in step_of.items()}
    moved = positions.copy()
    for atom, parent in zip(order[1:].tolist(), before[order[1:]].tolist(), strict=True):
        if parent != count:
            moved[atom] = moved[parent] + step_of[parent, atom]
    return moved
