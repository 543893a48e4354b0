"""``openmm-nequip evaluate``."""

from pathlib import Path
from typing import Annotated

import typer

from . import app


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="Model file, or name of a bundled potential.")],
    data: Annotated[Path, typer.Argument(help="Labelled frames in any known format.")],
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for metrics.json and parity.png; <model>-on-<data> if not given"),
    ] = None,
    format: Annotated[str | None, typer.Option(help="Format of the data file.")] = None,
    energy_unit: Annotated[str | None, typer.Option(help="E.g. kcal/mol.")] = None,
    length_unit: Annotated[str | None, typer.Option(help="E.g. bohr.")] = None,
    force_unit: Annotated[str | None, typer.Option(help="E.g. kcal/mol/Å.")] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(help="Name of a label in the file, e.g. energy=dft_energy; repeatable."),
    ] = None,
    skip_bad_frames: Annotated[
        bool, typer.Option(help="Leave broken frames out instead of refusing the file.")
    ] = False,
) -> None:
    """Compare a potential with reference calculations: errors and a parity plot.

    Example:

        openmm-nequip evaluate runs/ethanol/ethanol.safetensors test.extxyz --output errors
    """
    from ..errors import InputError
    from ..training.assess import assess

    keys = {}
    for pair in key or []:
        label, separator, name = pair.partition("=")
        if not separator:
            raise InputError(f"--key '{pair}' is not of the form label=name")
        keys[label] = name
    assess(
        model,
        data,
        output or Path(f"{Path(model).stem}-on-{data.stem}"),
        format=format,
        energy_unit=energy_unit,
        length_unit=length_unit,
        force_unit=force_unit,
        keys=keys or None,
        on_bad="skip" if skip_bad_frames else "error",
    )
