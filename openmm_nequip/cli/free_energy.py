"""``openmm-nequip free-energy``: what it costs to replace a force field by a potential."""

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from . import app
from .analyze import report
from .simulate import display

if TYPE_CHECKING:
    from ..analysis.free_energy import FreeEnergy


@app.command()
def free_energy(
    config: Annotated[Path, typer.Argument(help="YAML file of a mixed run, as for simulate.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes to its keys.", metavar="KEY=VALUE")
    ] = None,
    windows: Annotated[
        str, typer.Option(help="The values of λ, from the force field (0) to the potential (1).")
    ] = "0 0.25 0.5 0.75 1",
) -> None:
    """Compute the free energy from a force field to a potential in the ML region.

    Runs the same mixed simulation at several λ, between which force field and potential are
    interpolated in the region, and combines them by MBAR. It needs pymbar, and a force field with
    bonded terms for the region:

        openmm-nequip free-energy toluene.yaml time='100 ps'

    The number contains the difference between the zeros of both energies. Where that cancels, it is
    the correction of a result of the force field: of a free energy of solvation, say, the number in
    water less that in vacuum.

    Writes free_energy.json and free_energy.png beside the run folders of the windows, each with its
    report.html. The same command goes on where it was stopped; more windows can be asked for later.
    """
    from ..analysis.folder import open_run
    from ..analysis.free_energy import free_energy as estimate
    from ..analysis.free_energy import save_free_energy
    from ..config import load_config
    from ..md.config import SimulationConfig
    from ..md.inputs import find_files, load_input
    from ..md.protocol import run_windows, window_folder

    lambdas = _numbers(windows)
    settings = load_config(SimulationConfig, config, overrides or [])
    folder = Path(settings.output or Path("runs") / f"{config.stem}-free-energy")
    settings = find_files(settings, config.parent, overrides or [])
    # a force field that is to be interpolated has no constraints in the region
    structure = load_input(settings.model_copy(update={"lambda_interpolate": lambdas[0]}))

    console = Console(soft_wrap=True, highlight=False)
    console.print(
        f"{len(lambdas)} windows of {settings.total_steps:,} steps, folder "
        f"[bold]{escape(str(folder))}[/]"
    )
    try:
        with display(console) as observer:
            finished = run_windows(settings, lambdas, folder, structure, observer)
    except KeyboardInterrupt:
        finished = False
    if not finished:
        console.print("stopped; the same command goes on from there")
        raise typer.Exit(130)
    runs = [open_run(window_folder(folder, value)) for value in lambdas]
    series = [run.steady_log["dE_dlambda_kJ_mol"] for run in runs]
    result = estimate(lambdas, series, settings.temperature)
    cautions = save_free_energy(result, folder)
    console.print(_table(result))
    console.print(
        f"[bold]{escape(result.total.name)}: {result.total.number()}[/]; by thermodynamic "
        f"integration {result.integral.number()}"
    )
    for caution in cautions:
        console.print(f"caution: {caution}", markup=False)
    console.print(f"figures: [bold]{escape(str(folder))}/free_energy.png[/]")
    for run in runs:
        report(run.folder, Console(quiet=True))
    console.print(f"report of each window: [bold]{escape(str(folder))}/lambda-*/report.html[/]")


def _numbers(text: str) -> list[float]:
    """Read the values of λ.

    Raises
    ------
    InputError
        They are not two or more ascending numbers from 0 to 1.
    """
    from ..errors import InputError

    try:
        values = [float(word) for word in text.replace(",", " ").split()]
    except ValueError:
        values = []
    ascending = all(a < b for a, b in pairwise(values))
    if len(values) < 2 or not ascending or values[0] < 0 or values[-1] > 1:
        raise InputError(
            f"--windows '{text}': give two or more ascending numbers from 0 to 1, like '0 0.5 1'"
        )
    return values


def _table(result: "FreeEnergy") -> Table:
    grid = Table("λ", "free energy (kJ/mol)", "⟨dE/dλ⟩ (kJ/mol)", "independent samples", "overlap")
    overlaps = [f"{overlap:.2f}" for overlap in result.overlaps]
    for k, value in enumerate(result.lambdas):
        grid.add_row(
            f"{value:g}",
            f"{result.profile[k]:.2f} ± {result.errors[k]:.2f}",
            f"{result.derivatives[k]:.2f} ± {result.derivative_errors[k]:.2f}",
            f"{result.samples[k]:.0f}",
            overlaps[k] if k < len(overlaps) else "",
        )
    return grid
