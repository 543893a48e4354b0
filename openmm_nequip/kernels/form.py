"""The trilinear form that all kernels are generated from.

    out_i[p, mo, u] = Σ_{j→i} w_ij[p, u] Σ_{mi, me} C_p[mi, me, mo] x_j[mi, u] Y_ij[me]

It is linear in the features x, the weights w and the harmonics Y. So its derivative with respect to
any of them is a form with the same coefficients, and so are all further derivatives.
"""

import math
from functools import cache
from typing import NamedTuple

import torch
from e3nn.o3 import Irreps, wigner_3j

from ..nn.convolution import Convolution


class Path(NamedTuple):
    """One coupling p of an input irrep with a harmonic.

    Component m of channel u lies at ``x_start + m * mul + u`` of the features, at
    ``out_start + m * out_stride + u`` of the result; the weight of the channel at
    ``w_start + u``, component m of the harmonic at ``y_start + m``.

    Attributes
    ----------
    coefficients
        The non-zero ones as (mi, me, mo, value), normalised as in `nn.convolution`.
    """

    mul: int
    x_start: int
    x_dim: int
    y_start: int
    y_dim: int
    w_start: int
    out_start: int
    out_stride: int
    out_dim: int
    coefficients: tuple[tuple[int, int, int, float], ...]


class Form(NamedTuple):
    """The whole form, with the lengths of a row of x, Y, w and the result.

    Attributes
    ----------
    key
        ``"irreps in|irreps of the harmonics|irreps out"``: what `form` builds it from.
    paths
        Ordered by input irrep, harmonic, output irrep, as are the weights.
    """

    key: str
    x_dim: int
    y_dim: int
    w_dim: int
    out_dim: int
    paths: tuple[Path, ...]


def form_key(convolution: Convolution) -> str:
    """Return what `form` needs to build the form of a convolution."""
    irreps = (convolution.irreps_in, convolution.irreps_edge, convolution.irreps_out)
    return "|".join(map(str, irreps))


@cache
def form(key: str) -> Form:
    """Build the form of a convolution from its key; see `form_key`."""
    convolution = Convolution(*map(Irreps, key.split("|")))
    blocks = {
        ir: (block.start, mul)
        for block, (mul, ir) in zip(
            convolution.irreps_out.slices(), convolution.irreps_out, strict=True
        )
    }
    used = dict.fromkeys(blocks, 0)
    paths = []
    w_start = 0
    for path in convolution.paths:
        ir_in, ir_edge = (
            convolution.irreps_in[path.i_in].ir,
            convolution.irreps_edge[path.i_edge].ir,
        )
        start, stride = blocks[path.ir_out]
        paths.append(
            Path(
                mul=path.mul,
                x_start=convolution.irreps_in.slices()[path.i_in].start,
                x_dim=ir_in.dim,
                y_start=convolution.irreps_edge.slices()[path.i_edge].start,
                y_dim=ir_edge.dim,
                w_start=w_start,
                out_start=start + used[path.ir_out],
                out_stride=stride,
                out_dim=path.ir_out.dim,
                coefficients=_coefficients(ir_in.l, ir_edge.l, path.ir_out.l),
            )
        )
        used[path.ir_out] += path.mul
        w_start += path.mul
    dims = (convolution.irreps_in.dim, convolution.irreps_edge.dim, w_start)
    return Form(key, *dims, convolution.irreps_out.dim, tuple(paths))


@cache
def _coefficients(l_in: int, l_edge: int, l_out: int) -> tuple[tuple[int, int, int, float], ...]:
    c = wigner_3j(l_in, l_edge, l_out, dtype=torch.float64) * math.sqrt(2 * l_out + 1)
    return tuple(
        (mi, me, mo, float(c[mi, me, mo])) for mi, me, mo in c.abs().gt(1e-9).nonzero().tolist()
    )
