"""The edges of a graph in the order of their receivers and of their senders."""

from typing import NamedTuple

import torch
from torch import Tensor


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
        """Sort the edges of a graph, ``[2, E]``: receiving, sending atom; any order will do."""
        receivers, senders = edge_index[0].contiguous(), edge_index[1].contiguous()
        return cls(receivers, senders, *_sort(receivers, num_atoms), *_sort(senders, num_atoms))


def _sort(atoms: Tensor, num_atoms: int) -> tuple[Tensor, Tensor]:
    order = torch.argsort(atoms, stable=True)
    start = torch.searchsorted(atoms[order], torch.arange(num_atoms + 1, device=atoms.device))
    return order, start
