"""Equivariant linear maps: they mix channels of the same irrep only (Schur's lemma)."""

import math

import torch
from e3nn.o3 import Irreps
from torch import Tensor, nn


def blocks(irreps: Irreps) -> list[tuple[int, int, int]]:
    """Return (start, 2l+1, mul) of every irrep's block in the flat feature tensor."""
    return [(s.start, ir.dim, mul) for s, (mul, ir) in zip(irreps.slices(), irreps, strict=True)]


class EquivariantLinear(nn.Module):
    """Linear map within each irrep, normalised by the square root of the fan-in.

    Every irrep may occur once on either side; an output irrep that the input lacks is an error.
    The weight is flat: for each output irrep in order, ``[mul_in, mul_out]``.
    """

    def __init__(self, irreps_in: Irreps, irreps_out: Irreps):
        super().__init__()
        self.irreps_in, self.irreps_out = Irreps(irreps_in), Irreps(irreps_out)
        source = {ir: block for (_, ir), block in zip(irreps_in, blocks(irreps_in), strict=True)}
        #: (start of the input block, 2l+1, mul_in, mul_out, start of the weight)
        self.paths: list[tuple[int, int, int, int, int]] = []
        numel = 0
        for mul_out, ir in irreps_out:
            start, dim, mul_in = source[ir]
            self.paths.append((start, dim, mul_in, mul_out, numel))
            numel += mul_in * mul_out
        self.weight = nn.Parameter(torch.randn(numel))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, irreps_in.dim]`` to ``[N, irreps_out.dim]``."""
        n = x.shape[0]
        out: list[Tensor] = []
        for start, dim, mul_in, mul_out, w in self.paths:
            weight = self.weight[w : w + mul_in * mul_out].view(mul_in, mul_out)
            block = x[:, start : start + dim * mul_in].reshape(n * dim, mul_in)
            out.append((block @ (weight * (1.0 / math.sqrt(mul_in)))).view(n, dim * mul_out))
        return torch.cat(out, dim=1)

    def extra_repr(self) -> str:
        """Print irreps in -> out."""
        return f"{self.irreps_in} -> {self.irreps_out}"


class SelfConnection(nn.Module):
    """Linear map of an atom's features whose weights depend on its type (bilinear in h and a).

    ``out_o = Σ_uv W[u, v, o] h_u a_v / √(mul_in · dim a)`` for every irrep of the output that the
    input has; the others are zero. The weight is flat: for each such irrep ``[mul_in, dim a,
    mul_out]``.
    """

    def __init__(self, irreps_in: Irreps, num_attributes: int, irreps_out: Irreps):
        super().__init__()
        self.irreps_in, self.irreps_out = Irreps(irreps_in), Irreps(irreps_out)
        self.num_attributes = num_attributes
        source = {ir: block for (_, ir), block in zip(irreps_in, blocks(irreps_in), strict=True)}
        #: (start of the input block or -1, 2l+1, mul_in, mul_out, start of the weight)
        self.paths: list[tuple[int, int, int, int, int]] = []
        numel = 0
        for mul_out, ir in irreps_out:
            start, dim, mul_in = source.get(ir, (-1, ir.dim, 0))
            self.paths.append((start, dim, mul_in, mul_out, numel))
            numel += mul_in * num_attributes * mul_out
        self.weight = nn.Parameter(torch.randn(numel))

    def forward(self, x: Tensor, type_attributes: Tensor, types: Tensor) -> Tensor:
        """Map ``[N, irreps_in.dim]`` to ``[N, irreps_out.dim]``.

        `type_attributes` holds the embedding of every type, shape ``[T, dim a]``: contracted with
        the weights first, it leaves one small matrix per type.
        """
        n, v = x.shape[0], self.num_attributes
        out: list[Tensor] = []
        for start, dim, mul_in, mul_out, w in self.paths:
            if mul_in == 0:
                out.append(torch.zeros(n, dim * mul_out, dtype=x.dtype, device=x.device))
                continue
            weight = self.weight[w : w + mul_in * v * mul_out].view(mul_in, v, mul_out)
            per_type = torch.einsum("tv,uvo->tuo", type_attributes, weight)
            per_type = per_type * (1.0 / math.sqrt(mul_in * v))
            block = x[:, start : start + dim * mul_in].reshape(n, dim, mul_in)
            out.append(torch.bmm(block, per_type[types]).view(n, dim * mul_out))
        return torch.cat(out, dim=1)

    def extra_repr(self) -> str:
        """Print irreps in -> out."""
        return f"{self.irreps_in} x {self.num_attributes}x0e -> {self.irreps_out}"
