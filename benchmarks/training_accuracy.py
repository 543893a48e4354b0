"""Train the same network by this package and by nequip-train: errors after equal numbers of epochs.

Aspirin of rMD17, 50 frames, the same hyperparameters and frames, different initial weights::

    export OPENMM_NEQUIP_DATA=<folder with rmd17/>
    python benchmarks/training_accuracy.py runs/training-accuracy

Errors are those on 100 held-out frames, with averaged weights. The command goes on where it was
stopped; what was found is in ``results.json`` of the folder. nequip-train needs minutes for a run.
"""

import csv
import json
import os
import statistics
from pathlib import Path
from typing import Annotated, Any

import ase.io
import numpy as np
import typer
import yaml

from openmm_nequip.benchmarking.budget import Budget
from openmm_nequip.benchmarking.models import SHAPES
from openmm_nequip.benchmarking.training import (
    BATCH,
    labelled_atoms,
    nequip_config,
    run_program,
)
from openmm_nequip.config import parse_config
from openmm_nequip.data.readers import read_frames
from openmm_nequip.training.config import TrainConfig
from openmm_nequip.training.run import train
from openmm_nequip.versions import versions

TRAINING, HELD_OUT, NEIGHBORS = 50, 100, 17.0
_LIMIT = 7200.0  # s, for a run of nequip-train


def main(
    folder: Annotated[Path, typer.Argument(help="Folder of the runs and results.")],
    epochs: Annotated[int, typer.Option(help="Of each run.")] = 60,
    seeds: Annotated[int, typer.Option(help="Runs of each program.")] = 2,
) -> None:
    """Run what is missing, and print the table."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    files, scale, shift = _frames(folder)
    for seed in range(1, seeds + 1):
        for program, run in (("openmm-nequip", _ours), ("nequip-train", _theirs)):
            name = f"{program} | {epochs} epochs | seed {seed}"
            if name not in results:
                place = folder / name.replace(" | ", "-").replace(" ", "")
                results[name] = run(files, scale, shift, epochs, seed, place)
                results["versions"] = versions()
                path.write_text(json.dumps(results, indent=2) + "\n")
            print(f"{name}: forces {results[name]:.1f} meV/Å", flush=True)
    for program in ("openmm-nequip", "nequip-train"):
        found = [v for k, v in results.items() if k.startswith(f"{program} | {epochs} ")]
        spread = f" ± {statistics.stdev(found):.1f}" if len(found) > 1 else ""
        print(f"{program}: MAE of forces {statistics.mean(found):.1f}{spread} meV/Å")


def _frames(folder: Path) -> tuple[dict[str, Path], float, float]:
    """Write the frames of both sets; return the files, and the scale and shift of the energies."""
    data = Path(os.environ["OPENMM_NEQUIP_DATA"]) / "rmd17/rmd17_aspirin_train_01.npz"
    frames = read_frames(data)
    files = {}
    for name, chosen in (
        ("train", frames[:TRAINING]), ("held-out", frames[TRAINING : TRAINING + HELD_OUT]),
    ):  # fmt: skip
        images = [labelled_atoms(f.numbers, f.positions, f.energy, f.forces) for f in chosen]
        files[name] = folder.resolve() / f"{name}.xyz"
        ase.io.write(files[name], images, format="extxyz")
    forces = np.concatenate([frame.forces for frame in frames[:TRAINING]])
    energies = [frame.energy / len(frame.numbers) for frame in frames[:TRAINING]]
    return files, float(np.sqrt(np.square(forces).mean())), float(np.mean(energies))


def _ours(
    files: dict[str, Path], scale: float, shift: float, epochs: int, seed: int, place: Path
) -> float:
    values = {
        "seed": seed,
        "data": {"file": str(files["train"]), "val_file": str(files["held-out"])},
        "model": {
            **SHAPES["aspirin"],
            "avg_num_neighbors": NEIGHBORS,
            "per_type_energy_scales": scale,
            "per_type_energy_shifts": shift,
        },
        "training": {
            "batch_size": BATCH,
            "max_epochs": epochs,
            "val_interval": epochs,
            "optimizer": "adam",
            "schedule": "constant",
            "loss": "mse",
        },
    }
    train(parse_config(TrainConfig, values, where=__file__), place)
    metrics = json.loads((place / "metrics.json").read_text())
    return float(metrics["validation"]["forces_mae_meV_per_A"])


def _theirs(
    files: dict[str, Path], scale: float, shift: float, epochs: int, seed: int, place: Path
) -> float:
    place.mkdir(exist_ok=True)
    elements = ["C", "H", "O"]
    config = nequip_config(files["train"], elements, "eager", epochs, "cpu", place / "times.json")
    data, model = config["data"], config["training_module"]["model"]
    del data["split_dataset"]
    data |= {"train_file_path": str(files["train"]), "val_file_path": str(files["held-out"])}
    data["seed"] = model["seed"] = seed
    model |= {"per_type_energy_scales": scale, "per_type_energy_shifts": shift}
    config["trainer"] |= {
        "check_val_every_n_epoch": epochs,
        "logger": {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": str(place)},
        "num_sanity_val_steps": 0,
    }
    (place / "config.yaml").write_text(yaml.safe_dump(config))
    run_program("nequip.scripts.train", ["-cp", str(place), "-cn", "config"], place, Budget(_LIMIT))
    (log,) = place.glob("lightning_logs/version_*/metrics.csv")
    with log.open() as file:
        found = [row["val0_epoch/forces_mae"] for row in csv.DictReader(file)]
    return 1e3 * float(next(value for value in reversed(found) if value))


if __name__ == "__main__":
    typer.run(main)
