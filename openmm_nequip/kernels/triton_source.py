"""Source of the Triton kernels, generated from the form.

One program sums over the edges of one atom for one part: paths that start from one input irrep,
for one block of its channels. It holds tiles of [edges, channels]; what depends on the edge alone
(harmonics, their sums with the coupling coefficients, B-splines) is a column of the tile. All
parts are branches of one kernel, because a small system needs all of them at once to fill a GPU.

Three variants: 'weights' reads the weights, 'radial' evaluates them as splines, and 'second'
replaces the result by its derivative along given directions of x, y and w, whose names begin
with `a`.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from .form import Form, Path

#: Warps per program; what there is to tune are this and the limits below.
NUM_WARPS = 4
#: Most channels in a tile.
MAX_CHANNELS = 128
#: 32-bit registers of a thread that a program's sums may take.
MAX_REGISTERS = 64
#: Most coupling coefficients in a kernel: compile times grow with the square.
MAX_TERMS = 144

POINTERS = {
    "forward": {
        "weights": "x y w out",
        "radial": "x y r table out",
        "second": "ax ay aw x y w out",
    },
    "backward": {
        "weights": "g x y w dx dw dy",
        "radial": "g x y r table dx dy dr",
        "second": "ax ay aw g x y w dx dw dy",
    },
}
#: Pointers read or written column by column: whether they are aligned must not matter.
UNALIGNED = ("y", "ay", "r", "dy", "dr", "others", "order", "start")

_Paths = list[tuple[int, Path]]


class _Part(NamedTuple):
    """Paths from one input irrep, and how many channels of how many edges are in a tile."""

    paths: _Paths
    channels: int
    edges: int
    plane: int

    @property
    def first(self) -> Path:
        return self.paths[0][1]

    @property
    def terms(self) -> int:
        return sum(len(path.coefficients) for _, path in self.paths)

    @property
    def blocks(self) -> int:
        return -(-self.first.mul // self.channels)

    @property
    def divides(self) -> bool:
        return self.first.mul % self.channels == 0


def source(form: Form, direction: str, variant: str, words: int) -> str:
    """Generate a module with `LAUNCHES`: kernels and the length of their grids' second axes.

    `PARTS` is how many terms the derivatives by y and r are stored in, `PLANES` that of x.

    Parameters
    ----------
    form
        The form.
    direction
        ``'forward'``: sums over the edges that an atom receives; ``'backward'``: over those it
        sends, with the derivatives by y and r as sums over the channels of each part.
    variant
        ``'weights'``, ``'radial'`` or ``'second'``.
    words
        Size of a number in 32-bit words.
    """
    parts = list(_parts(form, direction, words))
    names = [*POINTERS[direction][variant].split(), "others", "order", "start"]
    sizes = ["num_edges"] if direction == "backward" else []
    sizes += ["intervals"] if variant == "radial" else []
    arguments = ", ".join(names + sizes)
    unaligned = [name for name in names if name in UNALIGNED]
    lines = [
        f"# {form.key}: {direction}, {variant}",
        "import triton",
        "import triton.language as tl",
    ]
    body = _forward if direction == "forward" else _backward
    for k, part in enumerate(parts):
        lines += ["", "", "@triton.jit", f"def part_{k}({arguments}, index, block):"]
        lines += [f"    {line}" for line in body(form, part, variant)]
    launches, begin = [], 0
    for n, members in enumerate(_kernels(parts)):
        lines += [
            "",
            "",
            f"@triton.jit(do_not_specialize={sizes}, do_not_specialize_on_alignment={unaligned})",
            f"def kernel_{n}({arguments}):",
            f"    index = {begin} + tl.program_id(1)",
        ]
        first = begin
        for k in members:
            lines += [
                f"    {'if' if k == members[0] else 'elif'} index < {begin + parts[k].blocks}:",
                f"        part_{k}({arguments}, index, index - {begin})",
            ]
            begin += parts[k].blocks
        launches.append(f"(kernel_{n}, {begin - first})")
    planes = 1 + max(part.plane for part in parts)
    lines += ["", "", f"LAUNCHES = [{', '.join(launches)}]", f"PARTS, PLANES = {begin}, {planes}"]
    return "\n".join(lines) + "\n"


def _kernels(parts: list[_Part]) -> list[list[int]]:
    """Distribute the parts over kernels, because compilers are slow on large functions."""
    kernels: list[list[int]] = [[]]
    used = 0
    for k, part in enumerate(parts):
        if kernels[-1] and used + part.terms > MAX_TERMS:
            kernels.append([])
            used = 0
        kernels[-1].append(k)
        used += part.terms
    return kernels


def _parts(form: Form, direction: str, words: int) -> Iterator[_Part]:
    groups: dict[int, _Paths] = {}
    for p, path in enumerate(form.paths):
        groups.setdefault(path.x_start, []).append((p, path))
    for paths in groups.values():
        first = paths[0][1]
        if direction == "forward":  # its sums are rows of the result
            chunks = _chunks(paths, MAX_REGISTERS // words, lambda path: path.out_dim)
            sums = max(sum(path.out_dim for _, path in chunk) for chunk in chunks)
        else:  # its sums are the derivatives by x and y; x itself stays in registers, too
            chunks = _chunks(paths, MAX_TERMS, lambda path: len(path.coefficients))
            sums = 2 * first.x_dim + max(len(_harmonics(chunk)) for chunk in chunks)
        channels = min(_power_of_two(first.mul), MAX_CHANNELS)
        while channels > 32 and sums * words * channels > 32 * MAX_REGISTERS:
            channels //= 2
        edges = max(NUM_WARPS, 32 * NUM_WARPS // channels)
        for plane, chunk in enumerate(chunks):
            yield _Part(chunk, channels, edges, plane)


def _chunks(paths: _Paths, most: int, size: Callable[[Path], int]) -> list[_Paths]:
    """Split paths into chunks of no more than this size, or of one path."""
    chunks: list[_Paths] = [[]]
    used = 0
    for p, path in paths:
        if chunks[-1] and used + size(path) > most:
            chunks.append([])
            used = 0
        chunks[-1].append((p, path))
        used += size(path)
    return chunks


def _power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()


def _harmonics(paths: _Paths) -> list[int]:
    """Return the columns of y that the paths use."""
    return sorted({path.y_start + me for _, path in paths for _, me, _, _ in path.coefficients})


def _forward(form: Form, part: _Part, variant: str) -> Iterator[str]:
    first, second = part.first, variant == "second"
    yield from _begin(part)
    rows = [(p, path, mo) for p, path in part.paths for mo in range(path.out_dim)]
    for p, _, mo in rows:
        yield f"o{p}_{mo} = tl.zeros([{part.edges}, {part.channels}], x.dtype.element_ty)"
    yield from _edges(part)
    body = list(_columns(form, part, variant))
    for prefix in ["", "a"] if second else [""]:
        body.append(f"{prefix}xj = {prefix}x + other * {form.x_dim} + u")
        for mi in range(first.x_dim):
            offset = first.x_start + mi * first.mul
            body.append(f"{prefix}x{mi} = {_load(f'{prefix}xj', offset)}")
    for p, path in part.paths:
        body += _path_forward(form, p, path, variant)
    yield from (f"    {line}" for line in body)
    for p, path, mo in rows:
        offset = path.out_start + mo * path.out_stride
        total = f"tl.sum(o{p}_{mo}, axis=0, keep_dims=True)"
        yield _store(f"out + atom * {form.out_dim} + u", offset, total, part)


def _path_forward(form: Form, p: int, path: Path, variant: str) -> Iterator[str]:
    second = variant == "second"
    yield f"# path {p}: {_title(path)}"
    yield from _coupling(path, second)
    yield from _weights(form, path, variant, slope=False)
    for mo in range(path.out_dim):
        pairs = [mi for mi, o in _pairs(path) if o == mo]
        value = " + ".join(f"c{mi}_{mo} * x{mi}" for mi in pairs)
        if second:
            along = " + ".join(f"c{mi}_{mo} * ax{mi} + ac{mi}_{mo} * x{mi}" for mi in pairs)
            yield f"o{p}_{mo} += w0 * ({along}) + aw0 * ({value})"
        else:
            yield f"o{p}_{mo} += w0 * ({value})"


def _backward(form: Form, part: _Part, variant: str) -> Iterator[str]:
    first, second, radial = part.first, variant == "second", variant == "radial"
    tile = f"tl.zeros([{part.edges}, {part.channels}], x.dtype.element_ty)"
    own = "" if part.divides else ", mask=own, other=0.0"
    yield from _begin(part)
    for prefix in ["", "a"] if second else [""]:
        yield f"{prefix}xj = {prefix}x + atom * {form.x_dim} + u"
        for mi in range(first.x_dim):
            offset = first.x_start + mi * first.mul
            yield f"{prefix}x{mi} = tl.load({prefix}xj + {offset}{own})"
    for mi in range(first.x_dim):
        yield f"dx{mi} = {tile}"
    yield from _edges(part)
    body = list(_columns(form, part, variant))
    used = _harmonics(part.paths)
    body += [f"sy{k} = {tile}" for k in used]
    if radial:
        body.append(f"sr = {tile}")
    body.append(f"gi = g + other * {form.out_dim} + u")
    for p, path in part.paths:
        body += _path_backward(form, p, path, variant)
    # one row for each part and edge
    body.append("row = index.to(tl.int64) * num_edges + e")
    body.append(f"component = tl.arange(0, {_power_of_two(form.y_dim)})[None, :]")
    sums = "0.0"
    for k in used:
        total = f"tl.sum(sy{k}, axis=1, keep_dims=True)"
        body.append(f"sums = tl.where(component == {k}, {total}, {sums})")
        sums = "sums"
    mask = f"live & (component < {form.y_dim})"
    body.append(f"tl.store(dy + row * {form.y_dim} + component, sums, mask={mask})")
    if radial:
        body.append("tl.store(dr + row, tl.sum(sr, axis=1, keep_dims=True), mask=live)")
    yield from (f"    {line}" for line in body)
    plane = f"({part.plane} * tl.num_programs(0).to(tl.int64) + atom)" if part.plane else "atom"
    yield f"dxj = dx + {plane} * {form.x_dim} + u"
    for mi in range(first.x_dim):
        offset = first.x_start + mi * first.mul
        total = f"tl.sum(dx{mi}, axis=0, keep_dims=True)"
        yield _store("dxj", offset, total, part)


def _path_backward(form: Form, p: int, path: Path, variant: str) -> Iterator[str]:
    second, radial = variant == "second", variant == "radial"
    yield f"# path {p}: {_title(path)}"
    yield from _coupling(path, second)
    yield from _weights(form, path, variant, slope=True)
    for mo in range(path.out_dim):
        yield f"g{mo} = {_load('gi', path.out_start + mo * path.out_stride)}"
    by_w = []
    for mi in range(path.x_dim):
        pairs = [mo for i, mo in _pairs(path) if i == mi]
        yield f"v = {' + '.join(f'c{mi}_{mo} * g{mo}' for mo in pairs)}"
        if second:
            yield f"av{mi} = {' + '.join(f'ac{mi}_{mo} * g{mo}' for mo in pairs)}"
            yield f"dx{mi} += w0 * av{mi} + aw0 * v"
            yield f"dw{mi} = ax{mi} * v + x{mi} * av{mi}"
            yield f"q{mi} = w0 * ax{mi} + aw0 * x{mi}"
        else:
            yield f"dx{mi} += w0 * v"
            yield f"dw{mi} = x{mi} * v"
            yield f"q{mi} = w0 * x{mi}"
        by_w.append(f"dw{mi}")
    if radial:
        yield f"sr += slope * ({' + '.join(by_w)})"
    else:
        target = f"dw + e * {form.w_dim} + {path.w_start} + u"
        yield f"tl.store({target}, {' + '.join(by_w)}, mask=mask)"
    for (mi, mo), terms in _pairs(path).items():
        yield f"t = q{mi} * g{mo}"
        for me, value in terms:
            yield f"sy{path.y_start + me} += {value!r} * t"


def _begin(part: _Part) -> Iterator[str]:
    yield "atom = tl.program_id(0).to(tl.int64)"
    yield f"u = block * {part.channels} + tl.arange(0, {part.channels})[None, :]"
    if not part.divides:
        yield f"own = u < {part.first.mul}"
    yield f"column = tl.arange(0, {part.edges})[:, None]"
    yield "begin = tl.load(start + atom)"
    yield "end = tl.load(start + atom + 1)"


def _edges(part: _Part) -> Iterator[str]:
    """Begin the loop: `e` are the edges, `other` the atoms at their other ends."""
    yield f"for k in range(begin, end, {part.edges}):"
    yield "    live = k + column < end"
    yield f"    mask = {'live' if part.divides else 'live & own'}"
    yield "    e = tl.load(order + k + column, mask=live, other=0)"
    yield "    other = tl.load(others + e, mask=live, other=0)"


def _columns(form: Form, part: _Part, variant: str) -> Iterator[str]:
    """Load the harmonics; evaluate the B-splines (their slopes, too, where they are used)."""
    for prefix in ["", "a"] if variant == "second" else [""]:
        for k in _harmonics(part.paths):
            address = f"{prefix}y + e * {form.y_dim} + {k}"
            yield f"{prefix}y{k} = tl.load({address}, mask=live, other=0.0)"
    if variant == "radial":
        yield "scaled = tl.load(r + e, mask=live, other=1.0)"
        yield "count = intervals.to(scaled.dtype)"
        # of a distance that is NaN, too, the cell must be one of the table
        yield "last = count - 1.0"
        yield "cell = tl.minimum(tl.maximum(tl.floor(scaled * count), 0.0), last)"
        yield "cell = tl.where(scaled < 1.0, cell, last)"
        yield "f = scaled * count - cell"
        yield "h = 1.0 - f"
        yield f"rows = table + cell.to(tl.int64) * {form.w_dim} + u"
        values = [
            "h * h * h", "(3.0 * f - 6.0) * f * f + 4.0", "(3.0 * h - 6.0) * h * h + 4.0",
            "f * f * f",
        ]  # fmt: skip
        slopes = ["-h * h", "(3.0 * f - 4.0) * f", "(4.0 - 3.0 * h) * h", "f * f"]
        for k in range(4):
            yield f"b{k} = tl.where(scaled >= 1.0, 0.0, ({values[k]}) / 6.0)"
        for k in range(4):
            yield f"s{k} = tl.where(scaled >= 1.0, 0.0, ({slopes[k]}) * (0.5 * count))"


def _coupling(path: Path, second: bool) -> Iterator[str]:
    """Sum the coefficients with the harmonics: a column for each pair of components."""
    for prefix in ["", "a"] if second else [""]:
        for (mi, mo), terms in _pairs(path).items():
            total = " + ".join(f"{value!r} * {prefix}y{path.y_start + me}" for me, value in terms)
            yield f"{prefix}c{mi}_{mo} = {total}"


def _weights(form: Form, path: Path, variant: str, slope: bool) -> Iterator[str]:
    if variant == "radial":
        for k in range(4):
            yield f"p{k} = {_load('rows', k * form.w_dim + path.w_start)}"
        yield "w0 = b0 * p0 + b1 * p1 + b2 * p2 + b3 * p3"
        if slope:
            yield "slope = s0 * p0 + s1 * p1 + s2 * p2 + s3 * p3"
        return
    for prefix in ["", "a"] if variant == "second" else [""]:
        yield f"{prefix}w0 = {_load(f'{prefix}w + e * {form.w_dim} + u', path.w_start)}"


def _pairs(path: Path) -> dict[tuple[int, int], list[tuple[int, float]]]:
    """Return the coefficients, as (me, value), of each pair (mi, mo) that has some."""
    pairs: dict[tuple[int, int], list[tuple[int, float]]] = {}
    for mi, me, mo, value in path.coefficients:
        pairs.setdefault((mi, mo), []).append((me, value))
    return pairs


def _load(pointer: str, offset: int) -> str:
    return f"tl.load({pointer} + {offset}, mask=mask, other=0.0)"


def _store(pointer: str, offset: int, value: str, part: _Part) -> str:
    return f"tl.store({pointer} + {offset}, {value}{'' if part.divides else ', mask=own'})"


def _title(path: Path) -> str:
    return f"{path.x_dim // 2} x {path.y_dim // 2} -> {path.out_dim // 2}"
