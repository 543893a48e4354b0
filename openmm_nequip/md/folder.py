"""The run folder: who may write into it, and what a run must have in common to go on in it."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import yaml
from openmm import app, unit

from ..config import load_config
from ..errors import InputError
from ..kernels.engine import choose_engine
from ..modelfile import DEFAULT_MODEL, find_model, write_atomically
from ..versions import versions
from .checkpoint import Checkpoint
from .config import SimulationConfig
from .structure import Structure

#: Keys that may differ when a run goes on: they do not change what is simulated.
FREE_TO_CHANGE = {
    "checkpoint_interval",
    "platform",
    "device",
    "num_threads",
    "force",
    "engine",
    "output",
}
# compared by fingerprint: a file may have other names
_BY_CONTENT = {"structure", "potential", "force_field"}
_PDB_ATOMS = 99_999
_ROWS_BEFORE_CHECKPOINT = 2  # of the log: its head, and that of the first step
_FROM_STEP = " from step "
_ELSEWHERE = "give another output= or remove the folder"


def fingerprints(config: SimulationConfig, structure: Structure) -> dict[str, str]:
    """Return SHA-256 hashes of structure, potential and, if there is one, force field."""
    digest = hashlib.sha256(structure.positions.tobytes())
    digest.update(b"" if structure.box is None else structure.box.tobytes())
    for atom in structure.topology.atoms():
        digest.update(str(atom.element).encode())
    model = find_model(config.potential or DEFAULT_MODEL).read_bytes()
    found = {"structure": digest.hexdigest(), "potential": hashlib.sha256(model).hexdigest()}
    if structure.mm_system is not None:
        xml = openmm.XmlSerializer.serialize(structure.mm_system)
        found["force_field"] = hashlib.sha256(xml.encode()).hexdigest()
    return found


def find_checkpoint(
    config: SimulationConfig, folder: Path, inputs: dict[str, str]
) -> Checkpoint | None:
    """Return the checkpoint from which to go on; `None` for a folder to start in.

    Raises
    ------
    InputError
        The folder holds this run, complete, a run of something else, or files that are not a run's.
    """
    checkpoint = Checkpoint.load(folder / "checkpoint")
    if checkpoint is None:
        foreign = not (folder / "config.yaml").exists() and any(
            path.name != ".lock" for path in folder.iterdir()
        )
        if foreign:
            raise InputError(f"'{folder}' is not empty and not a run folder: {_ELSEWHERE}")
        log = folder / "state.csv"
        if log.exists() and len(log.read_text().splitlines()) > _ROWS_BEFORE_CHECKPOINT:
            raise InputError(
                f"'{folder}' holds a run without its checkpoint, which cannot go on: {_ELSEWHERE}"
            )
        return None
    if _is_complete(config, folder, inputs, checkpoint):
        raise InputError(f"'{folder}' holds a finished run: ask for a longer one, {_ELSEWHERE}")
    return checkpoint


def is_finished(config: SimulationConfig, folder: Path, inputs: dict[str, str]) -> bool:
    """Return whether the folder holds this run, complete.

    Raises
    ------
    InputError
        It holds another run.
    """
    checkpoint = Checkpoint.load(folder / "checkpoint")
    return checkpoint is not None and _is_complete(config, folder, inputs, checkpoint)


def _is_complete(
    config: SimulationConfig, folder: Path, inputs: dict[str, str], checkpoint: Checkpoint
) -> bool:
    """Return whether nothing of the run is left to do; a longer one can go on from it.

    Raises
    ------
    InputError
        The folder holds another run, or a longer one, or one that cannot be made longer.
    """
    before = load_config(SimulationConfig, folder / "config.yaml")
    here, there = _compared(config), _compared(before)
    changes = [
        f"{key} is {getattr(config, key)}, was {getattr(before, key)}"
        for key in here
        if here[key] != there[key] and getattr(config, key) != getattr(before, key)
    ]  # with another time step the same times have other steps
    changes += [
        f"another {key}"
        for key in sorted(_BY_CONTENT)
        if inputs.get(key) != checkpoint.inputs.get(key)
    ]
    if changes:
        raise InputError(f"'{folder}' holds another run ({'; '.join(changes)}): {_ELSEWHERE}")
    if config.total_steps < checkpoint.step:
        raise InputError(
            f"'{folder}' holds a run of {checkpoint.step:,} steps, and {config.total_steps:,} are "
            f"asked for: {_ELSEWHERE}"
        )
    if checkpoint.finished and config.total_steps > checkpoint.step and config.trajectory == "h5":
        raise InputError(
            f"'{folder}' holds a finished run whose trajectory is HDF5, to which nothing can be "
            f"added; choose dcd or xtc for runs that may be made longer. {_ELSEWHERE.capitalize()}"
        )
    return checkpoint.completes(config.total_steps)


def _compared(config: SimulationConfig) -> dict[str, Any]:
    """Return what must be the same for a run to go on: times as steps, however written."""
    values = config.model_dump(exclude=FREE_TO_CHANGE | _BY_CONTENT | {"time", "steps"})
    return values | {
        "heating": config.heating_steps,
        "equilibration": config.equilibration_steps,
        "log_interval": config.log_steps,
        "trajectory_interval": config.trajectory_steps,
        "ml_trajectory_interval": config.ml_trajectory_steps,
    }


def describe(
    config: SimulationConfig, folder: Path, structure: Structure, region: Sequence[int] | None
) -> None:
    """Write what the run is: configuration, starting structure and ML region."""
    record_config(config, folder)
    if region is not None:
        record = {"selection": config.ml_region, "atoms": list(region)}
        write_atomically(folder / "region.json", (json.dumps(record) + "\n").encode())
    write_structure(
        structure_path(folder, "topology", structure.topology),
        structure.topology,
        structure.positions,
        structure.box,
    )


def record_config(config: SimulationConfig, folder: Path) -> None:
    """Write the configuration, with all that was left open but what has no value."""
    text = yaml.safe_dump(config.model_dump(exclude_none=True), sort_keys=False, allow_unicode=True)
    write_atomically(folder / "config.yaml", text.encode())


def record_versions(
    config: SimulationConfig, folder: Path, simulation: app.Simulation, step: int | None
) -> dict[str, str]:
    """Write with what the run is made; where it goes on, add what has changed since.

    Parameters
    ----------
    config, folder, simulation
        Of the run.
    step
        From which it goes on: what has changed is recorded as 'platform from step 12', say.
        `None` where it starts.

    Returns
    -------
    dict of str
        Versions, platform, device, engine and forces of this part of the run.
    """
    path = folder / "versions.json"
    now = versions() | {
        "platform": _platform_name(simulation.context),
        "device": config.device or "auto",
        "engine": choose_engine(config.engine, config.device),
        "forces": ", ".join(force.getName() for force in simulation.system.getForces()),
    }
    record = now
    if step is not None:
        record = json.loads(path.read_text())
        before = {key.partition(_FROM_STEP)[0]: value for key, value in record.items()}
        part = dict.fromkeys(before, "not installed") | now
        changed = (name for name in part if part[name] != before.get(name))
        record |= {f"{name}{_FROM_STEP}{step}": part[name] for name in changed}
    write_atomically(path, (json.dumps(record, indent=2) + "\n").encode())
    return now


def _platform_name(context: openmm.Context) -> str:
    """Return the name of the platform and, if it is on one, of the GPU."""
    platform = context.getPlatform()
    if "DeviceName" not in platform.getPropertyNames():
        return platform.getName()
    return f"{platform.getName()} ({platform.getPropertyValue(context, 'DeviceName')})"


def structure_path(folder: Path, name: str, topology: app.Topology) -> Path:
    """Return the path of a structure file: PDB, or mmCIF where PDB cannot hold all of it."""
    fits = topology.getNumAtoms() <= _PDB_ATOMS and all(
        len(residue.name) <= 3 and all(len(atom.name) <= 4 for atom in residue.atoms())
        for residue in topology.residues()
    )
    return folder / f"{name}.{'pdb' if fits else 'cif'}"


def write_structure(
    path: Path,
    topology: app.Topology,
    positions: np.ndarray,
    box: np.ndarray | None = None,
) -> None:
    """Write a PDB or mmCIF file, by its suffix.

    Parameters
    ----------
    path
        Ends with ``.pdb`` or ``.cif``.
    topology
        Whose atoms are the first of the positions; its box is written if no other is given.
    positions
        nm, shape ``[N, 3]``; sites beyond the topology's atoms are left out.
    box
        Lattice vectors as rows, nm, shape ``[3, 3]``.
    """
    vectors = topology.getPeriodicBoxVectors()
    if box is not None:
        topology.setPeriodicBoxVectors([openmm.Vec3(*row) for row in box] * unit.nanometer)
    try:
        atoms = positions[: topology.getNumAtoms()] * unit.nanometer
        with path.open("w") as file:
            if path.suffix == ".cif":
                app.PDBxFile.writeFile(topology, atoms, file, keepIds=True)
            else:
                app.PDBFile.writeFile(topology, atoms, file, keepIds=_are_unique(topology))
    finally:
        topology.setPeriodicBoxVectors(vectors)


def _are_unique(topology: app.Topology) -> bool:
    """Whether the numbers of residues tell them apart, which need not be so in every file."""
    names = [(r.chain.index, r.id, r.insertionCode, r.name) for r in topology.residues()]
    return len(set(names)) == len(names)
