"""Gated nonlinearity: scalars pass an activation, other irreps are scaled by activated scalars."""

import torch
from e3nn.o3 import Irrep, Irreps
from torch import Tensor, nn

# Factors that keep the second moment of a normal variable at 1 (e3nn's "normalize2mom").
SILU_SCALE = 1.6791767923989418
TANH_SCALE = 1.5937334472592695


class Gate(nn.Module):
    """Even scalars: scaled SiLU; odd scalars: scaled tanh; the rest: times SiLU of its own gate.

    Parameters
    ----------
    irreps_out
        What is wanted after the gate, each irrep once.

    Attributes
    ----------
    irreps_in : Irreps
        What must be given: as `irreps_out`, with one even scalar more for every gated channel
        (behind the scalars that are kept); sorted as e3nn sorts.
    """

    def __init__(self, irreps_out: Irreps):
        super().__init__()
        self.irreps_out = Irreps(irreps_out)
        self.silu_scale, self.tanh_scale = SILU_SCALE, TANH_SCALE
        gates = sum(mul for mul, ir in self.irreps_out if ir.l > 0)
        needed = {ir: mul for mul, ir in self.irreps_out}
        even = Irrep("0e")
        self.num_even = needed.get(even, 0)
        if self.num_even + gates > 0:
            needed[even] = self.num_even + gates
        self.irreps_in = Irreps([(needed[ir], ir) for ir in sorted(needed)])
        start = {
            ir: s.start for s, (_, ir) in zip(self.irreps_in.slices(), self.irreps_in, strict=True)
        }
        self.even_start = start.get(even, 0)
        self.even_end = self.even_start + needed.get(even, 0)
        #: per output irrep: (start of its block in the input, 2l+1, mul, parity)
        self.blocks: list[tuple[int, int, int, int]] = [
            (start[ir], ir.dim, mul, ir.p) for mul, ir in self.irreps_out
        ]

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, irreps_in.dim]`` to ``[N, irreps_out.dim]``."""
        n = x.shape[0]
        even = self.silu_scale * torch.nn.functional.silu(x[:, self.even_start : self.even_end])
        gate = self.num_even
        out: list[Tensor] = []
        for start, dim, mul, parity in self.blocks:
            if dim > 1:
                block = x[:, start : start + dim * mul].reshape(n, dim, mul)
                out.append((block * even[:, gate : gate + mul].unsqueeze(1)).view(n, dim * mul))
                gate += mul
            elif parity == 1:
                out.append(even[:, : self.num_even])
            else:
                out.append(self.tanh_scale * torch.tanh(x[:, start : start + mul]))
        return torch.cat(out, dim=1)

    def extra_repr(self) -> str:
        """Print irreps in -> out."""
        return f"{self.irreps_in} -> {self.irreps_out}"
