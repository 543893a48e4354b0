"""``openmm-nequip analyze``: observables and figures of a run."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from . import app


@app.command()
def analyze(
    run: Annotated[Path, typer.Argument(help="Run folder of [bold]simulate[/].")],
) -> None:
    """Compute and plot what happened in a run.

    Energies, temperature, energy drift, RMSD, bond lengths, and radial distribution functions
    where there is a box. `simulate` does this at its end; use it to look at a run that is going
    on, or again after an update:

        openmm-nequip analyze runs/ethanol

    Writes summary.json, summary.md and the figures in plots/ into the run folder.
    """
    report(run, Console(soft_wrap=True, highlight=False))


def report(folder: Path, console: Console) -> None:
    """Analyse a run folder, save figures and summary and print them."""
    from ..analysis.plots import save_plots
    from ..analysis.report import save_report
    from ..analysis.summary import analyze, save_summary, table

    analysis = analyze(folder)
    plots = save_plots(analysis.title, analysis.pictures, folder / "plots")
    save_summary(analysis, plots)
    page = save_report(analysis)
    grid = Table(title=analysis.title, title_justify="left", show_header=False)
    for name, value in table(analysis.summary):
        grid.add_row(name, value)
    console.print(grid)
    console.print(f"report: [bold]{escape(str(page))}[/], single figures in plots/ beside it")
