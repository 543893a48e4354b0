"""Make the tables and the figure of ``docs/accuracy.md`` and ``docs/fine-tuning.md``.

    python benchmarks/accuracy/tables.py
    python benchmarks/accuracy/tables.py --add results-of-another-machine.json

What is between the two markers of a page is replaced. Only runs with the settings that the
configuration files have now are shown; the page says what has not been run.
"""

import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import curve
import record
import tasks
import typer
import yaml
from selection import ENERGY, FORCES, Results, case_of, current, select, sizes

from openmm_nequip.cli import clear_errors
from openmm_nequip.errors import InputError

DOCS = Path(__file__).parents[2] / "docs"
PAGE, FINE_TUNING = DOCS / "accuracy.md", "fine-tuning.md"
PICTURE = DOCS / "images" / "accuracy-learning-curve.png"
BEGIN, END = "<!-- figures: benchmarks/accuracy/tables.py -->", "<!-- end of figures -->"
PUBLISHED = Path(__file__).parent / "published.yaml"

#: Errors that are shown of other data than rMD17, if there are any.
COLUMNS = {
    ENERGY: "energy, MAE (meV)",
    "energy_rmse_meV": "energy, RMSE (meV)",
    "energy_per_atom_mae_meV": "energy per atom, MAE (meV)",
    FORCES: "forces, MAE (meV/Å)",
    "forces_rmse_meV_per_A": "forces, RMSE (meV/Å)",
    "stress_mae_meV_per_A3": "stress, MAE (meV/Å³)",
    "stress_rmse_meV_per_A3": "stress, RMSE (meV/Å³)",
}
TITLES = {
    "3bpa": "3BPA at 300 K",
    "acac": "Acetylacetone at 300 K",
    "ethanol-ccsdt": "Ethanol, CCSD(T)",
    "lips": "Li₆.₇₅P₃S₁₁",
    "water": "Liquid water, PBE0-TS",
    "quartz": "α-quartz",
    "silicon": "Silicon",
}
_VERSIONS = ("openmm-nequip", "torch", "numba", "python")


def number(value: float) -> str:
    """Return an error with one digit after the point, below 1 with two."""
    return f"{value:.1f}" if abs(value) >= 0.95 else f"{value:.2f}"


def as_published(value: float) -> str:
    """Return a published error with its digits."""
    return f"{value:.1f}" if round(value, 1) == value else f"{value:g}"


def mean(results: Results, error: str, of: str = "test") -> float | None:
    """Return the mean of an error over the runs; `None` where there is none."""
    values = [r[of][error] for r in results if error in r[of]]
    return statistics.mean(values) if values else None


def cell(results: Results, error: str) -> str:
    """Return mean and, of several runs, standard deviation of an error; a dash without runs."""
    values = [r["test"][error] for r in results if error in r["test"]]
    if len(values) < 2:
        return number(values[0]) if values else "–"
    middle = number(statistics.mean(values))
    digits = len(middle.partition(".")[2])
    return f"{middle} ± {statistics.stdev(values):.{digits}f}"


def minutes(results: Results) -> str:
    """Return the mean training time."""
    return f"{statistics.mean(r['seconds'] for r in results) / 60:.0f}" if results else "–"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """Return a table as Markdown; all but the first columns are numbers."""
    rule = ["---"] * texts + ["---:"] * (len(columns) - texts)
    return "\n".join("| " + " | ".join(row) + " |" for row in (columns, rule, *rows))


def rmd17(results: Results, frames: int, published: dict[str, Any]) -> str:
    """Return the table of all molecules for one size of the training set.

    Where pretrained weights were fine-tuned on as many frames, those errors stand beside. Means
    are over the molecules that were run, also those of the published errors.
    """
    theirs = published["rmd17"].get(frames, {})
    tuned = select(results, task="fine-tuning", frames=frames, start="fine-tuned")
    ours = [select(results, task="rmd17", frames=frames)] + ([tuned] if tuned else [])
    rows = []
    for molecule in tasks.MOLECULES:
        runs = [select(found, molecule=molecule) for found in ours]
        cells = [molecule.replace("salicylic", "salicylic acid")]
        for error, column in ((FORCES, 1), (ENERGY, 0)):
            cells += [cell(found, error) for found in runs]
            cells += [as_published(values[molecule][column]) for values in theirs.values()]
        rows.append([*cells, str(len(runs[0])), minutes(runs[0])])
    ran = [m for m in tasks.MOLECULES if select(ours[0], molecule=m)]
    last = ["**mean**" if len(ran) == len(tasks.MOLECULES) else f"**mean of these {len(ran)}**"]
    for error, column in ((FORCES, 1), (ENERGY, 0)):
        for found in ours:
            means = [mean(select(found, molecule=m), error) for m in ran]
            known = [value for value in means if value is not None]
            complete = known and len(known) == len(means)
            last.append(f"**{number(statistics.mean(known))}**" if complete else "–")
        for other in theirs.values():
            last.append(number(statistics.mean(other[m][column] for m in ran)) if ran else "–")
    columns = ["molecule"]
    for kind in ("**forces**, MAE (meV/Å)", "**energy**, MAE (meV)"):
        columns += [kind, *(["fine-tuned"] if tuned else []), *theirs]
    return table([*columns, "runs", "minutes"], [*rows, [*last, "", ""]])


def learning_curve(results: Results, molecule: str, published: dict[str, Any]) -> str:
    """Return the force errors of one molecule by training frames and l_max."""
    results = select(results, task="learning-curve", molecule=molecule)
    known = tasks.TASKS["learning-curve"]
    sizes = sorted({*known.frames, *(r["frames"] for r in results)})
    rows = []
    for order in sorted({*known.l_max, *(r["l_max"] for r in results)}):
        runs = [select(results, l_max=order, frames=size) for size in sizes]
        row = [str(order), *(cell(found, FORCES) for found in runs)]
        if molecule == "aspirin":
            row.append(f"{published['l_max']['NequIP'].get(order, '–')}")
        rows.append(row)
    columns = ["l_max", *(f"{size} frames" for size in sizes)]
    if molecule == "aspirin":
        columns.append("NequIP, 950 frames")
    return table(columns, rows)


def other(results: Results, task: str, published: dict[str, Any]) -> str:
    """Return the errors of another data set, with the published ones below."""
    theirs = published["others"].get(task, [])
    results = select(results, task=task)
    columns = [
        error
        for error in COLUMNS
        if any(error in r["test"] for r in results) or any(error in row for row in theirs)
    ]
    rows = []
    for size in sorted({*tasks.TASKS[task].frames, *(r["frames"] for r in results)}):
        runs = select(results, frames=size)
        tested = f"{runs[0]['test']['frames']} held-out frames" if runs else "not run"
        ours = ["**openmm-nequip**", f"{size:,}", tested]
        rows.append([*ours, *(cell(runs, error) for error in columns), minutes(runs)])
    for row in theirs:
        errors = [as_published(row[error]) if error in row else "–" for error in columns]
        rows.append([row["potential"], str(row["frames"]), row["tested"], *errors, ""])
    head = ["potential", "training frames", "tested on", *(COLUMNS[error] for error in columns)]
    return table([*head, "minutes"], rows, texts=3)


def choices(results: Results) -> str:
    """Return the errors on the validation frames with one choice after the other changed."""
    results = select(results, task="choices")
    rows = []
    for change in tasks.CHANGES:
        runs = select(results, change=change)
        if runs:
            errors = [mean(runs, error, "validation") for error in (FORCES, ENERGY)]
            rows.append([change, *(number(e) for e in errors if e is not None), minutes(runs)])
    return table(["change", "forces, MAE (meV/Å)", "energy, MAE (meV)", "minutes"], rows)


def fine_tuning(results: Results) -> str:
    """Return the errors before and after fine-tuning, and with new weights."""
    known = tasks.TASKS["fine-tuning"]
    results = select(results, task="fine-tuning")
    rows = []
    for molecule in dict.fromkeys((*known.molecules, *(r["molecule"] for r in results))):
        of_molecule = select(results, molecule=molecule)
        for size in sizes(of_molecule):
            runs = [select(of_molecule, frames=size, start=start) for start in tasks.STARTS]
            row = [molecule.replace("3bpa", "3BPA"), str(size)]
            for error in (FORCES, ENERGY):
                start = mean(runs[1], error, "before")
                row += ["–" if start is None else number(start)]
                row += [cell(found, error) for found in runs]
            rows.append([*row, *map(minutes, runs)])
    errors = ("before", "from scratch", "**fine-tuned**")
    columns = [f"{kind}: {error}" for kind in ("forces", "energy") for error in errors]
    times = ("minutes, from scratch", "fine-tuned")
    return table(["molecule", "frames", *columns, *times], rows)


def not_run(results: Results, of: Sequence[str]) -> list[str]:
    """Say which of the reported runs of these tasks there are no results of."""
    done = {case_of(r).of_any_seed for r in results}
    missing: dict[str, list[str]] = {}
    for task in of:
        for case in tasks.cases(task):
            if case.of_any_seed in done:
                continue
            if task == "fine-tuning":
                place, what = f"{case.frames} training frames, {case.start}", str(case.molecule)
            elif task == "rmd17":
                place, what = f"rMD17, {case.frames} training frames", str(case.molecule)
            elif task == "learning-curve":
                place = (
                    f"learning curve of {case.molecule}, training frames with l_max {case.l_max}"
                )
                what = str(case.frames)
            elif task == "choices":
                place, what = f"choices, {case.molecule}", str(case.change)
            else:
                place, what = f"{TITLES[task]}, training frames", str(case.frames)
            missing.setdefault(place, []).append(what)
    return [f"{place}: {', '.join(what)}" for place, what in missing.items()]


def origin(results: Results) -> list[str]:
    """Say on which machines, when and with which versions the runs were made."""
    groups: dict[str, list[str]] = {}
    for r in results:
        device = r["machine"]["gpu"] or f"{r['machine']['cpu']}, threads: {r['threads']}"
        versions = ", ".join(f"{v} {r['versions'][v]}" for v in _VERSIONS if v in r["versions"])
        groups.setdefault(f"{device}; {versions}", []).append(r["date"])
    return [
        f"{len(dates)} run{'s' if len(dates) > 1 else ''} on {what}; "
        + " to ".join(sorted({min(dates), max(dates)}))
        for what, dates in groups.items()
    ]


def markdown(results: Results, published: dict[str, Any], picture: str | None) -> str:
    """Return all tables as Markdown, with what was not run and where the figures are from."""
    tuned = current(select(results, task="fine-tuning", start="fine-tuned"))
    results = [r for r in results if r["task"] != "fine-tuning"]
    shown = current(results)
    parts = []
    for frames in sizes(select(shown, task="rmd17")):
        parts += [f"### rMD17, {frames} training frames", rmd17(shown + tuned, frames, published)]
    for molecule in sorted({r["molecule"] for r in select(shown, task="learning-curve")}):
        title = f"### Learning curve of {molecule}: forces, MAE (meV/Å)"
        parts += [title, learning_curve(shown, molecule, published)]
    if picture is not None:
        parts.append(f"![Force error against number of training frames]({picture})")
    for task, title in TITLES.items():
        if select(shown, task=task):
            parts += [f"### {title}", other(shown, task, published)]
    for molecule in sorted({r["molecule"] for r in select(shown, task="choices")}):
        title = f"### Choices: {molecule}, 50 training frames, errors on validation frames"
        parts += [title, choices(select(shown, molecule=molecule))]
    lines = [f"{name}: {source}" for name, source in published["sources"].items()]
    parts += closing(results, shown, [t for t in tasks.TASKS if t != "fine-tuning"], lines)
    return "\n\n".join(parts)


def fine_tuning_markdown(results: Results) -> str:
    """Return the table of fine-tuning, with what was not run and where the figures are from."""
    results = select(results, task="fine-tuning")
    shown = current(results)
    parts = [fine_tuning(shown)] if shown else []
    parts += closing(results, shown, ["fine-tuning"], [])
    return "\n\n".join(parts)


def closing(
    results: Results, shown: Results, of: Sequence[str], sources: Sequence[str]
) -> list[str]:
    """Say what was not run of these tasks, what is not shown, and where the figures are from."""
    parts = []
    missing = not_run(shown, of)
    if missing:
        parts += ["### Not run", "\n".join(f"- {what}" for what in missing)]
    lines = origin(shown)
    if len(shown) < len(results):
        lines.append(
            "results of runs with other settings, in `results.json` and not shown: "
            f"{len(results) - len(shown)}"
        )
    lines += sources
    if lines:
        parts += ["### Where the figures are from", "\n".join(f"- {line}" for line in lines)]
    return parts


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    add: Annotated[
        list[Path] | None, typer.Option(help="Results of another machine, to be joined first.")
    ] = None,
    results: Annotated[Path, typer.Option(help="File of the results.")] = record.RESULTS,
    page: Annotated[Path, typer.Option(help="Its figures are replaced, and fine-tuning's.")] = PAGE,
    show: Annotated[bool, typer.Option("--print", help="Print and change no page.")] = False,
) -> None:
    """Write the tables and the figure."""
    os.environ.setdefault("OPENMM_NEQUIP_DATA", "data")  # no data is read, only its name
    for file in add or []:
        print(f"{record.append(results, record.read(file))} results added from {file}")
    found, published = record.read(results), yaml.safe_load(PUBLISHED.read_text())
    if show:
        print(markdown(found, published, None), fine_tuning_markdown(found), sep="\n\n")
        return
    for path in (page, page.with_name(FINE_TUNING)):
        if not path.exists() or BEGIN not in path.read_text() or END not in path.read_text():
            raise InputError(f"'{path}' has not the lines between which figures are put")
    picture = page.parent / "images" / PICTURE.name
    drawn = f"images/{picture.name}" if curve.plot(found, published, picture) else None
    rewrite(page, markdown(found, published, drawn))
    rewrite(page.with_name(FINE_TUNING), fine_tuning_markdown(found))


def rewrite(page: Path, text: str) -> None:
    """Replace what is between the markers of a page."""
    before, rest = page.read_text().split(BEGIN)
    after = rest.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


if __name__ == "__main__":
    with clear_errors():
        app()
