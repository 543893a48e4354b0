"""Neighbour lists that last for many steps (Verlet 1967): of a few more pairs than are needed."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data.neighbors import check_extent, neighbor_list
from ..errors import InputError
from ..kernels.edges import Edges, sum_onto_atoms

#: Å. A hydrogen at room temperature needs tens of femtoseconds for half of it, so that building the
#: list costs less per step than going through the additional pairs.
SKIN = 0.7

_ALL_PAIRS = 64  # atoms; up to here looking at every pair is cheaper than choosing some
FARTHEST = 1e8  # Å, a centimetre; who is there has left


class Neighbors(NamedTuple):
    """All pairs within the cutoff, both directions, sorted by receiver and then by sender.

    Attributes
    ----------
    vectors
        From receiver to sender, Å, shape ``[E, 3]``, float64.
    edges
        Their atoms.
    """

    vectors: Tensor
    edges: Edges


class VerletList(ABC):
    """Finds neighbours among candidates: pairs that were within cutoff and skin at some time.

    While no atom has moved by more than half the skin since then, no other pair can have come
    within the cutoff. In a box that has changed from h0 to h (rows are vectors) the candidates
    are those of the atoms carried along, ``r0 F`` with ``F = h0⁻¹ h``, displacements d count from
    there, and the list holds as long as ``(r_max + 2 max|d|) / σ_min(F) <= r_max + skin`` with
    the smallest singular value of F. Atoms that jump by a lattice vector are followed.

    Parameters
    ----------
    r_max
        Cutoff, Å.

    Attributes
    ----------
    builds : int
        How often candidates have been collected.
    """

    def __init__(self, r_max: float):
        self.r_max = r_max
        self.builds = 0
        self._kind: tuple[Any, ...] = ()
        self._bounded = True  # whether the candidates can become too few
        self._built_box = self._box = self._inverse = np.eye(3)
        self._periodic = np.zeros(3, bool)
        self._allowed = 0.0  # Å, by which an atom may have moved

    def update(
        self,
        positions: Tensor,
        box: np.ndarray | None = None,
        periodic: tuple[bool, bool, bool] = (True, True, True),
    ) -> Neighbors:
        """Return the neighbours of atoms at these positions.

        Parameters
        ----------
        positions
            Å, shape ``[N, 3]``, float64, inside the box or not.
        box
            Lattice vectors as rows, Å, shape ``[3, 3]``, float64; `None` for no box.
        periodic
            Along which of them the box repeats.

        Raises
        ------
        InputError
            A coordinate is not finite, or one of an atom that has left a slab or wire.
        """
        if box is None:
            box, periodic = np.eye(3), (False, False, False)
        kind = (len(positions), positions.device, periodic)
        if kind == self._kind and (box != self._box).any():
            self._change(box)
        if kind != self._kind or self._allowed <= 0 or not self._follow(positions):
            _check_finite(positions)
            self._kind = ()  # until there is a list
            self._periodic = np.array(periodic)
            self._bounded = any(periodic) or len(positions) > _ALL_PAIRS
            self._built_box = box.copy()
            if any(periodic):
                if not all(periodic):
                    check_extent(positions.cpu().numpy(), box, periodic)
                self._search(positions)
            else:
                pairs = self._free_pairs(positions)
                self._take(positions, pairs, np.zeros((len(pairs), 3), np.int32))
            self.builds += 1
            self._kind = kind
            self._change(box)
            self._follow(positions)
        return self._select()

    def _change(self, box: np.ndarray) -> None:
        """Carry the candidates along with the box."""
        self._box, self._inverse = box.copy(), np.linalg.inv(box)
        stretch = np.linalg.solve(self._built_box, box)
        smallest = np.linalg.svd(stretch, compute_uv=False)[-1]
        self._allowed = ((self.r_max + SKIN) * smallest - self.r_max) / 2
        if not self._bounded:
            self._allowed = FARTHEST
        self._carry(stretch)

    def _free_pairs(self, positions: Tensor) -> np.ndarray:
        """Return candidates that see no images."""
        if self._bounded:
            none = (False, False, False)
            edges, _ = neighbor_list(positions.cpu().numpy(), None, none, self.r_max + SKIN)
            return np.ascontiguousarray(edges.T)
        pairs = np.stack(np.triu_indices(len(positions), 1), axis=1)
        return np.concatenate([pairs, pairs[:, ::-1]])

    @abstractmethod
    def _search(self, positions: Tensor) -> None:
        """Find and take candidates in `_built_box`."""

    @abstractmethod
    def _take(self, positions: Tensor, pairs: Any, shifts: Any) -> None:
        """Keep candidates, ``[C, 2]``, and their lattice translations, ``[C, 3]``, sorted."""

    @abstractmethod
    def _carry(self, stretch: np.ndarray) -> None:
        """Move the reference positions with the box and compute its translations."""

    @abstractmethod
    def _follow(self, positions: Tensor) -> bool:
        """Take new positions; return whether no atom is further than allowed (NaN is)."""

    @abstractmethod
    def _select(self) -> Neighbors:
        """Return the candidates within the cutoff."""

    @abstractmethod
    def forces(self, gradient: Tensor, edges: Edges) -> Tensor:
        """Do what `kernels.edges.sum_onto_atoms` does."""


class TorchVerletList(VerletList):
    """A list in PyTorch, on any device that has float64."""

    def _search(self, positions: Tensor) -> None:
        from vesin_torch import NeighborList

        box = torch.tensor(self._built_box, device=positions.device)
        periodic = torch.tensor(self._periodic, device=positions.device)
        found = NeighborList(self.r_max + SKIN, True).compute(positions, box, periodic, "PS")
        self._take(positions, *found)

    def _take(self, positions: Tensor, pairs: Any, shifts: Any) -> None:
        i, j = torch.as_tensor(pairs, device=positions.device).to(torch.int64).unbind(1)
        order = torch.argsort(i * len(positions) + j, stable=True)
        self._i, self._j = i[order], j[order]
        shifts = torch.as_tensor(shifts, device=positions.device)
        self._shifts = shifts.to(torch.float64)[order]
        self._built = positions.clone()

    def _carry(self, stretch: np.ndarray) -> None:
        def tensor(array: np.ndarray) -> Tensor:
            return torch.tensor(array, dtype=torch.float64, device=self._built.device)

        self._reference = self._built @ tensor(stretch)
        self._translations = self._shifts @ tensor(self._box)
        self._lattice = tensor(self._box), tensor(self._inverse), tensor(self._periodic)

    def _follow(self, positions: Tensor) -> bool:
        moved = positions - self._reference
        box, inverse, periodic = self._lattice
        jumps = torch.round(moved @ inverse) * periodic
        translations = jumps @ box
        self._points = positions - translations
        near = (moved - translations).square().sum(1) <= self._allowed**2
        return bool((near & (jumps.abs() < FARTHEST).all(1)).all())

    def _select(self) -> Neighbors:
        vectors = self._points[self._j] + self._translations - self._points[self._i]
        near = vectors.square().sum(1) < self.r_max**2
        edge_index = torch.stack([self._i[near], self._j[near]])
        return Neighbors(vectors[near], Edges.of(edge_index, len(self._points)))

    def forces(self, gradient: Tensor, edges: Edges) -> Tensor:
        """See `VerletList.forces`."""
        return sum_onto_atoms(gradient, edges)


def verlet_list(r_max: float, device: torch.device | str) -> VerletList:
    """Return a list for positions on this device.

    Parameters
    ----------
    r_max
        Cutoff, Å.
    device
        CPU or CUDA.
    """
    if torch.device(device).type == "cpu":
        from .verlet_numba import NumbaVerletList

        return NumbaVerletList(r_max)
    return TorchVerletList(r_max)


def _check_finite(positions: Tensor) -> None:
    good = (positions.abs() < FARTHEST).all(1)
    if not good.all():
        atom = int(good.int().argmin())
        raise InputError(f"position of atom {atom} is not finite: {positions[atom].tolist()}")
