"""``openmm-nequip train``."""

from pathlib import Path
from typing import Annotated

import typer

from . import app


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="YAML file of the run.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Keys that differ from the file, e.g. training.max_epochs=200"),
    ] = None,
) -> None:
    """Train a potential on reference calculations, or go on with an interrupted run.

    The smallest file says where the data is and how much of it to train on:

        data:
          file: ethanol.npz
          n_train: 50

    Example:

        openmm-nequip train ethanol.yaml model.r_max=4.0 output=runs/ethanol-4

    The run folder (runs/ethanol without output=) gets the model file, errors, plots and logs.
    The same command goes on after an interruption.
    """
    from ..config import load_config
    from ..training.config import TrainConfig, find_files
    from ..training.loop import Interrupted
    from ..training.run import output_folder
    from ..training.run import train as run

    settings = load_config(TrainConfig, config, overrides or [])
    settings = find_files(settings, config.parent, overrides or [])
    output = output_folder(settings, config)
    name = settings.name or output.resolve().name
    try:
        run(settings.model_copy(update={"name": name}), output)
    except Interrupted:
        raise typer.Exit(130) from None
