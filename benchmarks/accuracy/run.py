"""Train the benchmarks of accuracy and record their errors.

    export OPENMM_NEQUIP_DATA=<folder with rmd17/, 3bpa/, lips/, ...>
    python benchmarks/accuracy/run.py rmd17 --molecule all --frames 50 --output runs/accuracy
    python benchmarks/accuracy/run.py learning-curve --output runs/accuracy
    python benchmarks/accuracy/run.py fine-tuning training.fine_tune_from=mine.safetensors
    python benchmarks/accuracy/run.py water training.max_epochs=2 --results trial.json

The same command goes on where it was stopped and leaves out finished runs. Every finished run is
added to ``results.json`` beside this script, from which ``tables.py`` makes the tables of
``docs/accuracy.md``; its model file is in its folder under `--output`.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import record
import tasks
import torch
import typer
from frames import with_frames

from openmm_nequip.benchmarking.machine import describe
from openmm_nequip.cli import clear_errors
from openmm_nequip.kernels.engine import choose_engine
from openmm_nequip.training.config import TrainConfig
from openmm_nequip.training.evaluation import errors, evaluation_batches, predict
from openmm_nequip.training.loop import Interrupted
from openmm_nequip.training.preparation import Preparation
from openmm_nequip.training.run import device_type, train
from openmm_nequip.training.sets import Reader, load_sets, make_dataset

_MACHINE = ("cpu", "instructions", "cores", "gpu")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    task: Annotated[str, typer.Argument(help=f"One of: {', '.join(tasks.TASKS)}.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Keys that differ from the configuration: training.max_epochs=2"),
    ] = None,
    molecule: Annotated[
        list[str] | None, typer.Option(help="Of rMD17, several times or 'all'; 3bpa to fine-tune.")
    ] = None,
    frames: Annotated[
        list[int] | None, typer.Option(help="Training frames; may be given several times.")
    ] = None,
    l_max: Annotated[list[int] | None, typer.Option(help="Of the learning curve.")] = None,
    start: Annotated[
        list[str] | None, typer.Option(help="Of fine-tuning: scratch or fine-tuned; else both.")
    ] = None,
    change: Annotated[
        list[str] | None, typer.Option(help="Of the choices, by name; else all.")
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Several times for several runs.")] = None,
    split: Annotated[str, typer.Option(help="Which of the five splits of rMD17.")] = "01",
    config: Annotated[Path | None, typer.Option(help="Instead of the task's own file.")] = None,
    output: Annotated[Path, typer.Option(help="Gets a folder for every run.")] = Path(
        "runs/accuracy"
    ),
    results: Annotated[Path, typer.Option(help="File to which results are added.")] = (
        record.RESULTS
    ),
) -> None:
    """Run what is not finished."""
    cases = tasks.cases(task, frames, molecule, l_max, seed, split, start, change)
    for number, case in enumerate(cases, 1):
        settings = tasks.configuration(case, config, overrides)
        name = f"{case.name}-{tasks.digest(settings)}"
        title = f"run {number} of {len(cases)}: {name}"
        if any(result["run"] == name for result in record.read(results)):
            print(f"{title} is finished, see {results}", flush=True)
            continue
        print(title, flush=True)
        folder = output / name
        settled = with_frames(case, settings, output)
        if not (folder / "metrics.json").exists():
            train(settled, folder)
        file = config or case.config_file
        found = entry(name, case, tasks.digest(settings), file.name, folder, device_type(settled))
        found["settings"] = tasks.settings(settled, folder / f"{case.name}.safetensors")
        if settled.training.fine_tune_from is not None:
            found["fine_tuned_from"] = Path(settled.training.fine_tune_from).stem
            found["before"] = before(settled, output / "cache")
        record.append(results, [found])


def before(config: TrainConfig, cache: Path) -> dict[str, Any]:
    """Return the errors on the test frames of the potential with which fine-tuning starts.

    Where fine-tuning estimates the energy shifts, they are estimated here too.
    """
    preparation = Preparation(config)
    reader = Reader(config.data, preparation.r_max, cache, lambda text: None)
    sets = load_sets(reader, config.seed)
    potential, _ = preparation.build(sets)
    device = device_type(config)
    potential = potential.with_engine(choose_engine(config.training.engine, device)).to(device)
    test = make_dataset(sets.test, potential.elements, potential.r_max)
    return errors(predict(potential, evaluation_batches(test)), potential.elements)


def entry(
    name: str, case: tasks.Case, digest: str, config_file: str, folder: Path, device: str
) -> dict[str, Any]:
    """Return what is recorded of a finished run."""
    metrics = json.loads((folder / "metrics.json").read_text())
    machine = describe(torch.get_num_threads(), device, "")
    return {
        "run": name,
        "task": case.task,
        "molecule": case.molecule,
        "split": case.split,
        "l_max": case.l_max,
        "start": case.start,
        "change": case.change,
        "frames": case.frames,
        "seed": case.seed,
        "config_file": config_file,
        "digest": digest,
        "validation": metrics["validation"],
        "test": metrics["test"],
        "epochs": metrics["run"]["epochs"],
        "best_epoch": metrics["run"]["best_epoch"],
        "seconds": metrics["run"]["seconds"],
        "threads": machine["threads"],
        "machine": {key: machine[key] for key in _MACHINE},
        "versions": json.loads((folder / "versions.json").read_text()),
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
    }


def commit() -> str | None:
    """Return the commit of this checkout, with a mark where files differ; `None` without git."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
    try:
        found = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return found.stdout.strip() or None


if __name__ == "__main__":
    try:
        with clear_errors():
            app()
    except Interrupted:
        sys.exit(130)
