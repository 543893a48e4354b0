"""The operators of `ops` in plain PyTorch: for any device, and what the kernels are tested against.

The form T(x, y, w; g) = Σ g · out is linear in all four. `_out`, `_dx`, `_dy` and `_dw` are its
derivatives by one of them, as functions of the other three; every derivative of any order is a sum
of these.
"""

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor

from ..nn.spline import evaluate
from .edges import Edges
from .form import Path, form


def convolution(x: Tensor, y: Tensor, w: Tensor, edges: Edges, key: str) -> Tensor:
    """See `ops.convolution`."""
    return _out(x, y, w, edges, key)


def convolution_backward(
    g: Tensor, x: Tensor, y: Tensor, w: Tensor, edges: Edges, key: str
) -> tuple[Tensor, Tensor, Tensor]:
    """See `ops.convolution_backward`."""
    return _dx(g, y, w, edges, key), _dy(g, x, w, edges, key), _dw(g, x, y, edges, key)


def convolution_double_backward(
    ax: Tensor, ay: Tensor, aw: Tensor, g: Tensor, x: Tensor, y: Tensor, w: Tensor,
    edges: Edges, key: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """See `ops.convolution_double_backward`."""
    e = (edges, key)
    return (
        _out(ax, y, w, *e) + _out(x, ay, w, *e) + _out(x, y, aw, *e),
        _dx(g, ay, w, *e) + _dx(g, y, aw, *e),
        _dy(g, ax, w, *e) + _dy(g, x, aw, *e),
        _dw(g, ax, y, *e) + _dw(g, x, ay, *e),
    )


def radial_convolution(
    x: Tensor, y: Tensor, r: Tensor, coefficients: Tensor, edges: Edges, key: str
) -> Tensor:
    """See `ops.radial_convolution`."""
    return _out(x, y, evaluate(r, coefficients), edges, key)


def radial_convolution_backward(
    g: Tensor, x: Tensor, y: Tensor, r: Tensor, coefficients: Tensor, edges: Edges, key: str
) -> tuple[Tensor, Tensor, Tensor]:
    """See `ops.radial_convolution_backward`."""
    gx, gy, gw = convolution_backward(g, x, y, evaluate(r, coefficients), edges, key)
    return gx, gy, (gw * evaluate(r, coefficients, slope=True)).sum(dim=1)


def _out(x: Tensor, y: Tensor, w: Tensor, edges: Edges, key: str) -> Tensor:
    f = form(key)
    messages = x.new_zeros(len(edges.senders), f.out_dim)
    for path, c in _paths(key, x):
        coupling = torch.einsum("iao,ea->eio", c, _y(y, path))
        message = torch.einsum("eio,eiu,eu->eou", coupling, _x(x[edges.senders], path), _w(w, path))
        _add(messages, message, path.out_start, path.out_stride)
    return _sum(messages, edges.receivers, x.shape[0])


def _dx(g: Tensor, y: Tensor, w: Tensor, edges: Edges, key: str) -> Tensor:
    messages = g.new_zeros(len(edges.senders), form(key).x_dim)
    for path, c in _paths(key, g):
        coupling = torch.einsum("iao,ea->eio", c, _y(y, path))
        g_e = _g(g[edges.receivers], path)
        message = torch.einsum("eio,eou,eu->eiu", coupling, g_e, _w(w, path))
        _add(messages, message, path.x_start, path.mul)
    return _sum(messages, edges.senders, g.shape[0])


def _dy(g: Tensor, x: Tensor, w: Tensor, edges: Edges, key: str) -> Tensor:
    out = g.new_zeros(len(edges.senders), form(key).y_dim)
    for path, c in _paths(key, g):
        x_e, g_e = _x(x[edges.senders], path), _g(g[edges.receivers], path)
        products = torch.einsum("eiu,eou,eu->eio", x_e, g_e, _w(w, path))
        _y(out, path).add_(torch.einsum("iao,eio->ea", c, products))
    return out


def _dw(g: Tensor, x: Tensor, y: Tensor, edges: Edges, key: str) -> Tensor:
    out = g.new_zeros(len(edges.senders), form(key).w_dim)
    for path, c in _paths(key, g):
        coupling = torch.einsum("iao,ea->eio", c, _y(y, path))
        x_e, g_e = _x(x[edges.senders], path), _g(g[edges.receivers], path)
        _w(out, path).add_(torch.einsum("eio,eiu,eou->eu", coupling, x_e, g_e))
    return out


def _sum(messages: Tensor, atoms: Tensor, num_atoms: int) -> Tensor:
    return messages.new_zeros(num_atoms, messages.shape[1]).index_add(0, atoms, messages)


def _x(x: Tensor, path: Path) -> Tensor:
    block = x[:, path.x_start : path.x_start + path.x_dim * path.mul]
    return block.view(-1, path.x_dim, path.mul)


def _y(y: Tensor, path: Path) -> Tensor:
    return y[:, path.y_start : path.y_start + path.y_dim]


def _w(w: Tensor, path: Path) -> Tensor:
    return w[:, path.w_start : path.w_start + path.mul]


def _g(g: Tensor, path: Path) -> Tensor:
    size = (g.shape[0], path.out_dim, path.mul)
    return g.as_strided(
        size, (g.stride(0), path.out_stride, 1), g.storage_offset() + path.out_start
    )


def _add(total: Tensor, message: Tensor, start: int, stride: int) -> None:
    view = total.as_strided(message.shape, (total.stride(0), stride, 1), start)
    view.add_(message)


def _paths(key: str, like: Tensor) -> Iterator[tuple[Path, Tensor]]:
    return zip(form(key).paths, _coefficients(key, like.dtype, like.device), strict=True)


@lru_cache(maxsize=256)
def _coefficients(key: str, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    found = []
    for path in form(key).paths:
        c = torch.zeros(path.x_dim, path.y_dim, path.out_dim, dtype=torch.float64)
        for mi, me, mo, value in path.coefficients:
            c[mi, me, mo] = value
        found.append(c.to(device, dtype))
    return found
