"""Training: frames per second of ``openmm-nequip train`` and of ``nequip-train``.

Both train the aspirin model from scratch with the same optimizer, loss, averaging of weights and
batch size, each in a process of its own, in turn. Start-up and the first epoch do not count.
"""

import csv
import importlib.util
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np
import yaml
from ase.calculators.singlepoint import SinglePointCalculator

from ..errors import InputError
from .budget import Budget
from .models import SHAPES
from .results import Results, Row
from .samples import aspirin

BATCH = 5
_STEPS = 10  # optimizer steps of an epoch
_SPRING = 20.0  # eV/Å², of the synthetic labels
_NEIGHBORS = 17.0

#: Name: the engine of our configuration, or the compile mode of nequip's.
PROGRAMS = {"fused": "fused", "reference": "reference", "nequip-train": "eager"}


def measure_training(
    engines: list[str],
    data: Path | None,
    epochs: int,
    rounds: int,
    device: str,
    budget: Budget,
    results: Results,
) -> None:
    """Measure optimizer steps; every epoch after the first is one repeat.

    Parameters
    ----------
    engines
        As for `measure_energy`; ``'nequip'`` stands for nequip-train.
    data
        Labelled frames; distorted aspirin molecules if not given.
    epochs, rounds
        Epochs of a process, and how often the programs take turns.
    device
        Where to compute.
    budget
        Ends a process that takes too long.
    results
        Get the rows.

    Raises
    ------
    InputError
        `data` cannot be read, or has too few frames.
    """
    programs = [name for name in PROGRAMS if name.removesuffix("-train") in engines]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "data.xyz")
        frames = _synthetic() if data is None else _frames(data)
        ase.io.write(file, frames, format="extxyz")
        elements = sorted({symbol for atoms in frames for symbol in atoms.symbols})
        rows = {
            name: Row("training", "aspirin", len(frames[0]), name, details={"batch_size": BATCH})
            for name in programs
        }
        for turn in range(rounds):
            for name in programs:
                if rows[name].status == "measured":
                    run = _ours if name in ("fused", "reference") else _theirs
                    place = Path(folder, f"{name}-{turn}")
                    _take_turn(run, rows[name], file, elements, epochs, device, place, budget)
        for row in rows.values():
            if row.seconds:
                row.details["frames_per_second"] = BATCH / float(np.median(row.seconds))
            results.add(row)


def _take_turn(
    run: Callable[..., list[float]],
    row: Row,
    file: Path,
    elements: list[str],
    epochs: int,
    device: str,
    folder: Path,
    budget: Budget,
) -> None:
    if budget.left() <= 0:
        if not row.seconds:
            row.status, row.reason = "skipped", "the time is used up"
        return
    try:
        row.seconds += run(file, elements, PROGRAMS[row.engine], epochs, device, folder, budget)
    except subprocess.TimeoutExpired:
        if not row.seconds:
            row.status, row.reason = "skipped", "took longer than the time that was left"
    except ModuleNotFoundError as error:
        row.status, row.reason = "unavailable", str(error)
    except RuntimeError as error:
        row.status, row.reason = "failed", str(error)


def _ours(
    file: Path,
    elements: list[str],
    engine: str,
    epochs: int,
    device: str,
    folder: Path,
    budget: Budget,
) -> list[float]:
    """Return seconds per step from the run's log (a validation of one frame included)."""
    folder.mkdir()
    config = {
        "data": {"file": str(file), "n_train": BATCH * _STEPS, "n_val": 1},
        "model": {**SHAPES["aspirin"], "avg_num_neighbors": _NEIGHBORS},
        "training": {
            "batch_size": BATCH,
            "max_epochs": epochs,
            "val_interval": 1,
            "optimizer": "adam",
            "loss": "mse",
            "schedule": "constant",
            "engine": engine,
            "accelerator": "cuda" if device.startswith("cuda") else "cpu",
        },
        "output": str(folder / "run"),
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    run_program("openmm_nequip", ["train", str(path)], folder, budget)
    with (folder / "run" / "log.csv").open() as log:
        rows = [(int(row["step"]), float(row["seconds"])) for row in csv.DictReader(log)]
    return [(t - s) / (b - a) for (a, s), (b, t) in itertools.pairwise(rows)]


def _theirs(
    file: Path,
    elements: list[str],
    compile_mode: str,
    epochs: int,
    device: str,
    folder: Path,
    budget: Budget,
) -> list[float]:
    """Return seconds per step from the times at which nequip-train's steps ended."""
    if importlib.util.find_spec("nequip") is None:
        raise ModuleNotFoundError("nequip is not installed: pip install 'openmm-nequip[interop]'")
    folder.mkdir()
    times = folder / "times.json"
    config = nequip_config(file, elements, compile_mode, epochs, device, times)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    run_program("nequip.scripts.train", ["-cp", str(folder), "-cn", "config"], folder, budget)
    return per_epoch(json.loads(times.read_text()))


def per_epoch(ends: list[tuple[int, float]]) -> list[float]:
    """Return seconds per step of every epoch but the first.

    Parameters
    ----------
    ends
        Epoch and end of every step, seconds. What happens between epochs does not count.
    """
    seconds = []
    for epoch in sorted({epoch for epoch, _ in ends})[1:]:
        clock = [end for other, end in ends if other == epoch]
        seconds.append((clock[-1] - clock[0]) / (len(clock) - 1))
    return seconds


def run_program(module: str, arguments: list[str], folder: Path, budget: Budget) -> None:
    """Run a module as a program in a folder.

    Raises
    ------
    RuntimeError
        It failed; the message is its last line.
    subprocess.TimeoutExpired
        It took longer than the budget has left.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder, capture_output=True, text=True, timeout=max(1.0, budget.left()),
    )  # fmt: skip
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise RuntimeError(lines[-1] if lines else f"exit code {done.returncode}")


def nequip_config(
    file: Path, elements: list[str], compile_mode: str, epochs: int, device: str, times: Path
) -> dict[str, Any]:
    """Return nequip-train's configuration for the aspirin model.

    Parameters
    ----------
    file
        Extended XYZ of the frames.
    elements
        Symbols.
    compile_mode
        Of nequip.
    epochs, device
        How long to train, and where.
    times
        Gets the epoch and end of every step.
    """
    transforms = [
        {
            "_target_": "nequip.data.transforms.ChemicalSpeciesToAtomTypeMapper",
            "model_type_names": elements,
            "chemical_species_to_atom_type_map": {symbol: symbol for symbol in elements},
        },
        {
            "_target_": "nequip.data.transforms.NeighborListTransform",
            "r_max": SHAPES["aspirin"]["r_max"],
        },
    ]
    loader = {"_target_": "torch.utils.data.DataLoader", "batch_size": BATCH}
    return {
        "run": ["train"],
        "data": {
            "_target_": "nequip.data.datamodule.ASEDataModule",
            "seed": 0,
            "split_dataset": {"file_path": str(file), "train": BATCH * _STEPS, "val": 1},
            "transforms": transforms,
            "train_dataloader": {**loader, "shuffle": True},
            "val_dataloader": loader,
            "stats_manager": {
                "_target_": "nequip.data.CommonDataStatisticsManager",
                "type_names": elements,
                "dataloader_kwargs": {"batch_size": BATCH},
            },
        },
        "trainer": {
            "_target_": "lightning.Trainer",
            "accelerator": "cuda" if device.startswith("cuda") else "cpu",
            "devices": 1,
            "max_epochs": epochs,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "callbacks": [
                {"_target_": "openmm_nequip.benchmarking.steps.StepTimes", "path": str(times)}
            ],
        },
        "training_module": {
            "_target_": "nequip.train.EMALightningModule",
            "ema_decay": 0.99,
            "loss": {
                "_target_": "nequip.train.EnergyForceLoss",
                "coeffs": {"total_energy": 1.0, "forces": 1.0},
            },
            "val_metrics": {"_target_": "nequip.train.EnergyForceMetrics"},
            "optimizer": {"_target_": "torch.optim.Adam", "lr": 0.01, "amsgrad": True},
            "model": {
                "_target_": "nequip.model.NequIPGNNModel",
                "seed": 0,
                "model_dtype": "float32",
                "type_names": elements,
                **SHAPES["aspirin"],
                "avg_num_neighbors": _NEIGHBORS,
                "per_type_energy_scales": 1.0,
                "per_type_energy_shifts": 0.0,
                "compile_mode": compile_mode,
            },
        },
    }


def _synthetic() -> list[ase.Atoms]:
    """Return distorted aspirin molecules with energies and forces of springs."""
    sample = aspirin()
    rest = sample.frame.positions
    i, j = sample.springs.T
    lengths = np.linalg.norm(rest[j] - rest[i], axis=1)
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(BATCH * _STEPS + 1):
        positions = rest + 0.05 * rng.normal(size=rest.shape)
        vectors = positions[j] - positions[i]
        distances = np.linalg.norm(vectors, axis=1)
        stretch = distances - lengths
        pull = (2 * _SPRING * stretch / distances)[:, None] * vectors
        forces = np.zeros_like(rest)
        np.add.at(forces, i, pull)
        np.add.at(forces, j, -pull)
        energy = _SPRING * float(np.square(stretch).sum())
        frames.append(labelled_atoms(sample.frame.numbers, positions, energy, forces))
    return frames


def _frames(path: Path) -> list[ase.Atoms]:
    from ..data.readers import iter_frames

    needed = BATCH * _STEPS + 1
    frames = [
        labelled_atoms(
            frame.numbers, frame.positions, frame.energy, frame.forces, frame.cell, frame.pbc
        )
        for frame in itertools.islice(iter_frames(path), needed)
    ]
    if len(frames) < needed:
        raise InputError(f"'{path}' has {len(frames)} frames: the benchmark needs {needed}")
    return frames


def labelled_atoms(
    numbers: Any, positions: Any, energy: Any, forces: Any, cell: Any = None, pbc: Any = False
) -> ase.Atoms:
    """Return ASE's atoms with energy, eV, and forces, eV/Å."""
    atoms = ase.Atoms(numbers, positions, cell=cell, pbc=pbc)
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    return atoms
