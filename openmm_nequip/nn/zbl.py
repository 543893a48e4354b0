"""Screened nuclear repulsion, so that atoms cannot fall into each other outside the data."""

import math

import torch
from torch import Tensor, nn

from .radial import PolynomialCutoff

# Ziegler, Biersack & Littmark (1985): universal screening function; lengths in Å, energies in eV.
_COULOMB = 14.399645  # e²/(4πε₀), eV·Å
_LENGTH = 0.46850
_POWER = 0.23
_AMPLITUDES = (0.02817, 0.28022, 0.50986, 0.18175)
_DECAYS = (0.20162, 0.40290, 0.94229, 3.19980)


class ZBL(nn.Module):
    """Half the Ziegler-Biersack-Littmark repulsion per directed edge, times the envelope.

    The envelope has p = 6 whatever the network's, as in NequIP's default.

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
        amplitudes = torch.tensor(_AMPLITUDES, dtype=torch.float64)
        decays = torch.tensor(_DECAYS, dtype=torch.float64)
        self.register_buffer("amplitudes", amplitudes, persistent=False)
        self.register_buffer("decays", decays, persistent=False)
        self.cutoff = PolynomialCutoff(6.0)

    def forward(self, r: Tensor, x: Tensor, types_i: Tensor, types_j: Tensor) -> Tensor:
        """Return the energy of each edge, eV, shape ``[E]``; `x` is r over the pair's cutoff."""
        scaled = (self.inverse_lengths[types_i] + self.inverse_lengths[types_j]) * r
        screening = torch.exp(-scaled.unsqueeze(1) * self.decays) @ self.amplitudes
        coulomb = self.charges[types_i] * self.charges[types_j] / r
        return coulomb * screening * self.cutoff(x)
