"""The operators of `ops` on the CPU, compiled by Numba."""

from functools import cache
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from .edges import Edges
from .form import form
from .generated import load
from .numba_source import source


def convolution(x: Tensor, y: Tensor, w: Tensor, edges: Edges, key: str) -> Tensor:
    """See `ops.convolution`."""
    out = x.new_empty(x.shape[0], form(key).out_dim)
    kernels(key, x.dtype).convolution(*_numpy(x, y, w), *_inward(edges), out.numpy())
    return out


def convolution_backward(
    g: Tensor, x: Tensor, y: Tensor, w: Tensor, edges: Edges, key: str
) -> tuple[Tensor, Tensor, Tensor]:
    """See `ops.convolution_backward`."""
    gx, gy, gw = torch.empty_like(x), torch.empty_like(y), torch.empty_like(w)
    k = kernels(key, x.dtype)
    k.by_receiver(*_numpy(g, x, y, w), *_inward(edges), gy.numpy(), gw.numpy())
    k.by_sender(*_numpy(g, y, w), *_outward(edges), gx.numpy())
    return gx, gy, gw


def convolution_double_backward(
    ax: Tensor, ay: Tensor, aw: Tensor, g: Tensor, x: Tensor, y: Tensor, w: Tensor,
    edges: Edges, key: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """See `ops.convolution_double_backward`."""
    gg, gx, gy, gw = (torch.empty_like(t) for t in (g, x, y, w))
    k = kernels(key, x.dtype)
    inputs = _numpy(ax, ay, aw, g, x, y, w)
    k.second_by_receiver(*inputs, *_inward(edges), gg.numpy(), gy.numpy(), gw.numpy())
    k.second_by_sender(*_numpy(ay, aw, g, y, w), *_outward(edges), gx.numpy())
    return gg, gx, gy, gw


def radial_convolution(
    x: Tensor, y: Tensor, r: Tensor, coefficients: Tensor, edges: Edges, key: str
) -> Tensor:
    """See `ops.radial_convolution`."""
    out = x.new_empty(x.shape[0], form(key).out_dim)
    k = kernels(key, x.dtype)
    k.radial_convolution(*_numpy(x, y, r, coefficients), *_inward(edges), out.numpy())
    return out


def radial_convolution_backward(
    g: Tensor, x: Tensor, y: Tensor, r: Tensor, coefficients: Tensor, edges: Edges, key: str
) -> tuple[Tensor, Tensor, Tensor]:
    """See `ops.radial_convolution_backward`."""
    gx, gy, gr = torch.empty_like(x), torch.empty_like(y), torch.empty_like(r)
    k = kernels(key, x.dtype)
    inputs = _numpy(g, x, y, r, coefficients)
    k.radial_by_receiver(*inputs, *_inward(edges), gy.numpy(), gr.numpy())
    k.radial_by_sender(*_numpy(g, y, r, coefficients), *_outward(edges), gx.numpy())
    return gx, gy, gr


@cache
def kernels(key: str, dtype: torch.dtype) -> ModuleType:
    """Return the module of a form's kernels, each of which is compiled when it is first called."""
    name = str(dtype).removeprefix("torch.")
    return load(f"convolution_{name}", source(form(key), name))


def _numpy(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.detach().numpy() for tensor in tensors]


def _inward(edges: Edges) -> list[np.ndarray]:
    return _numpy(edges.senders, edges.by_receiver, edges.receiver_start)


def _outward(edges: Edges) -> list[np.ndarray]:
    return _numpy(edges.receivers, edges.by_sender, edges.sender_start)
