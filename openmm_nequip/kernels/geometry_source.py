"""Writes the Numba kernels of the edges' geometry: scaled distances, harmonics, and back.

The harmonics of e3nn ('component' normalised) follow from one another by coupling with l = 1:

    Y_{l+1}[m] = c_l Σ_ab C[a, b, m] Y_l[a] Y_1[b],    Y_1 = √3 r/|r|

which is bilinear, so that the way back is the same sum with the roles exchanged.
"""

from functools import cache

import torch
from e3nn.o3 import spherical_harmonics, wigner_3j

_HEADER = '''"""Harmonics up to l = {l_max} in {dtype}."""

import math

import numpy as np
from numba import prange

from openmm_nequip.kernels.compiler import kernel

real = np.{dtype}


@kernel(error_model="numpy")
def geometry(vectors, inverse_cutoffs, types, receivers, senders, x, y):
    """Scaled distances x and harmonics y of all edges, computed in float64."""
    num_types = inverse_cutoffs.shape[0]
    for e in prange(vectors.shape[0]):
        vx, vy, vz = vectors[e, 0], vectors[e, 1], vectors[e, 2]
        r = math.sqrt(vx * vx + vy * vy + vz * vz)
        x[e] = r * inverse_cutoffs[types[receivers[e]], types[senders[e]]]
        s = math.sqrt(3.0) / r
        {harmonics}


@kernel(error_model="numpy")
def gradient(vectors, inverse_cutoffs, types, receivers, senders, gx, gy, out):
    """Turn derivatives by x, [L, E], and y, [L, E, Y], in every layer into those by the vectors."""
    num_layers = gx.shape[0]
    for e in prange(vectors.shape[0]):
        vx, vy, vz = vectors[e, 0], vectors[e, 1], vectors[e, 2]
        r = math.sqrt(vx * vx + vy * vy + vz * vz)
        s = math.sqrt(3.0) / r
        gr = 0.0
        {zeros}
        for k in range(num_layers):
            gr += gx[k, e]
            {sums}
        {back}
        nx, ny, nz = vx / r, vy / r, vz / r
        along = nx * g1 + ny * g2 + nz * g3
        gr = gr * inverse_cutoffs[types[receivers[e]], types[senders[e]]] - s * along
        out[e, 0] = s * g1 + gr * nx
        out[e, 1] = s * g2 + gr * ny
        out[e, 2] = s * g3 + gr * nz
'''


def source(l_max: int, dtype: str) -> str:
    """Return a module with the two kernels for harmonics up to `l_max`."""
    dim = (l_max + 1) ** 2
    forward, back = _up(l_max), _down(l_max)
    if l_max == 0:
        back = ["g1 = g2 = g3 = 0.0"]
    return _HEADER.format(
        l_max=l_max,
        dtype=dtype,
        harmonics=_lines([*forward, *(f"y[e, {m}] = y{m}" for m in range(dim))], 8),
        zeros=_lines([f"g{m} = 0.0" for m in range(dim)], 8),
        sums=_lines([f"g{m} += gy[k, e, {m}]" for m in range(dim)], 12),
        back=_lines([*_up(l_max - 1), *back], 8),
    ).replace("        num_types = inverse_cutoffs.shape[0]\n", "")


def _up(l_max: int) -> list[str]:
    lines = ["y0 = 1.0"]
    if l_max >= 1:
        lines.append("y1, y2, y3 = s * vx, s * vy, s * vz")
    for l in range(1, l_max):  # noqa: E741 - the field's symbol
        for m in range(2 * l + 3):
            terms = [f"{c!r} * y{_at(l, a)} * y{_at(1, b)}" for a, b, n, c in _step(l) if n == m]
            lines.append(f"y{_at(l + 1, m)} = " + " + ".join(terms))
    return lines


def _down(l_max: int) -> list[str]:
    lines = []
    for l in reversed(range(1, l_max)):  # noqa: E741
        for a, b, m, c in _step(l):
            if l > 1:
                lines.append(f"g{_at(l, a)} += {c!r} * g{_at(l + 1, m)} * y{_at(1, b)}")
                lines.append(f"g{_at(1, b)} += {c!r} * g{_at(l + 1, m)} * y{_at(l, a)}")
            else:  # Y_1 twice: kept apart, or the sums would feed on themselves
                lines.append(f"g{_at(1, a)} += {2 * c!r} * g{_at(2, m)} * y{_at(1, b)}")
    return lines


@cache
def _step(l: int) -> tuple[tuple[int, int, int, float], ...]:  # noqa: E741
    """Coefficients from l to l + 1, with the factor that e3nn's normalisation asks for."""
    v = torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64)
    lower, one, upper = (
        spherical_harmonics(k, v, normalize=True, normalization="component") for k in (l, 1, l + 1)
    )
    c = wigner_3j(l, 1, l + 1, dtype=torch.float64)
    coupled = torch.einsum("abm,a,b->m", c, lower, one)
    m = int(coupled.abs().argmax())
    c = c * (upper[m] / coupled[m])
    return tuple((a, b, m, float(c[a, b, m])) for a, b, m in c.abs().gt(1e-9).nonzero().tolist())


def _at(l: int, m: int) -> int:  # noqa: E741
    return l * l + m


def _lines(lines: list[str], depth: int) -> str:
    return ("\n" + " " * depth).join(lines)
