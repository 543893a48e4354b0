"""Verlet lists on CPU: what every step needs is compiled."""

from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor
from vesin import NeighborList

from ..kernels.compiler import kernel
from ..kernels.edges import Edges
from .verlet import FARTHEST, SKIN, Neighbors, VerletList

_PARALLEL = 50_000  # candidates; fewer are not worth waking other threads


class NumbaVerletList(VerletList):
    """A list in compiled code; its results are the same for any number of threads."""

    def __init__(self, r_max: float):
        super().__init__(r_max)
        self._finder = NeighborList(cutoff=r_max + SKIN, full_list=True)

    def _search(self, positions: Tensor) -> None:
        self._finder.n_threads = torch.get_num_threads()
        found = self._finder.compute(
            positions.numpy(), self._built_box, self._periodic, "PS", copy=False
        )
        self._take(positions, *found)

    def _take(self, positions: Tensor, pairs: Any, shifts: Any) -> None:
        self._start, self._senders, self._shifts = _sort(
            pairs.astype(np.int64), shifts, len(positions)
        )
        self._built = positions.numpy().copy()

    def _carry(self, stretch: np.ndarray) -> None:
        self._reference = self._built @ stretch
        self._translations = self._shifts @ self._box
        self._points = np.empty_like(self._built)

    def _follow(self, positions: Tensor) -> bool:
        return _track(
            positions.numpy(), self._reference, self._box, self._inverse, self._periodic,
            self._allowed, self._points,
        )  # fmt: skip

    def _select(self) -> Neighbors:
        candidates = self._start, self._senders, self._translations, self.r_max
        many = len(self._senders) > _PARALLEL and torch.get_num_threads() > 1
        arrays = (_select_parallel if many else _select)(self._points, *candidates)
        vectors, *edges = (torch.from_numpy(array) for array in arrays)
        return Neighbors(vectors, Edges(*edges))

    def forces(self, gradient: Tensor, edges: Edges) -> Tensor:
        """See `VerletList.forces`."""
        g = gradient.detach().contiguous().numpy()
        return torch.from_numpy(
            _forces(
                g, edges.receivers.numpy(), edges.senders.numpy(), len(edges.receiver_start) - 1
            )
        )


@njit(cache=True, nogil=True)
def _sort_by(atoms: Any, num_atoms: int) -> Any:
    """Return a stable order and where each atom begins in it."""
    start = np.zeros(num_atoms + 1, np.int64)
    for atom in atoms:
        start[atom + 1] += 1
    for a in range(num_atoms):
        start[a + 1] += start[a]
    place = start.copy()
    order = np.empty(len(atoms), np.int64)
    for e in range(len(atoms)):
        order[place[atoms[e]]] = e
        place[atoms[e]] += 1
    return order, start


@njit(cache=True, nogil=True)
def _sort(pairs: Any, shifts: Any, num_atoms: int) -> Any:
    """Sort by receiver, then sender: twice by counting."""
    by_sender, _ = _sort_by(pairs[:, 1], num_atoms)
    then_receiver, start = _sort_by(pairs[:, 0][by_sender], num_atoms)
    order = by_sender[then_receiver]
    return start, pairs[:, 1][order], shifts[order]


@njit(cache=True, nogil=True)
def _track(
    positions: Any, reference: Any, box: Any, inverse: Any, periodic: Any, allowed: float, out: Any
) -> bool:
    """Undo jumps by lattice vectors; return whether all displacements are small (NaN is not)."""
    for a in range(len(positions)):
        for k in range(3):
            out[a, k] = positions[a, k]
        for axis in range(3):
            if periodic[axis]:
                jump = 0.0
                for k in range(3):
                    jump += (positions[a, k] - reference[a, k]) * inverse[k, axis]
                jump = np.rint(jump)
                if jump != 0.0:
                    if not abs(jump) < FARTHEST:
                        return False
                    for k in range(3):
                        out[a, k] -= jump * box[axis, k]
        distance = 0.0
        for k in range(3):
            distance += (out[a, k] - reference[a, k]) ** 2
        if not distance <= allowed * allowed:
            return False
    return True


@njit(cache=True, nogil=True, inline="always")
def _count(i: int, points: Any, start: Any, senders: Any, translations: Any, r_max: float) -> Any:
    near = senders[start[i] : start[i + 1]]
    by = translations[start[i] : start[i + 1]]
    number = np.int64(0)
    for c in range(len(near)):
        j = np.uintp(near[c])  # unsigned: no question whether to count from the end
        x = points[j, 0] + by[c, 0] - points[i, 0]
        y = points[j, 1] + by[c, 1] - points[i, 1]
        z = points[j, 2] + by[c, 2] - points[i, 2]
        number += x * x + y * y + z * z < r_max * r_max
    return number


@njit(cache=True, nogil=True, inline="always")
def _fill(
    i: int, points: Any, start: Any, senders: Any, translations: Any, r_max: float,
    first: Any, vectors: Any, receivers: Any, chosen: Any,
) -> None:  # fmt: skip
    near = senders[start[i] : start[i + 1]]
    by = translations[start[i] : start[i + 1]]
    e, end = np.uintp(first[i]), np.uintp(first[i + 1])
    for c in range(len(near)):
        if e == end:
            break
        # what is too far is overwritten by the next one: no branch that cannot be predicted
        j = np.uintp(near[c])
        x = points[j, 0] + by[c, 0] - points[i, 0]
        y = points[j, 1] + by[c, 1] - points[i, 1]
        z = points[j, 2] + by[c, 2] - points[i, 2]
        vectors[e, 0], vectors[e, 1], vectors[e, 2] = x, y, z
        receivers[e] = i
        chosen[e] = near[c]
        e += np.uintp(x * x + y * y + z * z < r_max * r_max)


@njit(cache=True, nogil=True)
def _select(points: Any, start: Any, senders: Any, translations: Any, r_max: float) -> Any:
    n = len(points)
    first = np.zeros(n + 1, np.int64)
    for i in range(n):
        first[i + 1] = first[i] + _count(i, points, start, senders, translations, r_max)
    vectors = np.empty((first[n], 3))
    receivers, chosen = np.empty(first[n], np.int64), np.empty(first[n], np.int64)
    for i in range(n):
        _fill(i, points, start, senders, translations, r_max, first, vectors, receivers, chosen)
    return vectors, receivers, chosen, np.arange(first[n]), first, *_sort_by(chosen, n)


@kernel()
def _select_parallel(points: Any, start: Any, senders: Any, translations: Any, r_max: float) -> Any:
    n = len(points)
    first = np.zeros(n + 1, np.int64)
    for i in prange(n):
        first[i + 1] = _count(i, points, start, senders, translations, r_max)
    for i in range(n):
        first[i + 1] += first[i]
    vectors = np.empty((first[n], 3))
    receivers, chosen = np.empty(first[n], np.int64), np.empty(first[n], np.int64)
    for i in prange(n):
        _fill(i, points, start, senders, translations, r_max, first, vectors, receivers, chosen)
    return vectors, receivers, chosen, np.arange(first[n]), first, *_sort_by(chosen, n)


@njit(cache=True, nogil=True)
def _forces(gradient: Any, receivers: Any, senders: Any, num_atoms: int) -> Any:
    forces = np.zeros((num_atoms, 3))
    for e in range(len(gradient)):
        i, j = np.uintp(receivers[e]), np.uintp(senders[e])
        for k in range(3):
            forces[i, k] += gradient[e, k]
            forces[j, k] -= gradient[e, k]
    return forces
