"""Radial splines as operators, for training through them; see `nn.spline`.

With the four B-splines B_k that live at x_e, all of them belong to one form

    T(a, C, v) = Σ_e a_e Σ_k B_k(x_e) Σ_u C[k, u] v[e, u]

that is linear in the factors a, the coefficients C and the values v. `spline`, `spline_dot` and
`spline_transpose` are its derivatives by v, a and C; its derivative by x is the same form with the
next derivative of B. So every derivative of any of the three is one of the three again.
"""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from .autograd import needed

_library = torch.library.Library("openmm_nequip", "FRAGMENT")
_library.define("spline(Tensor x, Tensor a, Tensor coefficients, int order) -> Tensor")
_library.define("spline_dot(Tensor x, Tensor coefficients, Tensor v, int order) -> Tensor")
_library.define(
    "spline_transpose(Tensor x, Tensor a, Tensor v, int order, int num_intervals) -> Tensor"
)

#: The four B-splines of an interval: coefficients of 1, f, f², f³ for f in [0, 1].
_B_SPLINES = (
    (1 / 6, -1 / 2, 1 / 2, -1 / 6),
    (2 / 3, 0.0, -1.0, 1 / 2),
    (1 / 6, 1 / 2, 1 / 2, -1 / 2),
    (0.0, 0.0, 0.0, 1 / 6),
)


def spline(x: Tensor, coefficients: Tensor, order: int = 0, a: Tensor | None = None) -> Tensor:
    """Evaluate W splines or their derivatives; differentiable any number of times.

    Parameters
    ----------
    x
        Scaled distances, shape ``[E]``, float64; from x = 1 on the splines are zero.
    coefficients
        Shape ``[K + 3, W]``, float32 or float64; see `nn.spline.RadialSpline`.
    order
        Of the derivative by x; 0 for values.
    a
        Factors of the rows, shape ``[E]``, float64; ones if not given.

    Returns
    -------
    Tensor
        Shape ``[E, W]``, in the dtype of the coefficients.
    """
    a = torch.ones_like(x) if a is None else a
    return torch.ops.openmm_nequip.spline(x, a, coefficients, order)


def spline_dot(x: Tensor, coefficients: Tensor, v: Tensor, order: int = 0) -> Tensor:
    """Return ``Σ_u v[e, u] spline(x, coefficients, order)[e, u]``, shape ``[E]``, float64."""
    return torch.ops.openmm_nequip.spline_dot(x, coefficients, v, order)


def spline_transpose(
    x: Tensor, v: Tensor, order: int, num_intervals: int, a: Tensor | None = None
) -> Tensor:
    """Return the derivative of ``Σ v · spline(x, C, order, a)`` by C, shape ``[K + 3, W]``."""
    a = torch.ones_like(x) if a is None else a
    return torch.ops.openmm_nequip.spline_transpose(x, a, v, order, num_intervals)


def polynomials(order: int, num_intervals: int) -> list[list[float]]:
    """Return the B-splines' derivatives by x: of each, the coefficients of 1, f, f² and f³."""
    rows = [list(row) for row in _B_SPLINES]
    for _ in range(order):
        rows = [[num_intervals * n * row[n] for n in range(1, 4)] + [0.0] for row in rows]
    return rows


# ---- in PyTorch, for any device: products with the matrix of B-splines


def _spline_torch(x: Tensor, a: Tensor, coefficients: Tensor, order: int) -> Tensor:
    return _matrix(x, a, order, len(coefficients) - 3, coefficients.dtype) @ coefficients


def _spline_dot_torch(x: Tensor, coefficients: Tensor, v: Tensor, order: int) -> Tensor:
    rows = _spline_torch(x, torch.ones_like(x), coefficients, order)
    return (rows * v).sum(dim=1).to(x.dtype)


def _spline_transpose_torch(
    x: Tensor, a: Tensor, v: Tensor, order: int, num_intervals: int
) -> Tensor:
    return _matrix(x, a, order, num_intervals, v.dtype).T @ v


@cache
def _table(order: int, num_intervals: int, device: torch.device) -> Tensor:
    return torch.tensor(polynomials(order, num_intervals), dtype=torch.float64, device=device)


def _matrix(x: Tensor, a: Tensor, order: int, num_intervals: int, dtype: torch.dtype) -> Tensor:
    """Return a times the B-splines at x, ``[E, K + 3]``: four entries in a row."""
    t = x * num_intervals
    cell = t.floor().nan_to_num(0.0).clamp(0, num_intervals - 1)
    powers = torch.stack([(t - cell) ** n for n in range(4)], dim=1)
    values = (powers @ _table(order, num_intervals, x.device).T) * a.unsqueeze(1)
    values = torch.where((x >= 1.0).unsqueeze(1), 0.0, values)
    columns = cell.to(torch.int64).unsqueeze(1) + torch.arange(4, device=x.device)
    matrix = torch.zeros(len(x), num_intervals + 3, dtype=dtype, device=x.device)
    return matrix.scatter_(1, columns, values.to(dtype))


# ---- operators

#: Tensors of each: x and a per edge, coefficients, values.
_TENSORS = {"spline": "xac", "spline_dot": "xcv", "spline_transpose": "xav"}
_FALLBACK: dict[str, Callable[..., Tensor]] = {
    "spline": _spline_torch,
    "spline_dot": _spline_dot_torch,
    "spline_transpose": _spline_transpose_torch,
}


def _check(name: str, tensors: tuple[Tensor, ...], order: int) -> None:
    """Refuse what a kernel would read wrongly.

    Raises
    ------
    ValueError
        Shapes, dtypes, devices or the order do not fit.
    """
    x, last = tensors[0], tensors[-1]
    num_edges, width = x.shape[0], last.shape[-1]
    if last.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{name}: tensors must be float32 or float64, found {last.dtype}")
    if order < 0:
        raise ValueError(f"{name}: order must not be negative, found {order}")
    for kind, tensor in zip(_TENSORS[name], tensors, strict=True):
        shape: tuple[int, ...] = (num_edges,)
        if kind == "c":
            shape = (max(4, tensor.shape[0]), width)
        elif kind == "v":
            shape = (num_edges, width)
        dtype = torch.float64 if kind in "xa" else last.dtype
        if tensor.shape != shape:
            raise ValueError(f"{name}: expected shape {shape}, found {tuple(tensor.shape)}")
        if tensor.dtype != dtype or tensor.device != x.device:
            raise ValueError(
                f"{name}: expected {dtype} on {x.device}, found {tensor.dtype} on {tensor.device}"
            )


def _implementation(name: str) -> Callable[..., Tensor]:
    def call(*args: Any) -> Tensor:
        _check(name, args[:3], args[3])
        if args[0].device.type == "cpu" and find_spec("numba"):
            from . import spline_numba

            tensors = (t.detach().contiguous() for t in args[:3])
            return getattr(spline_numba, name)(*tensors, *args[3:])
        return _FALLBACK[name](*args)

    return call


def _fake(name: str) -> Callable[..., Tensor]:
    """Return shapes only, for `torch.compile`."""

    def call(*args: Any) -> Tensor:
        x, _, last = args[:3]
        if name == "spline_dot":
            return torch.empty_like(x)
        rows = x.shape[0] if name == "spline" else args[4] + 3
        return last.new_empty((rows, last.shape[1]))

    return call


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.order = inputs[3]


def _differentiate_spline(ctx: Any, v: Tensor) -> tuple[Any, ...]:
    x, a, coefficients = ctx.saved_tensors
    by_x, by_a, by_coefficients = needed(ctx)
    return (
        a * spline_dot(x, coefficients, v, ctx.order + 1) if by_x else None,
        spline_dot(x, coefficients, v, ctx.order) if by_a else None,
        spline_transpose(x, v, ctx.order, len(coefficients) - 3, a) if by_coefficients else None,
        None,
    )


def _differentiate_dot(ctx: Any, a: Tensor) -> tuple[Any, ...]:
    x, coefficients, v = ctx.saved_tensors
    by_x, by_coefficients, by_v = needed(ctx)
    return (
        a * spline_dot(x, coefficients, v, ctx.order + 1) if by_x else None,
        spline_transpose(x, v, ctx.order, len(coefficients) - 3, a) if by_coefficients else None,
        spline(x, coefficients, ctx.order, a) if by_v else None,
        None,
    )


def _differentiate_transpose(ctx: Any, coefficients: Tensor) -> tuple[Any, ...]:
    x, a, v = ctx.saved_tensors
    by_x, by_a, by_v = needed(ctx)
    return (
        a * spline_dot(x, coefficients, v, ctx.order + 1) if by_x else None,
        spline_dot(x, coefficients, v, ctx.order) if by_a else None,
        spline(x, coefficients, ctx.order, a) if by_v else None,
        None,
        None,
    )


for _name, _derivative in (
    ("spline", _differentiate_spline),
    ("spline_dot", _differentiate_dot),
    ("spline_transpose", _differentiate_transpose),
):
    _library.impl(_name, _implementation(_name), "CompositeExplicitAutograd")
    torch.library.register_fake(f"openmm_nequip::{_name}", _fake(_name), lib=_library)
    torch.library.register_autograd(
        f"openmm_nequip::{_name}", _derivative, setup_context=_save, lib=_library
    )
