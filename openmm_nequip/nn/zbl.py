"""Screened nuclear repulsion, so that atoms cannot fall into each other outside the data."""

import math

import torch
from torch import Tensor, nn

# Ziegler, Biersack & Littmark (1985): universal screening function; lengths in Å, energies in eV.
_COULOMB = 14.399645  # e²/(4πε₀), eV·Å
_LENGTH = 0.46850
_POWER = 0.23
_AMPLITUDES = (0.02817, 0.28022, 0.50986, 0.18175)
_DECAYS = (0.20162, 0.40290, 0.94229, 3.19980)


class ZBL(nn.Module):
    """Half the Ziegler-Biersack-Littmark repulsion per directed edge.

    Parameters
    ----------
    atomic_numbers
        Of each type, shape ``[T]``.
    """

    charges: Tensor
    inverse_lengths: Tensor
    amplitudes: Tensor
    decays: Tensor

    def __init__(self, atomic_numbers: list[int]):
        super().__init__()
        z = torch.tensor(atomic_numbers, dtype=torch.float64)
        # half of e²/(4πε₀) Z_i Z_j to each direction of the pair; inverse screening lengths
        self.register_buffer("charges", z * math.sqrt(0.5 * _COULOMB), persistent=False)
        self.register_buffer("inverse_lengths", z.pow(_POWER) / _LENGTH, persistent=False)
        self.register_buffer("amplitudes", torch.tensor(_AMPLITUDES).double(), persistent=False)
        self.register_buffer("decays", torch.tensor(_DECAYS).double(), persistent=False)

    def forward(self, r: Tensor, types_i: Tensor, types_j: Tensor) -> Tensor:
        """Return the energy of each edge, eV, shape ``[E]``, before any cutoff."""
        x = (self.inverse_lengths[types_i] + self.inverse_lengths[types_j]) * r
        screening = torch.exp(-x.unsqueeze(1) * self.decays) @ self.amplitudes
        return self.charges[types_i] * self.charges[types_j] / r * screening
