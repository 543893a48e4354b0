"""The record of a run: one JSON file that grows with every measurement, tables and a plot of it."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..figures import STYLE, save
from ..modelfile import write_atomically
from .timing import quartiles

SCHEMA = 1
FILE, PLOT = "benchmark.json", "benchmark.png"
#: Parts of a benchmark and their titles.
PARTS = {
    "energy": "Energy and forces of a prepared graph",
    "md": "Molecular dynamics step in OpenMM, neighbour list included",
    "profile": "Where the time of a step goes (fused engine)",
    "memory": "Peak memory of one evaluation",
    "training": "Training",
}


@dataclass
class Row:
    """One engine on one case.

    Attributes
    ----------
    part, model, atoms, engine
        What was measured: keys of `PARTS` and `models.SHAPES`, number of atoms, name of the engine
        (in a profile, of the part of the step).
    edges
        Directed pairs within the cutoff.
    status
        ``'measured'``, ``'skipped'``, ``'unavailable'``, ``'failed'`` or ``'disagrees'``.
    reason
        Why it is not measured.
    seconds
        Of one evaluation, MD step or optimizer step, in each repeat.
    details
        What else there is to say: seconds of the first call, agreement, memory, rates.
    """

    part: str
    model: str
    atoms: int
    engine: str
    edges: int | None = None
    status: str = "measured"
    reason: str = ""
    seconds: list[float] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return what the JSON file says."""
        values = asdict(self)
        if self.seconds:
            low, median, high = quartiles(self.seconds)
            values |= {"median": median, "lower_quartile": low, "upper_quartile": high}
        return values


class Results:
    """The results of a run in a folder, written after every measurement.

    Parameters
    ----------
    folder
        Gets ``benchmark.json`` and, in the end, ``benchmark.png``.
    header
        What the file says before the rows: machine, versions, settings.
    overwrite
        Whether results that are there may be replaced.
    observer
        Told about every row.

    Raises
    ------
    InputError
        The folder has results already.
    """

    def __init__(
        self,
        folder: Path,
        header: dict[str, Any],
        overwrite: bool = False,
        observer: Callable[[Row], None] = lambda row: None,
    ):
        self.path = folder / FILE
        if self.path.exists() and not overwrite:
            raise InputError(
                f"'{self.path}' exists: choose another folder, or replace it with --overwrite"
            )
        self.header, self.observer = header, observer
        self.rows: list[Row] = []
        self._write()

    def add(self, row: Row) -> None:
        """Append a row."""
        self.rows.append(row)
        self._write()
        self.observer(row)

    def finish(self) -> None:
        """Note when the run ended."""
        self.header["finished"] = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        self._write()

    def document(self) -> dict[str, Any]:
        """Return the content of the file."""
        return {"schema": SCHEMA, **self.header, "rows": [row.document() for row in self.rows]}

    def _write(self) -> None:
        text = json.dumps(self.document(), indent=1, ensure_ascii=False)
        write_atomically(self.path, text.encode())


@dataclass(frozen=True)
class TextTable:
    """A table for people; every cell is text.

    Attributes
    ----------
    title, columns, rows
        The table.
    numeric
        Columns to be aligned on the right.
    notes
        What could not be measured, and why.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    numeric: list[bool]
    notes: list[str]

    def markdown(self) -> str:
        """Return table and notes as Markdown."""
        rule = ["---:" if numeric else "---" for numeric in self.numeric]
        lines = ["| " + " | ".join(line) + " |" for line in (self.columns, rule, *self.rows)]
        return "\n".join(lines + [""] * bool(self.notes) + [f"- {note}" for note in self.notes])


def read(path: Path) -> dict[str, Any]:
    """Read a file of results.

    Raises
    ------
    InputError
        It is missing, or of another program or version.
    """
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read results from '{path}': {error}") from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise InputError(f"'{path}' is not a file of `openmm-nequip benchmark`")
    return document


def tables(document: dict[str, Any]) -> list[TextTable]:
    """Return one table for each part of a document of results."""
    found = []
    for part, title in PARTS.items():
        rows = [row for row in document["rows"] if row["part"] == part]
        if rows:
            columns, write = _WRITERS[part]
            cells = [
                [r["model"], f"{r['atoms']:,}", _edges(r), r["engine"], *write(r, rows)]
                for r in rows
                if r["status"] == "measured"
            ]
            numeric = [False, True, True, False] + [True] * len(columns)
            engine = "part of the step" if part == "profile" else "engine"
            columns = ["model", "atoms", "edges", engine, *columns]
            found.append(TextTable(title, columns, cells, numeric, _notes(rows)))
    return found


def _edges(row: dict[str, Any]) -> str:
    return "" if row["edges"] is None else f"{row['edges']:,}"


def _notes(rows: list[dict[str, Any]]) -> list[str]:
    """Say for each reason what was not measured for it."""
    cases: dict[tuple[str, str], list[str]] = {}  # by engine and reason
    for row in rows:
        if row["status"] != "measured":
            key = row["engine"], f"{row['status']}: {row['reason']}"
            cases.setdefault(key, []).append(f"{row['model']} at {row['atoms']:,} atoms")
    engines: dict[tuple[str, str], list[str]] = {}  # by reason and cases
    for (engine, reason), what in cases.items():
        engines.setdefault((reason, ", ".join(what)), []).append(engine)
    return [f"{'; '.join(who)} ({what}) {reason}" for (reason, what), who in engines.items()]


def _timing(row: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    """Milliseconds, quartiles, and how much slower than the fastest of the case."""
    same = [r for r in rows if (r["model"], r["atoms"]) == (row["model"], row["atoms"])]
    fastest = min(r["median"] for r in same if r["seconds"])
    return [
        milliseconds(row["median"]),
        f"{milliseconds(row['lower_quartile'])} to {milliseconds(row['upper_quartile'])}",
        f"{row['median'] / fastest:.1f}",
    ]


def _energy(row: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    return [*_timing(row, rows), f"{1e6 * row['median'] / row['atoms']:.1f}"]


def _md(row: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    return [*_timing(row, rows), f"{row['details']['ns_per_day']:.3g}"]


def _profile(row: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    same = [r for r in rows if (r["model"], r["atoms"]) == (row["model"], row["atoms"])]
    share = row["median"] / sum(r["median"] for r in same if r["seconds"])
    return [milliseconds(row["median"]), f"{100 * share:.1f}"]


def _memory(row: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    details = row["details"]
    return [f"{details['peak_mb']:,.0f}", f"{details['before_mb']:,.0f}"]


def _training(row: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    return [*_timing(row, rows), f"{row['details']['frames_per_second']:.3g}"]


_TIMES = ["ms", "quartiles", "×"]
_WRITERS: dict[str, tuple[list[str], Any]] = {
    "energy": ([*_TIMES, "µs/atom"], _energy),
    "md": ([*_TIMES, "ns/day"], _md),
    "profile": (["ms", "%"], _profile),
    "memory": (["peak MB", "MB before"], _memory),
    "training": (["ms per step", *_TIMES[1:], "frames/s"], _training),
}


def milliseconds(seconds: float) -> str:
    """Return a time in milliseconds with three significant figures."""
    value = 1000 * seconds
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


_COLOURS = {
    "fused": "#d1495b",
    "reference": "#7f9bb3",
    "nequip": "#30638e",
    "nequip-aotinductor": "#e9a23b",
    "mace-128x0e": "#5b8e7d",
    "mace-128x0e+128x1o": "#8fbf9f",
    "ani-2x": "#9a6fb0",
}
_LABELS = {"energy": "ms per energy and forces", "md": "ms per MD step"}


def plot(document: dict[str, Any], path: Path) -> bool:
    """Plot time against atoms on logarithmic axes: a row of panels per part, a column per model.

    Returns
    -------
    bool
        Whether there was anything to plot: a model with at least two sizes.
    """
    import matplotlib
    from matplotlib.figure import Figure

    rows = [r for r in document["rows"] if r["part"] in _LABELS and r["seconds"]]
    panels: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        panels.setdefault((row["part"], row["model"]), []).append(row)
    panels = {key: found for key, found in panels.items() if len({r["atoms"] for r in found}) > 1}
    if not panels:
        return False
    parts = [part for part in _LABELS if any(key[0] == part for key in panels)]
    models = list(dict.fromkeys(model for _, model in panels))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.4 * len(models), 3.6 * len(parts)), layout="constrained")
        grid = figure.subplots(len(parts), len(models), squeeze=False)
        for part, line in zip(parts, grid, strict=True):
            for model, axis in zip(models, line, strict=True):
                if (part, model) in panels:
                    _draw(axis, panels[part, model])
                    axis.set_ylabel(_LABELS[part])
                    axis.set_title(f"size {model}" if len(model) == 1 else model)
                else:
                    axis.set_axis_off()
        save(figure, path)
    return True


def _draw(axis: Any, rows: list[dict[str, Any]]) -> None:
    """Draw one line with quartiles for each engine."""
    from matplotlib.ticker import FormatStrFormatter, NullFormatter

    for engine in dict.fromkeys(row["engine"] for row in rows):
        chosen = sorted((r for r in rows if r["engine"] == engine), key=lambda r: r["atoms"])
        median, low, high = (
            [1e3 * row[name] for row in chosen]
            for name in ("median", "lower_quartile", "upper_quartile")
        )
        bars = [[m - q for m, q in zip(median, low, strict=True)],
                [q - m for m, q in zip(median, high, strict=True)]]  # fmt: skip
        axis.errorbar(
            [row["atoms"] for row in chosen],
            median,
            yerr=bars,
            color=_COLOURS.get(engine.removeprefix("openmm-ml ").split(",")[0], "#6c757d"),
            linestyle="--" if engine.endswith("PythonForce") else "-",
            label=engine,
            marker="o",
            markersize=4,
            linewidth=1.6,
            capsize=2,
        )
    sizes = sorted({row["atoms"] for row in rows})
    axis.set(xscale="log", yscale="log", xlabel="atoms")
    axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.legend(fontsize=8)
