"""Liquid water from a potential: structure, pressure, diffusion and stability.

    export OPENMM_NEQUIP_DATA=<folder with water_pbe0/ and water_rdf/>
    python benchmarks/water/evaluate.py runs/accuracy/.../water-133-seed1.safetensors
    python benchmarks/water/evaluate.py water-pbe0 --temperature 300 --temperature 330 --time 100

For each temperature there is one run of NVT with 64 molecules in the box of the DFT frames,
starting from one of them. It goes on where it was stopped. Its figures are added to
``results.json`` in `--output` and never replaced; the table for the potential's card, ``table.md``,
and the figures are made anew from all that the same potential has there.
"""

import hashlib
import json
import os
import sys
import time as clock
from pathlib import Path
from typing import Annotated, Any

import ase
import ase.io
import numpy as np
import report
import torch
import typer
from rich.console import Console
from rich.progress import track

from openmm_nequip.analysis.folder import open_run, read_log
from openmm_nequip.analysis.observables import (
    block_error,
    distances,
    find_bonds,
    pressure,
    radial_distribution,
)
from openmm_nequip.analysis.transport import diffusion_coefficient, finite_size_correction
from openmm_nequip.benchmarking.machine import describe
from openmm_nequip.cli import clear_errors
from openmm_nequip.cli.simulate import Lines
from openmm_nequip.errors import InputError
from openmm_nequip.interop.ase import NequIPCalculator
from openmm_nequip.md.checkpoint import Checkpoint
from openmm_nequip.md.config import SimulationConfig
from openmm_nequip.md.protocol import run
from openmm_nequip.md.reporters import read_warnings
from openmm_nequip.md.structure import load_structure
from openmm_nequip.modelfile import find_model, read_header, write_atomically
from openmm_nequip.versions import versions

FRICTION = 0.5  # 1/ps; slows diffusion by less than 1%
FRAME = 0.02  # ps between frames of the trajectory
DIFFUSIVE = 1.0  # ps, when a molecule has forgotten its velocity and its cage
BROKEN = 1.4  # Å; the longest O-H bond of the DFT frames is 1.1 Å
BIN = 0.05  # Å, of the radial distribution functions
LARGEST = 6.2  # Å, half the box
COMPARED = {"O-O": 2.0, "O-H": 1.3, "H-H": 1.9}  # Å from where RDFs are compared: beyond the bonds

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    model: Annotated[str, typer.Argument(help="Model file, or name of a bundled potential.")],
    temperature: Annotated[
        list[float] | None, typer.Option(help="K, several times for several runs. [330]")
    ] = None,
    time: Annotated[float, typer.Option(help="ps that are averaged.")] = 100.0,
    equilibration: Annotated[float, typer.Option(help="ps before them.")] = 10.0,
    timestep: Annotated[float, typer.Option(help="fs")] = 0.5,
    stresses: Annotated[int, typer.Option(help="Frames of which the pressure is taken.")] = 400,
    seed: Annotated[int, typer.Option(help="Of velocities and thermostat.")] = 1,
    output: Annotated[Path, typer.Option(help="Gets a folder for every run.")] = Path("runs/water"),
) -> None:
    """Run what is not finished and report."""
    path = find_model(model)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    results = output / "results.json"
    frames = reference_frames()
    bonds = bonds_of(frames[0])
    dft = structure(*coordinates(frames), bonds)
    halves = [structure(*coordinates(frames[k::2]), bonds) for k in (0, 1)]
    dft["noise"] = {p: difference(*(half["rdf"][p] for half in halves), p) / 2 for p in COMPARED}
    for kelvin in temperature or [330.0]:
        name = f"{path.stem}-{digest[:8]}-{kelvin:g}K-{time:g}ps-{timestep:g}fs-seed{seed}"
        if name in read(results):
            print(f"{name} is finished, see {results}", flush=True)
            continue
        values = {
            "structure": f"{data_folder()}/water_pbe0/data_0.xyz@0",
            "potential": str(path),
            "temperature": kelvin,
            "time": f"{time + equilibration} ps",
            "timestep": timestep,
            "friction": FRICTION,
            "minimise": False,  # frames of MD at about this temperature need none
            "trajectory_interval": f"{FRAME} ps",
            "log_interval": f"{FRAME} ps",
            "seed": seed,
        }
        config = SimulationConfig.model_validate(values)
        simulate(config, output / name)
        found = measure(config, output / name, equilibration, dft, bonds, stresses)
        about = {"model": path.stem, "sha256": digest, "seed": seed}
        write(results, read(results) | {name: about | found})
    shown = {name: r for name, r in read(results).items() if r["sha256"] == digest}
    experiment = np.loadtxt(data_folder() / "water_rdf" / "soper2013_dist_funcs.txt")
    table = report.table(list(shown.values()), dft, experiment)
    write_atomically(output / "table.md", f"{table}\n".encode())
    figures = report.figures(shown, dft, experiment, output)
    print(table, f"\ntable.md, {', '.join(f.name for f in figures)} are in {output}", sep="\n")


def data_folder() -> Path:
    """Return the folder of reference data.

    Raises
    ------
    InputError
        It is not known, or lacks water.
    """
    folder = Path(os.environ.get("OPENMM_NEQUIP_DATA", ""))
    if not (folder / "water_pbe0").is_dir() or not (folder / "water_rdf").is_dir():
        raise InputError("set OPENMM_NEQUIP_DATA to a folder with water_pbe0/ and water_rdf/")
    return folder


def reference_frames() -> list[ase.Atoms]:
    """Return the frames of the DFT data."""
    files = sorted((data_folder() / "water_pbe0").glob("data_*.xyz"))
    return [frame for file in files for frame in ase.io.read(file, index=":")]


def coordinates(frames: list[ase.Atoms]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return atomic numbers ``[N]``, positions ``[F, N, 3]`` and boxes ``[F, 3, 3]``, Å."""
    positions = np.array([frame.positions for frame in frames])
    return frames[0].numbers, positions, np.array([frame.cell.array for frame in frames])


def bonds_of(frame: ase.Atoms) -> np.ndarray:
    """Return the bonds of water molecules, shape ``[B, 2]``.

    Raises
    ------
    InputError
        An atom has too many or too few.
    """
    bonds = find_bonds(frame.numbers, frame.positions, frame.cell.array)
    counts = np.bincount(bonds.ravel(), minlength=len(frame))
    if not np.array_equal(counts, np.where(frame.numbers == 8, 2, 1)):
        raise InputError("the first DFT frame is not of water molecules")
    return bonds


def simulate(config: SimulationConfig, folder: Path) -> None:
    """Run, or go on with a run; a finished one is left as it is.

    Raises
    ------
    InputError
        The run blew up; `KeyboardInterrupt` if it was stopped and can go on.
    """
    checkpoint = Checkpoint.load(folder / "checkpoint")
    if checkpoint is not None and checkpoint.finished:
        return
    print(f"{folder.name}: {config.total_steps:,} steps", flush=True)
    result = run(config, folder, load_structure(config.structure), Lines(Console()))
    if not result.finished:
        raise KeyboardInterrupt


def measure(
    config: SimulationConfig,
    folder: Path,
    equilibration: float,
    dft: dict[str, Any],
    bonds: np.ndarray,
    stresses: int,
) -> dict[str, Any]:
    """Return the figures of a finished run."""
    trajectory = open_run(folder).load()
    log = read_log(folder / "state.csv")
    first = round(equilibration / FRAME)
    positions = trajectory.xyz.astype(float)[first:] * 10
    boxes = trajectory.unitcell_vectors.astype(float)[first:] * 10
    numbers = np.array([atom.element.atomic_number for atom in trajectory.topology.atoms])
    steady = log["time_ps"] >= equilibration
    temperatures = log["temperature_K"][steady]
    found = structure(numbers, positions, boxes, bonds)
    volume = float(np.linalg.det(boxes[0]))
    pressures = _pressures(config, numbers, positions, boxes, stresses)
    machine = describe(torch.get_num_threads(), "cuda" if torch.cuda.is_available() else "cpu", "")
    return {
        "target_temperature_K": config.temperature,
        "temperature_K": _average(temperatures),
        "time_ps": float(log["time_ps"][steady][-1] - equilibration),
        "equilibration_ps": equilibration,
        "timestep_fs": config.timestep,
        "friction_per_ps": config.friction,
        "molecules": int((numbers == 8).sum()),
        "density_g_mL": float(ase.Atoms(numbers).get_masses().sum() / volume / 0.602214076),
        "pressure_bar": {**_average(pressures), "frames": len(pressures)},
        "diffusion": _diffusion(numbers, positions, config.temperature, boxes[0, 0, 0]),
        "longest_bond_A": found["longest_bond_A"],
        "frames_with_broken_bonds": found["frames_with_broken_bonds"],
        "frames": len(positions),
        "bond_A": found["bond_A"],
        "rdf": found["rdf"],
        "rdf_difference_from_dft": {
            pair: difference(found["rdf"][pair], dft["rdf"][pair], pair) for pair in COMPARED
        },
        "warnings": [row["message"] for row in read_warnings(folder / "warnings.csv")],
        "speed_ns_day": float(log["speed_ns_day"][-1]),
        "machine": machine,
        "held_out": read_header(str(config.potential))["metadata"].get("errors", {}),
        "versions": versions(),
        "date": clock.strftime("%Y-%m-%d"),
    }


def structure(
    numbers: np.ndarray, positions: np.ndarray, boxes: np.ndarray, bonds: np.ndarray
) -> dict[str, Any]:
    """Return radial distribution functions and bonds of water.

    Parameters
    ----------
    numbers
        Shape ``[N]``.
    positions, boxes
        Å, shapes ``[F, N, 3]`` and ``[F, 3, 3]``.
    bonds
        Of the molecules as they were at the start, shape ``[B, 2]``.
    """
    by_element = {"O": np.flatnonzero(numbers == 8), "H": np.flatnonzero(numbers == 1)}
    rdf = {}
    for pair in COMPARED:
        one, other = (by_element[symbol] for symbol in pair.split("-"))
        if pair[0] == pair[-1]:
            pairs = np.stack(np.triu_indices(len(one), 1), axis=1)
            pairs = one[pairs]
        else:
            pairs = np.stack(np.meshgrid(one, other), axis=-1).reshape(-1, 2)
        r, g = radial_distribution(positions, pairs, boxes, LARGEST, BIN)
        rdf[pair] = {"r_A": r.round(4).tolist(), "g": g.round(4).tolist()}
    lengths = distances(positions, bonds, boxes)
    return {
        "rdf": rdf,
        "bond_A": {"mean": float(lengths.mean()), "std": float(lengths.std())},
        "longest_bond_A": float(lengths.max()),
        "frames_with_broken_bonds": int((lengths > BROKEN).any(axis=1).sum()),
    }


def difference(first: dict[str, Any], second: dict[str, Any], pair: str) -> float:
    """Root mean square difference of two radial distribution functions beyond the bonds."""
    far = np.array(first["r_A"]) > COMPARED[pair]
    return float(np.sqrt(np.mean((np.array(first["g"]) - np.array(second["g"]))[far] ** 2)))


def _pressures(
    config: SimulationConfig,
    numbers: np.ndarray,
    positions: np.ndarray,
    boxes: np.ndarray,
    count: int,
) -> np.ndarray:
    chosen = np.unique(np.linspace(0, len(positions) - 1, count).astype(int))
    calculator = NequIPCalculator(str(config.potential))
    atoms = ase.Atoms(numbers, cell=boxes[0], pbc=True, calculator=calculator)
    stress = []
    for index in track(chosen, description="pressure"):
        atoms.positions = positions[index]
        stress.append(atoms.get_stress(voigt=False))
    return pressure(np.array(stress), atoms.get_volume(), config.temperature, len(numbers))


def _diffusion(
    numbers: np.ndarray, positions: np.ndarray, temperature: float, box_length: float
) -> dict[str, Any] | None:
    """Of the oxygen atoms; in 10⁻⁹ m²/s, of which 10 are 1 Å²/ps. `None` for too short a run."""
    masses = ase.Atoms(numbers).get_masses()
    centre = np.einsum("fna,n->fa", positions, masses) / masses.sum()
    try:
        found = diffusion_coefficient(
            positions[:, numbers == 8] - centre[:, None], FRAME, DIFFUSIVE
        )
    except ValueError:
        return None
    correction = finite_size_correction(temperature, box_length, viscosity(temperature))
    return {
        "value": 10 * found.value,
        "error": 10 * found.error,
        "finite_size_correction": 10 * correction,
        "fit_ps": [found.fit_from, found.fit_to],
        "lags_ps": found.lags.round(4).tolist(),
        "msd_A2": found.msd.round(4).tolist(),
    }


def viscosity(temperature: float) -> float:
    """Return the measured viscosity of water, mPa s: Vogel's equation, 1% from 273 to 373 K."""
    return float(0.02939 * np.exp(507.88 / (temperature - 149.3)))


def _average(values: np.ndarray) -> dict[str, float | None]:
    error = block_error(values)
    return {"value": float(values.mean()), "error": error if np.isfinite(error) else None}


def read(path: Path) -> dict[str, dict[str, Any]]:
    """Return the results of finished runs by name."""
    return json.loads(path.read_text()) if path.exists() else {}


def write(path: Path, results: dict[str, dict[str, Any]]) -> None:
    """Write the results of all runs."""
    write_atomically(path, (json.dumps(results, ensure_ascii=False) + "\n").encode())


if __name__ == "__main__":
    try:
        with clear_errors():
            app()
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on")
