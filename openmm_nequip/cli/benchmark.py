"""``openmm-nequip benchmark``: how fast it is on this machine, beside other implementations."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from . import app

if TYPE_CHECKING:
    from ..benchmarking.results import Row


@app.command()
def benchmark(
    output: Annotated[
        Path | None,
        typer.Argument(help="Folder for benchmark.json and benchmark.png; benchmark-<time>."),
    ] = None,
    part: Annotated[
        list[str] | None,
        typer.Option(help="energy, md, profile, training or memory; repeatable. \\[energy, md]"),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="aspirin, S, M or L; repeatable. \\[aspirin, S, M]"),
    ] = None,
    atoms: Annotated[
        list[int] | None, typer.Option(help="Size of a box of water; repeatable. \\[21, 192]")
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(help="fused, reference, nequip, nequip-aotinductor, ...; repeatable. \\[all]"),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds of alternating repeats.")] = 5,
    minutes: Annotated[
        float | None,
        typer.Option(min=0, help="What does not fit into this time is skipped. \\[2; --full: 90]"),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads. \\[as many as there are cores]")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu or cuda. \\[cuda if there is a GPU]")
    ] = None,
    platform: Annotated[str | None, typer.Option(help="OpenMM platform. \\[the fastest]")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Labelled frames for the training part. \\[synthetic]")
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Also where the time of a step goes: part profile.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Everything, compiled peers and large boxes included.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results that are in the folder.")
    ] = False,
) -> None:
    """Measure energies, MD steps, training and memory beside other implementations.

    All engines have the same weights where they can, are checked against each other, and take
    turns: a, b, c, a, b, c. Without options it takes about two minutes.

    Example, boxes of water for one size of network, our two engines and nequip:

        openmm-nequip benchmark water --model M --atoms 192 --atoms 648 --engine fused
        --engine reference --engine nequip --minutes 10

    Everything, on a quiet machine:

        openmm-nequip benchmark results --full
    """
    from ..benchmarking.machine import cores

    threads = threads or cores()
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):  # read when torch and Numba start
        os.environ[name] = str(threads)
    import torch

    from ..benchmarking.results import PLOT, tables
    from ..benchmarking.run import Settings, run
    from ..benchmarking.run import full as full_settings

    if profile and (part or not full):
        part = list(dict.fromkeys([*(part or Settings().parts), "profile"]))
    chosen: dict[str, Any] = {
        "parts": part,
        "models": model,
        "atoms": atoms,
        "engines": engine,
        "minutes": minutes,
        "platform": platform,
        "data": data,
        "device": device or ("cuda" if torch.cuda.is_available() else "cpu"),
    }
    if engine and "nequip-aotinductor" in engine:
        chosen["compile"] = True
    changes = {key: value for key, value in chosen.items() if value is not None}
    settings = (full_settings if full else Settings)(repeats=repeats, threads=threads, **changes)
    folder = output or Path(time.strftime("benchmark-%Y%m%d-%H%M%S"))

    console = Console(soft_wrap=True, highlight=False)
    if not console.is_terminal:  # a file has room for wide tables
        console.width = 120
    document = run(
        settings,
        folder,
        overwrite,
        observer=lambda row: console.print(f"  {escape(_line(row))}"),
        stage=lambda text: console.print(f"[bold]{escape(text)}[/]"),
    )
    for text in tables(document):
        table = Table(title=text.title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
        for name, numeric in zip(text.columns, text.numeric, strict=True):
            table.add_column(name, justify="right" if numeric else "left", overflow="fold")
        for cells in text.rows:
            table.add_row(*(escape(cell) for cell in cells))
        console.print(table)
        for note in text.notes:
            console.print(f"  {note}", markup=False)
    written = [name for name in ("benchmark.json", PLOT) if (folder / name).exists()]
    console.print(f"written to [bold]{escape(str(folder))}[/]: {', '.join(written)}")
    if any(row["status"] == "disagrees" for row in document["rows"]):
        console.print("[bold red]error:[/] engines with the same weights disagree, see above")
        raise typer.Exit(1)


def _line(row: "Row") -> str:
    from ..benchmarking.results import milliseconds
    from ..benchmarking.timing import quartiles

    name = f"{row.atoms:>6,} atoms  {row.engine:<24}"
    if row.status != "measured":
        return f"{name}{row.status}: {row.reason}"
    if row.part == "memory":
        return f"{name}{row.details['peak_mb']:,.0f} MB at its peak"
    return f"{name}{milliseconds(quartiles(row.seconds)[1])} ms"
