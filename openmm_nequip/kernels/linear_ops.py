"""Linear maps within irreps as single operations, for training on the CPU; see `nn.linear`.

    T(x, W, g) = Σ_n Σ_p Σ_m Σ_uv g[n, p, m, v] W[t_n, p, u, v] x[n, p, m, u]

over atoms n of type t_n, irreps p, components m and channels u, v. `_Map`, `_Transpose` and
`_Outer` are its derivatives by g, x and W, so every derivative of one of them is one of them again.
What this saves over `nn.linear` is autograd's bookkeeping of every block, three times over where
forces are trained. On a GPU linear maps are those of `nn.linear`.
"""

import math
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..nn.linear import EquivariantLinear, SelfConnection
from .autograd import needed


class Block(NamedTuple):
    """What one irrep's channels map to: slices of rows of x, of the result and of W."""

    x: slice
    out: slice
    weight: slice
    mul_in: int
    mul_out: int
    scale: float


class Plan(NamedTuple):
    """All blocks, and the lengths of rows of x, of the result and of W.

    W is flat: for each block ``[mul_in, T, mul_out]``.
    """

    blocks: tuple[Block, ...]
    dims: tuple[int, int, int]


class ByType(NamedTuple):
    """Atoms sorted by type.

    Attributes
    ----------
    order, inverse
        Atoms by type, and where each of them is in that order, shape ``[N]``.
    parts
        The atoms of each type in that order.
    """

    order: Tensor
    inverse: Tensor
    parts: tuple[slice, ...]

    @classmethod
    def of(cls, types: Tensor, num_types: int) -> "ByType":
        """Sort the atoms; the host waits for the numbers of atoms."""
        order = torch.argsort(types, stable=True)
        ends = [0, *torch.bincount(types, minlength=num_types).cumsum(0).tolist()]
        return cls(order, torch.argsort(order), tuple(map(slice, ends[:-1], ends[1:])))


def linear(module: EquivariantLinear, x: Tensor) -> Tensor:
    """Do what `module` does."""
    if x.device.type != "cpu":
        return module(x)
    plan = _plan(tuple(module.paths), module.irreps_in.dim, 1)
    return _Map.apply(x, module.weight, plan, None)


def self_connection(
    module: SelfConnection,
    x: Tensor,
    type_attributes: Tensor,
    types: Tensor,
    by_type: ByType | None,
) -> Tensor:
    """Do what `module` does; without `by_type` in its way, for which no numbers must be known."""
    if by_type is None:
        return module(x, type_attributes, types)
    v = module.num_attributes
    # [mul_in, v, mul_out] -> [mul_in, T, mul_out], irreps of equal mul_out at once
    widths = [
        (mul_out, sum(mul_in for _, _, mul_in, _, _ in group))
        for mul_out, group in groupby(module.paths, key=lambda path: path[3])
    ]
    parts = module.weight.split([mul_in * v * mul_out for mul_out, mul_in in widths])
    weights = [
        torch.matmul(type_attributes, part.view(mul_in, v, mul_out)).flatten()
        for part, (mul_out, mul_in) in zip(parts, widths, strict=True)
    ]
    plan = _plan(tuple(module.paths), module.irreps_in.dim, v)
    return _Map.apply(x, torch.cat(weights), plan, by_type)


@cache
def _plan(paths: tuple[tuple[int, int, int, int, int], ...], in_dim: int, v: int) -> Plan:
    found = []
    o = w = 0
    for start, dim, mul_in, mul_out, _ in paths:
        if mul_in > 0:
            found.append(
                Block(
                    x=slice(start, start + dim * mul_in),
                    out=slice(o, o + dim * mul_out),
                    weight=slice(w, w + mul_in * mul_out),
                    mul_in=mul_in,
                    mul_out=mul_out,
                    scale=1.0 / math.sqrt(mul_in * v),
                )
            )
        o += dim * mul_out
        w += mul_in * mul_out
    return Plan(tuple(found), (in_dim, o, w))


def _parts(w: Tensor, plan: Plan, by_type: ByType | None) -> Iterator[tuple[slice, Block, Tensor]]:
    """Yield the atoms of each type with each block and its part of the weights."""
    atoms = (slice(None),) if by_type is None else by_type.parts
    for b in plan.blocks:
        start, stop = b.weight.start * len(atoms), b.weight.stop * len(atoms)
        weights = w[start:stop].view(b.mul_in, len(atoms), b.mul_out).unbind(1)
        for part, weight in zip(atoms, weights, strict=True):
            yield part, b, weight


def _sorted(x: Tensor, by_type: ByType | None) -> Tensor:
    return x if by_type is None else x[by_type.order]


def _unsorted(x: Tensor, by_type: ByType | None) -> Tensor:
    return x if by_type is None else x[by_type.inverse]


class _Map(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, plan: Plan, by_type: ByType | None) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.rest = plan, by_type
        x = _sorted(x, by_type)
        out = x.new_zeros(x.shape[0], plan.dims[1])
        for part, b, weight in _parts(w, plan, by_type):
            product = x[part, b.x].reshape(-1, b.mul_in) @ weight
            out[part, b.out] = product.mul_(b.scale).view(-1, b.out.stop - b.out.start)
        return _unsorted(out, by_type)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        x, w = ctx.saved_tensors
        by_x, by_w = needed(ctx)
        return (
            _Transpose.apply(g, w, *ctx.rest) if by_x else None,
            _Outer.apply(x, g, *ctx.rest) if by_w else None,
            None,
            None,
        )


class _Transpose(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, g: Tensor, w: Tensor, plan: Plan, by_type: ByType | None) -> Tensor:
        ctx.save_for_backward(g, w)
        ctx.rest = plan, by_type
        g = _sorted(g, by_type)
        out = g.new_zeros(g.shape[0], plan.dims[0])
        for part, b, weight in _parts(w, plan, by_type):
            product = g[part, b.out].reshape(-1, b.mul_out) @ weight.T
            out[part, b.x] = product.mul_(b.scale).view(-1, b.x.stop - b.x.start)
        return _unsorted(out, by_type)

    @staticmethod
    def backward(ctx: Any, x: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        g, w = ctx.saved_tensors
        by_g, by_w = needed(ctx)
        return (
            _Map.apply(x, w, *ctx.rest) if by_g else None,
            _Outer.apply(x, g, *ctx.rest) if by_w else None,
            None,
            None,
        )


class _Outer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, g: Tensor, plan: Plan, by_type: ByType | None) -> Tensor:
        ctx.save_for_backward(x, g)
        ctx.rest = plan, by_type
        x, g = _sorted(x, by_type), _sorted(g, by_type)
        out = x.new_empty(plan.dims[2] * (1 if by_type is None else len(by_type.parts)))
        for part, b, weight in _parts(out, plan, by_type):
            rows, columns = x[part, b.x].reshape(-1, b.mul_in), g[part, b.out]
            torch.mul(rows.T @ columns.reshape(-1, b.mul_out), b.scale, out=weight)
        return out

    @staticmethod
    def backward(ctx: Any, w: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        x, g = ctx.saved_tensors
        by_x, by_g = needed(ctx)
        return (
            _Transpose.apply(g, w, *ctx.rest) if by_x else None,
            _Map.apply(x, w, *ctx.rest) if by_g else None,
            None,
            None,
        )
