"""The fused convolution as PyTorch operators: autograd, `torch.compile` and TorchScript know them.

The same five functions exist in every backend: Numba on CPU, Triton on CUDA, and plain PyTorch
where neither works. All are deterministic: no atomic operations, every sum in a fixed order.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from . import torch_backend
from .edges import Edges
from .form import form

_EDGES = (
    "Tensor receivers, Tensor senders, Tensor by_receiver, Tensor receiver_start, "
    "Tensor by_sender, Tensor sender_start, str key"
)
_library = torch.library.Library("openmm_nequip", "FRAGMENT")
for _schema in (
    f"convolution(Tensor x, Tensor y, Tensor w, {_EDGES}) -> Tensor",
    f"convolution_backward(Tensor g, Tensor x, Tensor y, Tensor w, {_EDGES}) "
    "-> (Tensor, Tensor, Tensor)",
    "convolution_double_backward(Tensor ax, Tensor ay, Tensor aw, "
    f"Tensor g, Tensor x, Tensor y, Tensor w, {_EDGES}) -> (Tensor, Tensor, Tensor, Tensor)",
    f"radial_convolution(Tensor x, Tensor y, Tensor r, Tensor coefficients, {_EDGES}) -> Tensor",
    "radial_convolution_backward(Tensor g, Tensor x, Tensor y, Tensor r, Tensor coefficients, "
    f"{_EDGES}) -> (Tensor, Tensor, Tensor)",
):
    _library.define(_schema)


def convolution(x: Tensor, y: Tensor, w: Tensor, edges: Edges, key: str) -> Tensor:
    """Convolve; differentiable twice.

    Parameters
    ----------
    x
        Features, ``[N, x_dim]``.
    y
        Harmonics, ``[E, y_dim]``.
    w
        Weights, ``[E, w_dim]``; all three float32 or float64.
    edges
        Of the graph.
    key
        Of the `form.Form`, which defines the lengths of rows.

    Returns
    -------
    Tensor
        ``[N, out_dim]``.
    """
    return torch.ops.openmm_nequip.convolution(x, y, w, *edges, key)


def convolution_backward(
    g: Tensor, x: Tensor, y: Tensor, w: Tensor, edges: Edges, key: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the derivatives of ``Σ g · convolution(x, y, w)`` by x, y and w."""
    return torch.ops.openmm_nequip.convolution_backward(g, x, y, w, *edges, key)


def convolution_double_backward(
    ax: Tensor, ay: Tensor, aw: Tensor, g: Tensor, x: Tensor, y: Tensor, w: Tensor,
    edges: Edges, key: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the derivatives of ``Σ a · convolution_backward(g, x, y, w)`` by g, x, y and w."""
    return torch.ops.openmm_nequip.convolution_double_backward(ax, ay, aw, g, x, y, w, *edges, key)


def radial_convolution(
    x: Tensor, y: Tensor, r: Tensor, coefficients: Tensor, edges: Edges, key: str
) -> Tensor:
    """Convolve with the weights evaluated in the kernel, so that they are never in memory.

    Parameters
    ----------
    r
        Scaled distances, ``[E]``, in the dtype of x: the weights are splines of it (`nn.spline`).
    coefficients
        ``[K + 3, w_dim]``; they have no derivative here.
    """
    return torch.ops.openmm_nequip.radial_convolution(x, y, r, coefficients, *edges, key)


def radial_convolution_backward(
    g: Tensor, x: Tensor, y: Tensor, r: Tensor, coefficients: Tensor, edges: Edges, key: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the derivatives of ``Σ g · radial_convolution(x, y, r)`` by x, y and r."""
    return torch.ops.openmm_nequip.radial_convolution_backward(
        g, x, y, r, coefficients, *edges, key
    )


@cache
def backend(device_type: str) -> ModuleType:
    """Return the module that computes on this type of device."""
    name = {"cpu": "numba", "cuda": "triton"}.get(device_type)
    if name and find_spec(name):
        return import_module(f".{name}_backend", __package__)
    return torch_backend


def is_compiled(device_type: str) -> bool:
    """Return whether the operators are compiled on this type of device, not plain PyTorch."""
    return backend(device_type) is not torch_backend


def _implementation(name: str) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        tensors, edges, key = args[:-7], Edges(*args[-7:-1]), args[-1]
        _check(tensors, edges, key, name)
        function = getattr(backend(tensors[0].device.type), name)
        return function(*(t.contiguous() for t in tensors), edges, key)

    return call


def _check(tensors: tuple[Tensor, ...], edges: Edges, key: str, name: str) -> None:
    """Refuse what a kernel would read wrongly; indices are checked where edges are made.

    Raises
    ------
    ValueError
        Shapes, dtypes or devices do not fit.
    """
    f = form(key)
    n, e = len(edges.receiver_start) - 1, len(edges.receivers)
    out: tuple[int, ...] = (n, f.out_dim)
    inputs: list[tuple[int, ...]] = [(n, f.x_dim), (e, f.y_dim), (e, f.w_dim)]
    if name.startswith("radial"):
        inputs[2:] = [(e,), (tensors[-1].shape[0], f.w_dim)]
    if name.endswith("double_backward"):
        shapes = [*inputs, out, *inputs]
    elif name.endswith("backward"):
        shapes = [out, *inputs]
    else:
        shapes = inputs
    first = tensors[0]
    if first.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{name}: tensors must be float32 or float64, found {first.dtype}")
    for tensor, shape in zip(tensors, shapes, strict=True):
        if tensor.shape != shape:
            raise ValueError(f"{name}: expected shape {shape}, found {tuple(tensor.shape)}")
        if tensor.dtype != first.dtype or tensor.device != first.device:
            raise ValueError(
                f"{name}: tensors must have one dtype and device, found {first.dtype} on "
                f"{first.device} and {tensor.dtype} on {tensor.device}"
            )
    for index in edges:
        if index.dtype != torch.int64 or index.device != first.device:
            raise ValueError(f"{name}: edges must be int64 on {first.device}")


def _fake(name: str) -> Callable[..., Any]:
    """Return shapes only, for `torch.compile`."""

    def call(*args: Any) -> Any:
        tensors, f = args[:-7], form(args[-1])
        if name.endswith("double_backward"):
            return tuple(torch.empty_like(t) for t in tensors[3:7])
        if name.endswith("backward"):
            return tuple(torch.empty_like(t) for t in tensors[1:4])
        return tensors[0].new_empty((tensors[0].shape[0], f.out_dim))

    return call


for _name in (
    "convolution",
    "convolution_backward",
    "convolution_double_backward",
    "radial_convolution",
    "radial_convolution_backward",
):
    _library.impl(_name, _implementation(_name), "CompositeExplicitAutograd")
    torch.library.register_fake(f"openmm_nequip::{_name}", _fake(_name), lib=_library)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:-1])
    ctx.key = inputs[-1]


def _differentiate(ctx: Any, g: Tensor) -> tuple[Any, ...]:
    x, y, w, *edges = ctx.saved_tensors
    return (*convolution_backward(g, x, y, w, Edges(*edges), ctx.key), *[None] * 7)


def _differentiate_again(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
    g, x, y, w, *edges = ctx.saved_tensors
    ax, ay, aw = (
        t.new_zeros(t.shape) if c is None else c for c, t in zip(cotangents, (x, y, w), strict=True)
    )
    second = convolution_double_backward(ax, ay, aw, g, x, y, w, Edges(*edges), ctx.key)
    return (*second, *[None] * 7)


def _differentiate_radial(ctx: Any, g: Tensor) -> tuple[Any, ...]:
    x, y, r, coefficients, *edges = ctx.saved_tensors
    first = radial_convolution_backward(g, x, y, r, coefficients, Edges(*edges), ctx.key)
    return (*first, *[None] * 8)


for _name, _derivative in (
    ("convolution", _differentiate),
    ("convolution_backward", _differentiate_again),
    ("radial_convolution", _differentiate_radial),
):
    torch.library.register_autograd(
        f"openmm_nequip::{_name}", _derivative, setup_context=_save, lib=_library
    )
