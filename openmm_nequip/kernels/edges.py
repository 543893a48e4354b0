"""The edges of a graph in the order of their receivers and of their senders."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError


class Edges(NamedTuple):
    """Which edges every atom receives and sends over: sums without atomic operations.

    Attributes
    ----------
    receivers, senders
        Atom of each edge, shape ``[E]``, int64.
    by_receiver, by_sender
        Edges sorted by that atom, shape ``[E]``, int64.
    receiver_start, sender_start
        Where the edges of each atom begin in that order, shape ``[N + 1]``, int64.
    """

    receivers: Tensor
    senders: Tensor
    by_receiver: Tensor
    receiver_start: Tensor
    by_sender: Tensor
    sender_start: Tensor

    @classmethod
    def of(cls, edge_index: Tensor, num_atoms: int) -> "Edges":
        """Sort the edges of a graph, ``[2, E]``: receiving, sending atom; any order will do.

        Raises
        ------
        InputError
            An edge refers to an atom that does not exist (looked at on the CPU only: on a GPU
            the host would have to wait).
        """
        if edge_index.device.type == "cpu" and edge_index.numel():
            first, last = int(edge_index.min()), int(edge_index.max())
            if first < 0 or last >= num_atoms:
                wrong = first if first < 0 else last
                raise InputError(f"edge_index refers to atom {wrong}; there are {num_atoms} atoms")
        return cls.between(edge_index[0].contiguous(), edge_index[1].contiguous(), num_atoms)

    @classmethod
    def between(cls, receivers: Tensor, senders: Tensor, num_atoms: int) -> "Edges":
        """Sort edges between atoms that exist."""
        return cls(receivers, senders, *_sort(receivers, num_atoms), *_sort(senders, num_atoms))


def sum_onto_atoms(gradient: Tensor, edges: Edges) -> Tensor:
    """Return the forces, ``[N, 3]``, from the gradient by the edge vectors, ``[E, 3]``.

    They are its divergence: a vector grows with its sender and shrinks with its receiver. The order
    of summation is fixed, on a GPU too.
    """
    received, sent = (
        torch.segment_reduce(gradient[order], "sum", offsets=start, unsafe=True)
        for order, start in (
            (edges.by_receiver, edges.receiver_start),
            (edges.by_sender, edges.sender_start),
        )
    )
    return received - sent


def _sort(atoms: Tensor, num_atoms: int) -> tuple[Tensor, Tensor]:
    order = torch.argsort(atoms, stable=True)
    start = torch.searchsorted(atoms[order], torch.arange(num_atoms + 1, device=atoms.device))
    return order, start
