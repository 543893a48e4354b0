"""The equivariant convolution: neighbours' features times harmonics times radial weights.

Batzner et al., Nat. Commun. 13, 2453 (2022), eq. 4, in the 'uvu' form: every channel of an input
irrep meets every harmonic, and each such path has its own radial weight per channel:

    out_i[p, mo, u] = √(2l_out+1) Σ_j w_ij[p, u] Σ_{mi, me} C_p[mi, me, mo] h_j[mi, u] Y_ij[me]
"""

import math
from typing import NamedTuple

import torch
from e3nn.o3 import Irrep, Irreps, wigner_3j
from torch import Tensor, nn

from .linear import blocks


class Path(NamedTuple):
    """One way of coupling an input irrep with a harmonic; `u` runs over the input's channels."""

    i_in: int
    i_edge: int
    ir_out: Irrep
    mul: int


def convolution_paths(irreps_in: Irreps, irreps_edge: Irreps, irreps_out: Irreps) -> list[Path]:
    """List the paths in the order of their weights: input irrep, harmonic, output irrep."""
    wanted = {ir for _, ir in irreps_out}
    return [
        Path(i, j, ir_out, mul)
        for i, (mul, ir_in) in enumerate(irreps_in)
        for j, (_, ir_edge) in enumerate(irreps_edge)
        for ir_out in ir_in * ir_edge
        if ir_out in wanted
    ]


class Convolution(nn.Module):
    """Sum over neighbours of ``w ⊗ h ⊗ Y``, in plain PyTorch.

    Parameters
    ----------
    irreps_in
        Features of the sending atom, each irrep once.
    irreps_edge
        Harmonics, ``1x0e+1x1o+...``.
    irreps_out
        Which irreps the result may contain.

    Attributes
    ----------
    irreps_out : Irreps
        Of the result: each irrep once, with the channels of all its paths in the paths' order;
        sorted as e3nn sorts (by l, odd before even).
    weight_numel : int
        Number of radial weights per edge.
    """

    def __init__(self, irreps_in: Irreps, irreps_edge: Irreps, irreps_out: Irreps):
        super().__init__()
        self.irreps_in, self.irreps_edge = Irreps(irreps_in), Irreps(irreps_edge)
        self.paths = convolution_paths(self.irreps_in, self.irreps_edge, Irreps(irreps_out))
        self.weight_numel = sum(path.mul for path in self.paths)

        self.inputs = nn.ModuleList()
        #: per input irrep: (start of its block, end, start of its weights, end)
        self.slices: list[tuple[int, int, int, int]] = []
        found: dict[Irrep, list[tuple[int, int, int]]] = {}
        channels: dict[Irrep, int] = {}
        w = 0
        for i, (start, dim, mul) in enumerate(blocks(self.irreps_in)):
            paths = [path for path in self.paths if path.i_in == i]
            if not paths:
                continue
            row = 0
            for path in paths:
                found.setdefault(path.ir_out, []).append((len(self.inputs), row, path.ir_out.dim))
                channels[path.ir_out] = channels.get(path.ir_out, 0) + mul
                row += path.ir_out.dim
            self.inputs.append(_InputIrrep(self.irreps_in[i].ir, mul, self.irreps_edge, paths))
            self.slices.append((start, start + dim * mul, w, w + len(paths) * mul))
            w += len(paths) * mul
        order = sorted(channels)
        self.irreps_out = Irreps([(channels[ir], ir) for ir in order])
        #: per output irrep, per path: (which of `inputs`, first row of its result, 2l_out+1)
        self.outputs: list[list[tuple[int, int, int]]] = [found[ir] for ir in order]

    def forward(self, h: Tensor, harmonics: Tensor, weights: Tensor, edge_index: Tensor) -> Tensor:
        """Convolve.

        Parameters
        ----------
        h
            Features, ``[N, irreps_in.dim]``.
        harmonics
            ``[E, irreps_edge.dim]``.
        weights
            ``[E, weight_numel]``.
        edge_index
            ``[2, E]``: receiving, sending atom.

        Returns
        -------
        Tensor
            ``[N, irreps_out.dim]``.
        """
        summed: list[Tensor] = []
        for k, module in enumerate(self.inputs):
            start, end, w_start, w_end = self.slices[k]
            summed.append(module(h[:, start:end], harmonics, weights[:, w_start:w_end], edge_index))
        out: list[Tensor] = []
        for paths in self.outputs:
            rows = [summed[k][:, row : row + dim] for k, row, dim in paths]
            out.append(torch.cat(rows, dim=2).flatten(1))
        return torch.cat(out, dim=1)

    def extra_repr(self) -> str:
        """Print irreps in -> out."""
        return (
            f"{self.irreps_in} x {self.irreps_edge} -> {self.irreps_out} "
            f"({len(self.paths)} paths, {self.weight_numel} weights)"
        )


class _InputIrrep(nn.Module):
    """All paths that start from one input irrep.

    Their coupling coefficients are contracted with the harmonics first; what remains is one
    batched matrix product over the edges, ``[rows, 2l+1] @ [2l+1, mul]``, where the rows run over
    the components of all the output irreps.
    """

    coupling: Tensor
    path_of_row: Tensor

    def __init__(self, ir_in: Irrep, mul: int, irreps_edge: Irreps, paths: list[Path]):
        super().__init__()
        self.mul, self.dim, self.num_paths = mul, ir_in.dim, len(paths)
        self.rows = sum(path.ir_out.dim for path in paths)
        coupling = torch.zeros(irreps_edge.dim, self.rows, self.dim, dtype=torch.float64)
        row = 0
        for path in paths:
            ir_edge, ir_out = irreps_edge[path.i_edge].ir, path.ir_out
            c = wigner_3j(ir_in.l, ir_edge.l, ir_out.l, dtype=torch.float64)
            coupling[irreps_edge.slices()[path.i_edge], row : row + ir_out.dim] = math.sqrt(
                ir_out.dim
            ) * c.permute(1, 2, 0)
            row += ir_out.dim
        self.register_buffer("coupling", coupling.flatten(1), persistent=False)
        path_of_row = [k for k, path in enumerate(paths) for _ in range(path.ir_out.dim)]
        self.register_buffer("path_of_row", torch.tensor(path_of_row), persistent=False)

    def forward(self, h: Tensor, harmonics: Tensor, weights: Tensor, edge_index: Tensor) -> Tensor:
        """Return the summed messages, ``[N, rows, mul]``."""
        num_edges = edge_index.shape[1]
        h_j = h[edge_index[1]].view(num_edges, self.dim, self.mul)
        coupling = (harmonics @ self.coupling).view(num_edges, self.rows, self.dim)
        w = weights.reshape(num_edges, self.num_paths, self.mul)[:, self.path_of_row]
        messages = torch.bmm(coupling, h_j) * w
        return torch.zeros(
            h.shape[0], self.rows, self.mul, dtype=h.dtype, device=h.device
        ).index_add(0, edge_index[0], messages)
