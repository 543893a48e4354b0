"""Periodic images of vectors in a box, whose vectors are reduced as OpenMM wants them."""

import itertools

import numpy as np

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
