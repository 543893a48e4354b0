"""``openmm-nequip simulate``: a molecular dynamics run from a few lines of YAML."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

from ..units import format_seconds
from . import app

if TYPE_CHECKING:
    from ..md.progress import Progress as Status

_PLAIN_SECONDS = 10.0  # between two lines where there is no terminal


@app.command()
def simulate(
    config: Annotated[Path, typer.Argument(help="YAML file that describes the run.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes to its keys.", metavar="KEY=VALUE")
    ] = None,
) -> None:
    """Run molecular dynamics with a potential in OpenMM.

    A complete configuration, [bold]ethanol.yaml[/]:

        structure: ethanol   # or a PDB, mmCIF, xyz, ... file
        ensemble: nvt        # nve, nvt or npt
        temperature: 300     # K
        time: 5 ps

    Run it, with another seed into another folder:

        openmm-nequip simulate ethanol.yaml seed=2 output=runs/second

    A molecule in water, by a force field but for the molecule's own energy:

        structure: box.pdb
        force_field: \\[amber14-all.xml, amber14/tip3p.xml]   # or system.xml, x.prmtop, x.top
        ml_region: resname LIG
        ensemble: npt
        time: 1 ns

    The run folder (runs/ethanol by default) gets the trajectory, state.csv, log.txt, plots and a
    summary.
    The same command goes on with a run that was stopped or killed.
    """
    from ..config import load_config
    from ..errors import InputError
    from ..kernels.engine import choose_engine
    from ..md.config import SimulationConfig
    from ..md.inputs import find_files, load_input
    from ..md.preparation import ml_region
    from ..md.protocol import run
    from .analyze import report

    settings = load_config(SimulationConfig, config, overrides or [])
    folder = Path(settings.output or Path("runs") / config.stem)
    settings = find_files(settings, config.parent, overrides or [])
    structure = load_input(settings)
    region = ml_region(settings, structure)

    console = Console(soft_wrap=True, highlight=False)
    others = "" if region is None else f" and {len(structure.positions) - len(region):,} MM atoms"
    console.print(
        f"[bold]{structure.formula(region)}[/]{others} ({escape(settings.structure)}), "
        f"{settings.ensemble.upper()}, {settings.temperature:g} K, "
        f"{settings.total_steps:,} steps of {settings.timestep:g} fs, "
        f"{choose_engine(settings.engine, settings.device)} engine, "
        f"run folder [bold]{escape(str(folder))}[/]"
    )
    try:
        with display(console) as observer:
            result = run(settings, folder, structure, observer)
    except KeyboardInterrupt:
        console.print("stopped before the first step; the same command starts again")
        raise typer.Exit(130) from None
    if not result.finished:
        console.print(
            f"stopped at step {result.step:,} of {result.total:,} and saved; "
            "the same command goes on from there"
        )
        raise typer.Exit(130)
    try:
        report(folder, console)  # of each replica, and of all together
    except InputError as error:  # the run itself is complete, however short
        console.print(f"finished, not analysed: {error}", markup=False)
    except KeyboardInterrupt:
        console.print(f"finished, not analysed: 'openmm-nequip analyze {folder}' does it")
        raise typer.Exit(130) from None


def display(console: Console) -> "Lines | _Display":
    """Return what shows the progress of a run: a bar, or lines where there is no terminal."""
    return _Display(console) if console.is_terminal else Lines(console)


class Lines:
    """Plain lines, one every few seconds."""

    def __init__(self, console: Console):
        self._console, self._last = console, 0.0

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def message(self, text: str) -> None:
        self._console.print(text, markup=False)

    def progress(self, status: "Status") -> None:
        now = time.monotonic()
        ends = (status.first_step, 0, status.total)
        if now - self._last < _PLAIN_SECONDS and status.step not in ends:
            return
        self._last = now
        self._console.print(
            f"step {status.step:>9,} of {status.total:,}  {status.time:.3f} ps  "
            + "  ".join(_readings(status))
        )


class _Display:
    """A progress bar with the readings beside it."""

    def __init__(self, console: Console):
        self._bar = Progress(
            TextColumn("{task.fields[time]:.2f} ps"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f}%"),
            TextColumn("{task.fields[readings]}"),
            console=console,
        )
        self._task = self._bar.add_task("", total=None, time=0.0, readings="preparing")

    def __enter__(self) -> "_Display":
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def message(self, text: str) -> None:
        self._bar.console.print(text, markup=False)

    def progress(self, status: "Status") -> None:
        readings = _readings(status)  # in two lines: one is too wide for many terminals
        self._bar.update(
            self._task,
            total=status.total - status.first_step,
            completed=status.step - status.first_step,
            time=status.time,
            readings="  ".join(readings[:2]) + "\n" + "  ".join(readings[2:]),
        )


def _readings(status: "Status") -> list[str]:
    """Return what is known of the state, the most important first."""
    reading = status.reading
    total = reading.potential + reading.kinetic
    parts = [f"T {reading.temperature:6.1f} K"]
    if reading.ml_potential is None:
        parts += [f"E_pot {reading.potential:.2f} kJ/mol", f"E_tot {total:.2f} kJ/mol"]
    else:  # the energy of thousands of waters tells nobody anything
        parts.append(f"E_ML {reading.ml_potential:.2f} kJ/mol")
    if reading.derivative is not None:
        parts.append(f"dE/dλ {reading.derivative:.2f} kJ/mol")
    if status.density is not None:
        parts.append(f"{status.density:.4f} g/mL")
    if status.first_step:
        parts.append(status.stage)
    if status.left is not None:
        parts += [f"{status.speed:.3g} ns/day", f"{format_seconds(status.left)} left"]
    return parts
