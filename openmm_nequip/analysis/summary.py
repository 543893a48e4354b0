"""A run folder in figures: read what a simulation left and compute every observable."""

import csv
import json
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement
from pathlib import Path
from typing import Any

import ase
import mdtraj
import numpy as np

from ..config import load_config
from ..errors import InputError
from ..md.config import SimulationConfig
from ..md.reporters import quiet, read_warnings
from ..modelfile import DEFAULT_MODEL, write_atomically
from ..units import KJ_PER_MOL
from .observables import (
    Drift,
    block_error,
    distances,
    energy_drift,
    find_bonds,
    radial_distribution,
    rmsd,
)

_MAX_PAIRS = 200_000  # of a radial distribution function; more atoms than that are sampled
EQUILIBRATION = 0.2  # fraction of a run left out of averages


@dataclass(frozen=True)
class Analysis:
    """Observables of a run.

    Attributes
    ----------
    title
        What was run.
    ensemble
        'nve', 'nvt' or 'npt'.
    num_atoms
        Number of atoms.
    target_temperature
        K; `None` without a thermostat.
    log
        Columns of the state log by name.
    drift
        Of the total energy, kJ/mol.
    frame_times
        ps, shape ``[F]``.
    rmsd
        From the first frame, Å, shape ``[F]``.
    bond_lengths
        Å, shape ``[F, B]``, by pair of elements ('C-H').
    rdf
        r (Å) and g(r) by pair of elements; empty without a box.
    summary
        The figures that go to ``summary.json``.
    """

    title: str
    ensemble: str
    num_atoms: int
    target_temperature: float | None
    log: dict[str, np.ndarray]
    drift: Drift
    frame_times: np.ndarray
    rmsd: np.ndarray
    bond_lengths: dict[str, np.ndarray]
    rdf: dict[str, tuple[np.ndarray, np.ndarray]]
    summary: dict[str, Any]


def analyze(folder: str | Path) -> Analysis:
    """Analyse a run folder, finished or not.

    Raises
    ------
    InputError
        The folder is not a run folder, or there is too little in it yet.
    """
    folder = Path(folder)
    if not (folder / "config.yaml").exists() or not (folder / "state.csv").exists():
        raise InputError(f"'{folder}' is not a run folder: config.yaml or state.csv is missing")
    config = load_config(SimulationConfig, folder / "config.yaml")
    log = read_log(folder / "state.csv")
    if len(log["step"]) < 3:
        raise InputError(
            f"'{folder / 'state.csv'}' has {len(log['step'])} rows so far; an analysis needs 3"
        )
    trajectory = load_trajectory(folder, config)

    positions = trajectory.xyz.astype(np.float64) * 10.0
    vectors = trajectory.unitcell_vectors
    box = None if vectors is None else vectors.astype(np.float64) * 10.0
    numbers = np.array([atom.element.atomic_number for atom in trajectory.topology.atoms])
    symbols = np.array([atom.element.symbol for atom in trajectory.topology.atoms])
    bonds = np.array([(a.index, b.index) for a, b in trajectory.topology.bonds]).reshape(-1, 2)
    if len(bonds) == 0:
        bonds = find_bonds(numbers, positions[0], None if box is None else box[0])

    steady_row = int(EQUILIBRATION * len(log["step"]))
    steady_frame = int(EQUILIBRATION * len(positions))
    bond_lengths = {}
    for pair, members in _by_elements(symbols, bonds).items():
        bond_lengths[pair] = distances(
            positions[steady_frame:], members, None if box is None else box[steady_frame:]
        )
    rdf = {}
    if box is not None:
        for pair, members in _rdf_pairs(symbols).items():
            rdf[pair] = radial_distribution(positions[steady_frame:], members, box[steady_frame:])

    drift = energy_drift(log["time_ps"], log["total_kJ_mol"], len(symbols))
    deviation = rmsd(positions, positions[0])
    formula = ase.Atoms(numbers).get_chemical_formula("hill")
    frame_times = np.arange(len(positions)) * config.trajectory_steps * config.timestep / 1000
    summary = {
        "structure": config.structure,
        "formula": formula,
        "atoms": len(symbols),
        "potential": config.potential or DEFAULT_MODEL,
        "ensemble": config.ensemble,
        "timestep_fs": config.timestep,
        "time_ps": float(log["time_ps"][-1]),
        "finished": bool(log["step"][-1] + config.log_steps > config.total_steps),
        "frames": len(positions),
        "speed_ns_day": float(log["speed_ns_day"][-1]),
        "averages_from_ps": float(log["time_ps"][steady_row]),
        "temperature_K": _average(log["temperature_K"][steady_row:]),
        "potential_energy_kJ_mol": _average(log["potential_kJ_mol"][steady_row:]),
        "total_energy_drift_kJ_mol_atom_ps": {
            "value": drift.slope,
            "error": _finite(drift.slope_error),
        },
        "total_energy_drift_meV_atom_ps": {
            "value": drift.slope / KJ_PER_MOL * 1000,
            "error": _finite(drift.slope_error / KJ_PER_MOL * 1000),
        },
        "total_energy_fluctuation_meV_atom": drift.fluctuation / KJ_PER_MOL * 1000,
        "rmsd_A": {"mean": float(deviation[steady_frame:].mean()), "max": float(deviation.max())},
        "bond_lengths_A": {
            pair: {"mean": float(lengths.mean()), "std": float(lengths.std())}
            for pair, lengths in bond_lengths.items()
        },
    }
    warnings = read_warnings(folder / "warnings.csv")
    if warnings:
        summary["warnings"] = [
            f"at {float(row['time_ps']):g} ps: {row['message']}" for row in warnings
        ]
    if "density_g_mL" in log:
        summary["density_g_mL"] = _average(log["density_g_mL"][steady_row:])
    if config.ensemble != "nve":
        summary["target_temperature_K"] = config.temperature
    return Analysis(
        title=f"{formula}, {config.ensemble.upper()}, {summary['potential']}",
        ensemble=config.ensemble,
        num_atoms=len(symbols),
        target_temperature=None if config.ensemble == "nve" else config.temperature,
        log=log,
        drift=drift,
        frame_times=frame_times,
        rmsd=deviation,
        bond_lengths=bond_lengths,
        rdf=rdf,
        summary=summary,
    )


def read_log(path: Path) -> dict[str, np.ndarray]:
    """Read a state log; a row that a killed run left unfinished is dropped."""
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    if rows and len(rows[-1]) != len(header):
        rows.pop()
    values = np.array(rows, dtype=float).reshape(-1, len(header))
    return dict(zip(header, values.T, strict=True))


def load_trajectory(folder: Path, config: SimulationConfig) -> mdtraj.Trajectory:
    """Load the trajectory of a run folder.

    Raises
    ------
    InputError
        There is none, or it cannot be read.
    """
    paths = [folder / f"trajectory.{suffix}" for suffix in ("h5", "xtc", "dcd")]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        raise InputError(f"there is no trajectory in '{folder}'")
    try:
        if path.suffix == ".h5":
            return mdtraj.load(path)
        topology = mdtraj.load_topology(folder / "topology.pdb", standard_names=False)
        with quiet():
            return mdtraj.load(path, top=topology)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"cannot read '{path}': {' '.join(str(error).split())}") from None


def save_summary(analysis: Analysis, folder: Path, plots: list[Path]) -> None:
    """Write ``summary.json`` and ``summary.md``."""
    text = json.dumps(analysis.summary, indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / "summary.json", text.encode())
    lines = [f"# {analysis.title}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in table(analysis.summary)]
    lines += ["", *(f"![{path.stem}]({path.relative_to(folder)})" for path in plots[:1]), ""]
    write_atomically(folder / "summary.md", "\n".join(lines).encode())


def table(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the summary as names and values with units, for people."""
    drift = summary["total_energy_drift_meV_atom_ps"]
    rows = [
        ("system", f"{summary['formula']}, {summary['atoms']} atoms"),
        ("potential", summary["potential"]),
        ("ensemble", summary["ensemble"].upper()),
        ("length", f"{summary['time_ps']:g} ps in steps of {summary['timestep_fs']:g} fs, "
                   f"{summary['frames']} frames"),
        ("speed", f"{summary['speed_ns_day']:.3g} ns/day"),
        ("averages", f"from {summary['averages_from_ps']:g} ps on"),
        ("temperature", _shown(summary["temperature_K"], 1, "K")),
        ("potential energy", _shown(summary["potential_energy_kJ_mol"], 2, "kJ/mol")),
    ]  # fmt: skip
    if "target_temperature_K" in summary:
        rows[-2] = (
            "temperature",
            f"{rows[-2][1]} (thermostat {summary['target_temperature_K']:g} K)",
        )
    else:
        rows.append(("total energy drift", _shown(drift, 4, "meV/atom/ps")))
        fluctuation = summary["total_energy_fluctuation_meV_atom"]
        rows.append(("total energy fluctuation", f"{fluctuation:.4f} meV/atom"))
    if "density_g_mL" in summary:
        rows.append(("density", _shown(summary["density_g_mL"], 4, "g/mL")))
    rows.append(("RMSD from first frame", f"{summary['rmsd_A']['mean']:.3f} Å on average, "
                                          f"{summary['rmsd_A']['max']:.3f} Å at most"))  # fmt: skip
    for pair, length in summary["bond_lengths_A"].items():
        rows.append(
            (f"bond length {pair}", f"{length['mean']:.3f} Å, spread {length['std']:.3f} Å")
        )
    rows += [("warning", warning) for warning in summary.get("warnings", [])]
    return rows


def _average(values: np.ndarray) -> dict[str, float | None]:
    return {"value": float(values.mean()), "error": _finite(block_error(values))}


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None  # JSON has no NaN


def _shown(quantity: dict[str, float | None], digits: int, unit: str) -> str:
    error = quantity["error"]
    uncertainty = "" if error is None else f" ± {error:.{digits}f}"
    return f"{quantity['value']:.{digits}f}{uncertainty} {unit}"


def _by_elements(symbols: np.ndarray, pairs: np.ndarray) -> dict[str, np.ndarray]:
    names = np.array(["-".join(sorted(pair)) for pair in symbols[pairs]])
    return {str(name): pairs[names == name] for name in np.unique(names)}


def _rdf_pairs(symbols: np.ndarray) -> dict[str, np.ndarray]:
    """Atom pairs for each pair of elements; thinned evenly where there are very many."""
    by_element = {str(s): np.flatnonzero(symbols == s) for s in np.unique(symbols)}
    pairs = {}
    for first, second in combinations_with_replacement(by_element, 2):
        if first == second:
            found = np.array(list(combinations(by_element[first], 2))).reshape(-1, 2)
        else:
            grid = np.meshgrid(by_element[first], by_element[second], indexing="ij")
            found = np.stack(grid, axis=-1).reshape(-1, 2)
        if len(found) > _MAX_PAIRS:
            found = np.random.default_rng(0).choice(found, _MAX_PAIRS, replace=False)
        if len(found):
            pairs[f"{first}-{second}"] = found
    return pairs
