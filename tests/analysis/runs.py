"""Run folders with known contents and no simulation behind them."""

import json
from pathlib import Path

import mdtraj
import numpy as np
import yaml
from openmm import app, unit

from openmm_nequip.md.structure import Structure

COLUMNS = ["step", "time_ps", "potential_kJ_mol", "kinetic_kJ_mol", "total_kJ_mol", "temperature_K"]
EVERY, TIMESTEP = 10, 0.5  # steps between rows and frames; fs


def write_run(
    folder: Path,
    structure: Structure,
    frames: np.ndarray,
    log: dict[str, np.ndarray],
    region: list[int] | None = None,
    **config: object,
) -> Path:
    """Write a run folder.

    Parameters
    ----------
    folder
        To be made.
    structure
        Topology and box.
    frames
        nm, shape ``[F, N, 3]``.
    log
        Columns; what is missing of `COLUMNS` is made up. Rows at negative times precede the frames.
    region
        Atoms of the ML region, for a mixed system.
    config
        Keys of the configuration that matter.
    """
    folder.mkdir(parents=True)
    rows = len(next(iter(log.values())))
    step = EVERY * (np.arange(rows) - (rows - len(frames)))
    rng = np.random.default_rng(0)
    made_up = {
        "step": step,
        "time_ps": step * TIMESTEP / 1000,
        "potential_kJ_mol": -1000 + rng.normal(size=rows),
        "kinetic_kJ_mol": 20 + rng.normal(size=rows),
        "total_kJ_mol": np.full(rows, -980.0),
        "temperature_K": 300 + 10 * rng.normal(size=rows),
    }
    if structure.box is not None:
        made_up["volume_nm3"] = np.full(rows, np.linalg.det(structure.box))
        made_up["density_g_mL"] = np.ones(rows)
    columns = {**made_up, **log, "speed_ns_day": np.full(rows, 3.5)}
    table = np.array(list(columns.values())).T
    np.savetxt(folder / "state.csv", table, "%.9g", ",", header=",".join(columns), comments="")
    settings = {
        "structure": "made-up.pdb", "potential": "made-up", "ensemble": "nvt", "temperature": 300,
        "steps": EVERY * max(1, len(frames) - 1), "log_interval": EVERY,
        "trajectory_interval": EVERY, "timestep": TIMESTEP,
        "equilibration": EVERY * (rows - len(frames)), **config,
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    (folder / "versions.json").write_text(json.dumps({"torch": "2.9.1"}))
    with (folder / "topology.pdb").open("w") as file:
        app.PDBFile.writeFile(structure.topology, structure.positions * unit.nanometer, file)
    trajectory = mdtraj.Trajectory(frames, mdtraj.Topology.from_openmm(structure.topology))
    if structure.box is not None:
        trajectory.unitcell_vectors = np.repeat(structure.box[None], len(frames), axis=0)
    trajectory.save_dcd(str(folder / "trajectory.dcd"))
    if region is not None:
        selected = {"atoms": region, "selection": "resname MOL"}
        (folder / "region.json").write_text(json.dumps(selected))
    return folder


def ethanol_in_water(waters: int = 40, side: float = 1.2, seed: int = 0) -> Structure:
    """Ethanol in a box of water molecules at random, nm."""
    import ase
    import ase.build

    from openmm_nequip.md.structure import from_ase

    rng = np.random.default_rng(seed)
    atoms = ase.build.molecule("CH3CH2OH")
    atoms.positions += 5 * side - atoms.positions.mean(axis=0)
    places = list(atoms.positions)
    while waters:
        point = rng.random(3) * 10 * side
        gap = point - np.array(places)
        gap -= np.round(gap / (10 * side)) * 10 * side
        if np.linalg.norm(gap, axis=1).min() < 2.5:
            continue
        water = ase.build.molecule("H2O")
        water.rotate(rng.uniform(0, 360), rng.normal(size=3))
        water.positions += point - water.positions[0]
        atoms += water
        places.append(point)
        waters -= 1
    atoms.set_cell([10 * side] * 3)
    atoms.pbc = True
    assert isinstance(atoms, ase.Atoms)
    return from_ase(atoms)
