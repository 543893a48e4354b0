"""Radial part: Bessel functions under a smooth cutoff, and the multilayer perceptron on them."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn


class PolynomialCutoff(nn.Module):
    """Envelope that falls from 1 to 0 with two continuous derivatives at x = 1.

    Gasteiger et al., "Directional message passing for molecular graphs", ICLR 2020, eq. 8.
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = float(p)

    def forward(self, x: Tensor) -> Tensor:
        """Evaluate at ``x = r / r_max``; zero for x >= 1."""
        p = self.p
        xp = x.pow(p)
        u = 1.0 - xp * (
            (p + 1.0) * (p + 2.0) / 2.0 - x * (p * (p + 2.0) - x * (p * (p + 1.0) / 2.0))
        )
        return u * (x < 1.0)


class BesselBasis(nn.Module):
    """``b_n(r) = 2/r_max · sin(nπx)/r · u(x)``, x = r/r_max: NequIP's radial basis (eq. 8).

    Parameters
    ----------
    r_max
        Cutoff, Å.
    num_bessels
        Number of functions.
    trainable
        Whether the frequencies n are optimised.
    polynomial_cutoff_p
        Exponent of the envelope.
    """

    def __init__(self, r_max: float, num_bessels: int, trainable: bool, polynomial_cutoff_p: float):
        super().__init__()
        self.prefactor = 2.0 * math.pi / r_max**2
        self.cutoff = PolynomialCutoff(polynomial_cutoff_p)
        frequencies = torch.arange(1, num_bessels + 1, dtype=torch.float64)
        self.frequencies = nn.Parameter(frequencies, requires_grad=trainable)

    def forward(self, x: Tensor) -> Tensor:
        """Map scaled distances ``[E]`` to ``[E, num_bessels]``."""
        nx = x.unsqueeze(1) * self.frequencies
        # sin(nπx)/(πx) = n·sinc(nx), finite at x = 0
        return torch.sinc(nx) * self.frequencies * self.prefactor * self.cutoff(x).unsqueeze(1)


class ScaledDistance(nn.Module):
    """Distance over cutoff, x = r/r_max, with a cutoff for each ordered pair of types if given.

    Parameters
    ----------
    cutoffs
        Å, shape ``[T, T]``: receiving type, sending type.
    """

    inverse_cutoffs: Tensor

    def __init__(self, cutoffs: Tensor):
        super().__init__()
        self.num_types = cutoffs.shape[0]
        self.uniform = bool((cutoffs == cutoffs[0, 0]).all())
        self.register_buffer("inverse_cutoffs", cutoffs.reciprocal().flatten(), persistent=False)

    def forward(self, r: Tensor, types_i: Tensor, types_j: Tensor) -> Tensor:
        """Return x, shape ``[E]``."""
        if self.uniform:
            return r * self.inverse_cutoffs[0]
        return r * self.inverse_cutoffs[types_i * self.num_types + types_j]


class ScalarMLP(nn.Module):
    """Perceptron without biases whose weights have unit variance and are scaled when applied.

    Without biases, zero in gives zero out: an atom without neighbours gets no message.

    Parameters
    ----------
    dims
        Widths of the layers, input and output included.
    nonlinearity
        ``'silu'``, ``'mish'`` or ``'gelu'`` between layers, or `None`.
    """

    def __init__(self, dims: list[int], nonlinearity: str | None = "silu"):
        super().__init__()
        activations = {"silu": nn.SiLU, "mish": nn.Mish, "gelu": nn.GELU, None: nn.Identity}
        self.activation = activations[nonlinearity]()
        self.layers = nn.ModuleList()
        for k, (fan_in, fan_out) in enumerate(pairwise(dims)):
            gain = math.sqrt(2.0) if k > 0 and nonlinearity is not None else 1.0
            self.layers.append(_ScaledLinear(fan_in, fan_out, gain / math.sqrt(fan_in)))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[..., dims[0]]`` to ``[..., dims[-1]]``."""
        for k, layer in enumerate(self.layers):
            if k > 0:
                x = self.activation(x)
            x = layer(x)
        return x


class _ScaledLinear(nn.Module):
    def __init__(self, fan_in: int, fan_out: int, scale: float):
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(fan_in, fan_out))
        nn.init.uniform_(self.weight, -math.sqrt(3.0), math.sqrt(3.0))

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.weight * self.scale)
