"""``openmm-nequip analyze``: observables and figures of a run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from . import app

if TYPE_CHECKING:
    from ..analysis.summary import Analysis


@app.command()
def analyze(
    run: Annotated[Path, typer.Argument(help="Run folder of [bold]simulate[/].")],
) -> None:
    """Compute and plot what happened in a run.

    RMSD, fluctuations, torsions and conformers of the ML region or molecule, its surface, hydrogen
    bonds and solvent, radial distribution functions and diffusion, energies, temperature and
    density, with errors. `simulate` does this at its end; use it to look at a run that is going
    on, or again after an update:

        openmm-nequip analyze runs/ethanol

    Writes report.html, which needs no network, summary.json, summary.md and the figures in plots/
    into the run folder. A folder with replica-1/, replica-2/, ... gets the same for each, and a
    table of all with the scatter between them as the error.
    """
    report(run, Console(soft_wrap=True, highlight=False))


def report(folder: Path, console: Console) -> None:
    """Analyse a run folder or one of replicas, save figures, summary and report, print results."""
    from ..analysis.replicas import find_replicas

    replicas = find_replicas(folder)
    if len(replicas) < 2:
        _one(replicas[0] if replicas else folder, console)
    else:
        _several(folder, replicas, console)


def _one(folder: Path, console: Console) -> None:
    from ..analysis.summary import analyze, table

    analysis = analyze(folder)
    _save(analysis)
    grid = Table(title=analysis.title, title_justify="left", show_header=False)
    for name, value in table(analysis.summary):
        grid.add_row(name, escape(value))
    console.print(grid)
    console.print(f"report: [bold]{escape(str(folder))}/report.html[/]")


def _several(folder: Path, replicas: list[Path], console: Console) -> None:
    from ..analysis import replicas as several
    from ..analysis.folder import open_run
    from ..analysis.report import save_combined_report
    from ..analysis.summary import analyze_together
    from ..errors import InputError

    runs = []
    for replica in replicas:
        try:
            runs.append(open_run(replica))
        except InputError as error:  # one that has just begun
            console.print(f"{replica.name} left out: {error}", markup=False)
    if len(runs) < 2:
        raise InputError(f"of the replicas in '{folder}' fewer than two are long enough to compare")
    analyses = []
    for analysis in analyze_together(runs):
        _save(analysis)
        analyses.append(analysis)
        console.print(f"{analysis.run.folder.name} analysed")
    found = several.combine(analyses)
    several.save_combined(folder, analyses, found)
    page = save_combined_report(folder, analyses, found)
    grid = Table(title=analyses[0].title, title_justify="left")
    for name in ("", "mean", *(analysis.run.folder.name for analysis in analyses)):
        grid.add_column(name)
    for row in several.table(found):
        grid.add_row(*map(escape, row))
    console.print(grid)
    for caution in several.scattered(found):
        console.print(f"caution: {caution}", markup=False)
    console.print(f"report: [bold]{escape(str(page))}[/]")


def _save(analysis: "Analysis") -> None:
    """Write figures, summary and report into the run folder."""
    from ..analysis.plots import save_plots
    from ..analysis.report import save_report
    from ..analysis.summary import save_summary

    folder = analysis.run.folder
    save_summary(analysis, save_plots(analysis.title, analysis.pictures, folder / "plots"))
    save_report(analysis)
