"""The one graph type that every part of the package speaks."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Graph(NamedTuple):
    """Atoms and their neighbours, of one structure or of a batch of G structures.

    Edge ``i <- j``: ``edge_index[0]`` is the receiving (centre) atom i, ``edge_index[1]`` the
    sending atom j, and ``r_ij = positions[j] - positions[i] + shifts @ cell``. Both directions of
    every pair are present.

    Attributes
    ----------
    positions
        Å, shape ``[N, 3]``, float64 by convention.
    types
        Index of each atom's type in the potential's `type_names`, shape ``[N]``, int64.
    edge_index
        Shape ``[2, E]``, int64.
    shifts
        Lattice translations of the sending atom as whole numbers, shape ``[E, 3]``, in the dtype
        of the positions.
    cell
        Lattice vectors as rows, Å, shape ``[G, 3, 3]``; zero where a structure is not periodic.
    batch
        Structure to which each atom belongs, shape ``[N]``, int64.
    """

    positions: Tensor
    types: Tensor
    edge_index: Tensor
    shifts: Tensor
    cell: Tensor
    batch: Tensor

    def to(self, device: torch.device | str) -> "Graph":
        """Return the graph with every tensor on `device`."""
        return Graph(*(tensor.to(device) for tensor in self))


def collate(graphs: Sequence[Graph]) -> Graph:
    """Join graphs into one batch of disconnected structures."""
    atoms = torch.tensor([0] + [len(graph.types) for graph in graphs])
    structures = torch.tensor([0] + [len(graph.cell) for graph in graphs])
    first_atom = atoms.cumsum(0).tolist()
    first_structure = structures.cumsum(0).tolist()
    return Graph(
        positions=torch.cat([g.positions for g in graphs]),
        types=torch.cat([g.types for g in graphs]),
        edge_index=torch.cat(
            [g.edge_index + n for g, n in zip(graphs, first_atom, strict=False)], dim=1
        ),
        shifts=torch.cat([g.shifts for g in graphs]),
        cell=torch.cat([g.cell for g in graphs]),
        batch=torch.cat([g.batch + n for g, n in zip(graphs, first_structure, strict=False)]),
    )
