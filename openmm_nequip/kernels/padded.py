"""A neighbour list of fixed shape, which a CUDA graph can capture; for small systems.

All pairs are looked at. What does not fit is never dropped without notice: the result is then NaN.
"""

import torch
from torch import Tensor

from .edges import Edges


def narrowest_box(r_max: float) -> float:
    """Return the smallest width, Å, of a box: twice the cutoff, handed over in single precision."""
    return 2 * r_max * (1 - 1e-6)


def padded_edges(
    positions: Tensor, box: Tensor | None, r_max: float, capacity: int
) -> tuple[Edges, Tensor, Tensor]:
    """Find all directed pairs within the cutoff, and fill up with edges that contribute nothing.

    Parameters
    ----------
    positions
        Å, shape ``[N, 3]``, N > 0; they may lie outside the box. The vectors can be
        differentiated by them.
    box
        Box vectors as rows, Å, shape ``[3, 3]``, as OpenMM reduces them: lower triangular, and
        here with a diagonal of at least twice the cutoff; `None` without periodicity.
    r_max
        Cutoff, Å.
    capacity
        Number of edges E returned.

    Returns
    -------
    edges
        E of them. Those that fill up lead from an atom to itself, the same number for each atom,
        with twice the cutoff as length.
    vectors
        From receiving to sending atom, Å, shape ``[E, 3]``; all NaN where the flag is set.
    overflow
        Flag, shape ``[]``: there are more edges, the box is too small or not reduced, or a
        position is not finite. Nothing here waits for its value.
    """
    n = positions.shape[0]
    with torch.no_grad():
        close = _close(positions, box, r_max)
        rank = close.cumsum(0)
        slot = torch.where(close, rank - 1, capacity).clamp(max=capacity)
        pairs = torch.arange(n * n, device=positions.device)
        # the last place takes what is not an edge, or one too many
        found = torch.zeros(capacity + 1, dtype=torch.int64, device=positions.device)
        found = found.scatter(0, slot, pairs)[:capacity]
        places = torch.arange(capacity, device=positions.device)
        filling = places >= rank[-1]
        i = torch.where(filling, places % n, found // n)
        j = torch.where(filling, places % n, found % n)

        overflow = (rank[-1] > capacity) | ~positions.isfinite().all()
        if box is not None:
            overflow = (
                overflow
                | ~(box.diagonal() >= narrowest_box(r_max)).all()
                | (box.triu(1) != 0).any()
            )

    vectors = _nearest(positions[j] - positions[i], box)
    away = torch.zeros_like(vectors)
    away[:, 0] = 2 * r_max
    vectors = torch.where(filling[:, None], away, vectors)
    return Edges.between(i, j, n), vectors.masked_fill(overflow, float("nan")), overflow


def count_edges(positions: Tensor, box: Tensor | None, r_max: float) -> Tensor:
    """Return the number of places that `padded_edges` needs, shape ``[]``."""
    return _close(positions, box, r_max).sum()


def _close(positions: Tensor, box: Tensor | None, r_max: float) -> Tensor:
    """Return for all pairs, ``[N * N]``, whether they are within the cutoff."""
    vectors = _nearest(positions[None, :] - positions[:, None], box)
    return (vectors.square().sum(2) < r_max**2).fill_diagonal_(False).flatten()


def _nearest(vectors: Tensor, box: Tensor | None) -> Tensor:
    """Return the images whose components are at most half the diagonal of the box.

    Where the diagonal is at least twice the cutoff, no other image is within it.
    """
    if box is None:
        return vectors
    for k in (2, 1, 0):
        turns = torch.round(vectors[..., k : k + 1].detach() / box[k, k])
        vectors = vectors - turns * box[k]
    return vectors
