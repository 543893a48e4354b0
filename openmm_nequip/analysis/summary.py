"""A run folder in figures: read what a simulation left and compute every observable."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..md.reporters import read_warnings
from ..modelfile import DEFAULT_MODEL, write_atomically
from .cautions import cautions
from .conformers import Conformers, conformers
from .folder import Run, formula, open_run
from .molecule import molecule
from .protein import protein
from .results import Picture, Quantity, Section
from .surroundings import surroundings
from .thermodynamics import thermodynamics


@dataclass(frozen=True)
class Analysis:
    """Observables of a run.

    Attributes
    ----------
    title
        What was run.
    run
        Where they come from.
    sections
        Quantities and pictures by subject, the most interesting first.
    summary
        The figures that go to ``summary.json``.
    """

    title: str
    run: Run
    sections: list[Section]
    summary: dict[str, Any]

    @property
    def pictures(self) -> list[Picture]:
        """Those of all sections."""
        return [picture for section in self.sections for picture in section.pictures]


def analyze(folder: str | Path) -> Analysis:
    """Analyse a run folder, finished or not.

    Raises
    ------
    InputError
        The folder is not a run folder, or there is too little in it yet.
    """
    return next(analyze_together([open_run(folder)]))


def analyze_together(runs: Sequence[Run]) -> Iterator[Analysis]:
    """Analyse runs of one system; conformers have the same numbers in all of them.

    Raises
    ------
    InputError
        The runs are not of the same molecule.
    """
    for run, found in zip(runs, conformers(runs), strict=True):
        yield _analyze(run, found)


def _analyze(run: Run, shapes: Conformers | None) -> Analysis:
    sections = [molecule(run, shapes)]
    if (found := protein(run)) is not None:
        sections.append(found)
    sections += [*surroundings(run), thermodynamics(run)]

    config, log = run.config, run.production
    summary: dict[str, Any] = {
        "structure": config.structure,
        "formula": formula(run.numbers),
        "composition": run.composition,
        "atoms": len(run.numbers),
        "potential": config.potential or DEFAULT_MODEL,
        "ensemble": config.ensemble,
        "timestep_fs": config.timestep,
        "time_ps": float(log["time_ps"][-1]),
        "finished": bool(log["step"][-1] + config.log_steps > config.total_steps),
        "frames": run.num_frames,
        "speed_ns_day": float(log["speed_ns_day"][-1]),
        "averages_from_ps": float(run.steady_log["time_ps"][0]),
        "results": {
            quantity.name: {
                key: value
                for key, value in asdict(quantity).items()
                if key != "name" and value not in ("", None)
            }
            for section in sections
            for quantity in section.quantities
        },
        "cautions": cautions(run, sections),
    }
    if run.is_mixed:
        summary["ml_region"] = {
            "selection": run.selection,
            "formula": formula(run.numbers[run.region]),
            "atoms": len(run.region),
        }
    if warnings := read_warnings(run.folder / "warnings.csv"):
        summary["warnings"] = [
            f"at {float(row['time_ps']):g} ps: {row['message']}" for row in warnings
        ]
    title = f"{run.composition}, {config.ensemble.upper()}, {summary['potential']}"
    return Analysis(title, run, sections, summary)


def save_summary(analysis: Analysis, plots: list[Path]) -> None:
    """Write ``summary.json`` and ``summary.md`` into the run folder."""
    folder = analysis.run.folder
    text = json.dumps(analysis.summary, indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / "summary.json", text.encode())
    lines = [f"# {analysis.title}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in table(analysis.summary)]
    lines += ["", *(f"![{path.stem}]({path.relative_to(folder)})" for path in plots[:1]), ""]
    write_atomically(folder / "summary.md", "\n".join(lines).encode())


def table(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the summary as names and values with units, for people."""
    rows = [*description(summary)]
    rows += [(name, Quantity(name, **found).text()) for name, found in summary["results"].items()]
    rows += [("warning", warning) for warning in summary.get("warnings", [])]
    rows += [("caution", caution) for caution in summary["cautions"]]
    return rows


def description(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what was run, as names and values."""
    state = "" if summary["finished"] else ", unfinished"
    rows = [("system", f"{summary['composition']}, {summary['atoms']:,} atoms")]
    if region := summary.get("ml_region"):
        rows.append(("ML region", f"{region['formula']}, {region['atoms']} atoms: "
                                  f"{region['selection']}"))  # fmt: skip
    return [
        *rows,
        ("potential", summary["potential"]),
        ("ensemble", summary["ensemble"].upper()),
        ("length", f"{summary['time_ps']:g} ps in steps of {summary['timestep_fs']:g} fs, "
                   f"{summary['frames']:,} frames{state}"),
        ("speed", f"{summary['speed_ns_day']:.3g} ns/day"),
        ("averages", f"from {summary['averages_from_ps']:g} ps on"),
    ]  # fmt: skip
