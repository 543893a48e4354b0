"""The operators of `spline_ops` on the CPU, compiled by Numba.

Each result is written by one thread in one order, whatever the number of threads.
"""

from functools import cache
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from .compiler import kernel
from .spline_ops import polynomials

_BLOCK = 256  # columns that one thread sums: its part of the coefficients stays in the cache
_OPTIONS: dict[str, Any] = {
    "fastmath": {"contract", "reassoc", "nsz"},  # NaN stays NaN
    "error_model": "numpy",
}


def spline(x: Tensor, a: Tensor, coefficients: Tensor, order: int) -> Tensor:
    """See `spline_ops.spline`."""
    out = coefficients.new_empty(len(x), coefficients.shape[1])
    table = _table(order, len(coefficients) - 3)
    _spline(x.numpy(), a.numpy(), coefficients.numpy(), table, out.numpy())
    return out


def spline_dot(x: Tensor, coefficients: Tensor, v: Tensor, order: int) -> Tensor:
    """See `spline_ops.spline_dot`."""
    out = torch.empty_like(x)
    table = _table(order, len(coefficients) - 3)
    _spline_dot(x.numpy(), coefficients.numpy(), v.numpy(), table, out.numpy())
    return out


def spline_transpose(x: Tensor, a: Tensor, v: Tensor, order: int, num_intervals: int) -> Tensor:
    """See `spline_ops.spline_transpose`."""
    out = v.new_zeros(num_intervals + 3, v.shape[1])
    table = _table(order, num_intervals)
    _spline_transpose(x.numpy(), a.numpy(), v.numpy(), table, out.numpy())
    return out


@cache
def _table(order: int, num_intervals: int) -> np.ndarray:
    return np.array(polynomials(order, num_intervals))


@njit(cache=True, **_OPTIONS)
def _locate(x, factor, table, rows, dtype):  # type: ignore[no-untyped-def]
    """Return the B-splines at x times a factor, and the rows of coefficients they belong to."""
    t = x * (len(rows) - 3)
    cell = 0
    if t > 0.0:  # not for NaN, which goes into the values
        cell = int(min(t, len(rows) - 4.0))
    f = t - cell
    b0 = factor * (((table[0, 3] * f + table[0, 2]) * f + table[0, 1]) * f + table[0, 0])
    b1 = factor * (((table[1, 3] * f + table[1, 2]) * f + table[1, 1]) * f + table[1, 0])
    b2 = factor * (((table[2, 3] * f + table[2, 2]) * f + table[2, 1]) * f + table[2, 0])
    b3 = factor * (((table[3, 3] * f + table[3, 2]) * f + table[3, 1]) * f + table[3, 0])
    return (
        dtype(b0), dtype(b1), dtype(b2), dtype(b3),
        rows[cell], rows[cell + 1], rows[cell + 2], rows[cell + 3],
    )  # fmt: skip


@kernel(**_OPTIONS)
def _spline(x, a, coefficients, table, out):  # type: ignore[no-untyped-def]
    dtype = out.dtype.type
    for e in prange(len(x)):
        row = out[e]
        if x[e] >= 1.0:
            row[:] = dtype(0.0)
            continue
        b0, b1, b2, b3, c0, c1, c2, c3 = _locate(x[e], a[e], table, coefficients, dtype)
        for u in range(len(row)):
            row[u] = b0 * c0[u] + b1 * c1[u] + b2 * c2[u] + b3 * c3[u]


@kernel(**_OPTIONS)
def _spline_dot(x, coefficients, v, table, out):  # type: ignore[no-untyped-def]
    dtype = v.dtype.type
    for e in prange(len(x)):
        total = dtype(0.0)
        if not x[e] >= 1.0:
            row = v[e]
            b0, b1, b2, b3, c0, c1, c2, c3 = _locate(x[e], 1.0, table, coefficients, dtype)
            for u in range(len(row)):
                total += row[u] * (b0 * c0[u] + b1 * c1[u] + b2 * c2[u] + b3 * c3[u])
        out[e] = total


@kernel(**_OPTIONS)
def _spline_transpose(x, a, v, table, out):  # type: ignore[no-untyped-def]
    dtype = v.dtype.type
    width = v.shape[1]
    for block in prange((width + _BLOCK - 1) // _BLOCK):
        start, end = block * _BLOCK, min(width, (block + 1) * _BLOCK)
        for e in range(len(x)):
            if x[e] >= 1.0:
                continue
            b0, b1, b2, b3, o0, o1, o2, o3 = _locate(x[e], a[e], table, out, dtype)
            row = v[e][start:end]
            _add(o0[start:end], b0, row)
            _add(o1[start:end], b1, row)
            _add(o2[start:end], b2, row)
            _add(o3[start:end], b3, row)


@njit(cache=True, **_OPTIONS)
def _add(out, b, row):  # type: ignore[no-untyped-def]
    for u in range(len(row)):
        out[u] += b * row[u]
