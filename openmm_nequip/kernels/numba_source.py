"""Writes the Numba kernels of a form: loops over atoms and their edges, with the paths unrolled.

Every atom's sum is made by one thread in the order of its edges, so the bits do not depend on the
number of threads. The channel loops are innermost and contiguous: LLVM vectorises them.

Names in the generated code, for an edge e from the sender j to the receiver i and one path:
``ym`` harmonics; ``a_mi_mo = Σ_me C[mi, me, mo] y_me``, the coupling that all channels share;
``xm``, ``gm``, ``wu`` features, cotangent and weight of channel u; ``qm = Σ C[mi, m, mo] x_mi
g_mo``, from which the derivatives by weight and harmonics follow. In the second derivatives ``zm``,
``b_mi_mo``, ``pm``, ``sm`` and ``vu`` are the same for the cotangents of the first derivatives.
"""

from collections.abc import Iterable
from textwrap import indent

from .form import Form, Path

_HEADER = '''"""{key} in {dtype}."""

import numpy as np
from numba import njit, prange

from openmm_nequip.kernels.compiler import kernel

real = np.{dtype}
# fastmath but for "nnan" and "ninf": NaN and infinity stay what they are
compiled = njit(
    error_model="numpy", fastmath={{"reassoc", "contract", "nsz", "arcp"}}, forceinline=True
)
'''

# Cubic B-splines as in nn.spline: `f` is the place in the interval. NaN fails both comparisons.
_SPLINE = """\
t = r[e] * intervals
if t >= intervals:
    {beyond}
cell = int(t) if t > 0 and t < intervals else 0
f = t - real(cell)
h = real(1) - f
c0, c1, c2, c3 = table[cell], table[cell + 1], table[cell + 2], table[cell + 3]
s0 = h * h * h * sixth
s1 = ((three * f - six) * f * f + four) * sixth
s2 = ((three * h - six) * h * h + four) * sixth
s3 = f * f * f * sixth
for u in range({w_dim}):
    we[u] = s0 * c0[u] + s1 * c1[u] + s2 * c2[u] + s3 * c3[u]
"""
_SLOPE = """\
d0 = -h * h * half * intervals
d1 = (three * f - four) * f * half * intervals
d2 = (four - three * h) * h * half * intervals
d3 = f * f * half * intervals
for u in range({w_dim}):
    dwe[u] = d0 * c0[u] + d1 * c1[u] + d2 * c2[u] + d3 * c3[u]
"""
_CONSTANTS = "".join(
    f"{name} = real({value})\n"
    for name, value in {
        "sixth": "1 / 6", "half": "0.5", "three": "3", "four": "4", "six": "6",
    }.items()
)  # fmt: skip


def source(form: Form, dtype: str) -> str:
    """Return a module with the kernels of `form` for ``'float32'`` or ``'float64'``."""
    kernels = [
        kernel(form, radial)
        for radial in (False, True)
        for kernel in (_convolution, _by_receiver, _by_sender)
    ]
    kernels += [_second_by_receiver(form), _second_by_sender(form)]
    return "\n\n".join([_HEADER.format(key=form.key, dtype=dtype) + _CONSTANTS, *kernels])


def _convolution(form: Form, radial: bool) -> str:
    """Messages, summed onto the receiver."""
    body = ["xj = x[senders[e]]"]
    for path in form.paths:
        loop = [*_load("x", "xj", path.x_start, path.mul, path.x_dim), _weight("wu", "we", path)]
        loop += [f"x{mi} *= wu" for mi in range(path.x_dim)]
        for mo in range(path.out_dim):
            terms = (f"a_{mi}_{mo} * x{mi}" for mi in _inputs(path, mo))
            loop.append(_add("row", path.out_start + mo * path.out_stride, terms))
        body += [*_coupling("a", "y", path), *_channels(path, loop)]
    setup = ["row = out[i]", "row[:] = 0"]
    arguments = "x, y, w, senders, order, start, out"
    return _kernel(form, "convolution", arguments, "out", setup, body, radial)


def _by_receiver(form: Form, radial: bool) -> str:
    """Derivatives by what belongs to an edge: harmonics, and weights or scaled distance."""
    body = ["xj = x[senders[e]]", *_zero(_names("gy", form.y_dim))]
    body += ["slope = real(0)"] if radial else ["gwe = gw[e]"]
    for path in form.paths:
        loop = _load("x", "xj", path.x_start, path.mul, path.x_dim)
        loop += _load("g", "row", path.out_start, path.out_stride, path.out_dim)
        loop += _products("q", "x", path)
        total = " + ".join(f"y{path.y_start + m} * q{m}" for m in range(path.y_dim))
        if radial:
            loop += [_weight("dw", "dwe", path), f"slope += dw * ({total})"]
        else:
            loop.append(f"gwe[{_at(path.w_start)}] = {total}")
        loop.append(_weight("wu", "we", path))
        loop += [f"gy{path.y_start + m} += wu * q{m}" for m in range(path.y_dim)]
        body += _channels(path, loop)
    body += [f"gy[e, {m}] = gy{m}" for m in range(form.y_dim)]
    if radial:
        body.append("gr[e] = slope")
    arguments = f"g, x, y, w, senders, order, start, gy, {'gr' if radial else 'gw'}"
    beyond = "gy[e] = 0\ngr[e] = 0\ncontinue"
    return _kernel(
        form, "by_receiver", arguments, "g", ["row = g[i]"], body, radial, beyond, slope=True
    )


def _by_sender(form: Form, radial: bool) -> str:
    """Derivatives by the features, summed onto the sender."""
    body = ["gi = g[receivers[e]]"]
    for path in form.paths:
        loop = _load("g", "gi", path.out_start, path.out_stride, path.out_dim)
        loop.append(_weight("wu", "we", path))
        for mi in range(path.x_dim):
            start = path.x_start + mi * path.mul
            loop.append(_add("row", start, [f"wu * ({_toward('a', path, mi)})"]))
        body += [*_coupling("a", "y", path), *_channels(path, loop)]
    setup = ["row = gx[i]", "row[:] = 0"]
    arguments = "g, y, w, receivers, order, start, gx"
    return _kernel(form, "by_sender", arguments, "gx", setup, body, radial)


def _second_by_receiver(form: Form) -> str:
    """Second derivatives that are summed onto the receiver or belong to an edge."""
    body = ["j = senders[e]", "xj = x[j]", "pj = ax[j]", "ve = aw[e]", "gwe = gw[e]"]
    body += [*_harmonics("z", "ay", form), *_zero(_names("gy", form.y_dim))]
    for path in form.paths:
        loop = _load("x", "xj", path.x_start, path.mul, path.x_dim)
        loop += _load("p", "pj", path.x_start, path.mul, path.x_dim)
        loop += _load("g", "row", path.out_start, path.out_stride, path.out_dim)
        loop += [_weight("wu", "we", path), _weight("vu", "ve", path)]
        loop += [*_products("q", "x", path), *_products("s", "p", path)]
        harmonics = range(path.y_start, path.y_start + path.y_dim)
        total = " + ".join(f"y{m} * s{k} + z{m} * q{k}" for k, m in enumerate(harmonics))
        loop.append(f"gwe[{_at(path.w_start)}] = {total}")
        loop += [f"gy{m} += wu * s{k} + vu * q{k}" for k, m in enumerate(harmonics)]
        for mi in range(path.x_dim):
            loop += [f"p{mi} = wu * p{mi} + vu * x{mi}", f"x{mi} *= wu"]
        for mo in range(path.out_dim):
            terms = (f"a_{mi}_{mo} * p{mi} + b_{mi}_{mo} * x{mi}" for mi in _inputs(path, mo))
            loop.append(_add("out", path.out_start + mo * path.out_stride, terms))
        body += [*_coupling("a", "y", path), *_coupling("b", "z", path), *_channels(path, loop)]
    body += [f"gy[e, {m}] = gy{m}" for m in range(form.y_dim)]
    setup = ["row = g[i]", "out = gg[i]", "out[:] = 0"]
    arguments = "ax, ay, aw, g, x, y, w, senders, order, start, gg, gy, gw"
    return _kernel(form, "second_by_receiver", arguments, "g", setup, body)


def _second_by_sender(form: Form) -> str:
    """Second derivatives by the features, summed onto the sender."""
    body = ["gi = g[receivers[e]]", "ve = aw[e]", *_harmonics("z", "ay", form)]
    for path in form.paths:
        loop = _load("g", "gi", path.out_start, path.out_stride, path.out_dim)
        loop += [_weight("wu", "we", path), _weight("vu", "ve", path)]
        for mi in range(path.x_dim):
            term = f"vu * ({_toward('a', path, mi)}) + wu * ({_toward('b', path, mi)})"
            loop.append(_add("row", path.x_start + mi * path.mul, [term]))
        body += [*_coupling("a", "y", path), *_coupling("b", "z", path), *_channels(path, loop)]
    setup = ["row = gx[i]", "row[:] = 0"]
    arguments = "ay, aw, g, y, w, receivers, order, start, gx"
    return _kernel(form, "second_by_sender", arguments, "gx", setup, body)


def _kernel(
    form: Form,
    name: str,
    arguments: str,
    rows: str,
    setup: list[str],
    body: list[str],
    radial: bool = False,
    beyond: str = "continue",
    slope: bool = False,
) -> str:
    """Assemble a loop over the rows of an array and the edges of each.

    The loop over the atoms is a function of its own: Numba takes a hundred times longer to compile
    a long body inside a parallel loop. With `radial` the weights are splines of the scaled
    distance; `beyond` is what to do at an edge longer than the cutoff, `slope` asks for their
    derivatives.
    """
    if radial:
        name, arguments = f"radial_{name}", arguments.replace(" w,", " r, table,")
        setup = [
            *setup,
            "intervals = real(table.shape[0] - 3)",
            f"we = np.empty({form.w_dim}, real)",
        ]
        spline = _SPLINE.replace("    {beyond}", indent(beyond, "    ")) + slope * _SLOPE
        weights = spline.format(w_dim=form.w_dim).splitlines()
        if slope:
            setup.append(f"dwe = np.empty({form.w_dim}, real)")
    else:
        weights = ["we = w[e]"]
    edge = ["e = order[k]", *weights, *_harmonics("y", "y", form), *body]
    lines = [*setup, "for k in range(start[i], start[i + 1]):", *(f"    {line}" for line in edge)]
    return f"""\
@compiled
def {name}_of(i, {arguments}):
{indent(chr(10).join(lines), "    ")}


@kernel()
def {name}({arguments}):
    for i in prange({rows}.shape[0]):
        {name}_of(np.int64(i), {arguments})  # prange counts in uint64
"""


def _channels(path: Path, lines: list[str]) -> list[str]:
    return [f"for u in range({path.mul}):", *(f"    {line}" for line in lines)]


def _harmonics(symbol: str, array: str, form: Form) -> list[str]:
    return [f"{symbol}{m} = {array}[e, {m}]" for m in range(form.y_dim)]


def _coupling(symbol: str, harmonics: str, path: Path) -> list[str]:
    """Contract the coefficients with the harmonics of the edge."""
    return [
        f"{symbol}_{mi}_{mo} = "
        + " + ".join(
            f"real({c!r}) * {harmonics}{path.y_start + me}"
            for i, me, o, c in path.coefficients
            if (i, o) == (mi, mo)
        )
        for mi, mo in _pairs(path)
    ]


def _products(symbol: str, x: str, path: Path) -> list[str]:
    """Contract the coefficients with features and cotangent: one sum for each harmonic."""
    lines = []
    for m in range(path.y_dim):
        terms = []
        for mi in range(path.x_dim):
            by_g = [f"real({c!r}) * g{o}" for i, e, o, c in path.coefficients if (i, e) == (mi, m)]
            if by_g:
                terms.append(f"{x}{mi} * ({' + '.join(by_g)})")
        lines.append(f"{symbol}{m} = " + " + ".join(terms))
    return lines


def _toward(coupling: str, path: Path, mi: int) -> str:
    """Contract a coupling with the cotangent of the result."""
    return " + ".join(f"{coupling}_{mi}_{mo} * g{mo}" for m, mo in _pairs(path) if m == mi)


def _load(symbol: str, row: str, start: int, stride: int, dim: int) -> list[str]:
    return [f"{symbol}{m} = {row}[{_at(start + m * stride)}]" for m in range(dim)]


def _weight(symbol: str, row: str, path: Path) -> str:
    return f"{symbol} = {row}[{_at(path.w_start)}]"


def _add(row: str, start: int, terms: Iterable[str]) -> str:
    return f"{row}[{_at(start)}] += " + " + ".join(terms)


def _zero(names: Iterable[str]) -> list[str]:
    return [f"{name} = real(0)" for name in names]


def _names(symbol: str, dim: int) -> list[str]:
    return [f"{symbol}{m}" for m in range(dim)]


def _at(start: int) -> str:
    return f"{start} + u"


def _pairs(path: Path) -> list[tuple[int, int]]:
    """Components of input and result that the path couples."""
    return sorted({(mi, mo) for mi, _, mo, _ in path.coefficients})


def _inputs(path: Path, mo: int) -> list[int]:
    return [mi for mi, m in _pairs(path) if m == mo]
