"""The run folder: who may write into it, and what a run must have in common to go on in it."""

import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
_BY_CONTENT = {"structure", "potential"}  # compared by fingerprint: a file may have other names


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep every other run out of the folder; the system lifts the lock of a killed process.

    Raises
    ------
    InputError
        Another process is running in the folder.
    """
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                f"another process is running in '{folder}': wait for it, or give another output="
            ) from None
        yield


def fingerprints(config: SimulationConfig, structure: Structure) -> dict[str, str]:
    """Return SHA-256 hashes of the structure and the potential."""
    digest = hashlib.sha256(structure.positions.tobytes())
    digest.update(b"" if structure.box is None else structure.box.tobytes())
    for atom in structure.topology.atoms():
        digest.update(str(atom.element).encode())
    model = find_model(config.potential or DEFAULT_MODEL).read_bytes()
    return {"structure": digest.hexdigest(), "potential": hashlib.sha256(model).hexdigest()}


def find_checkpoint(
    config: SimulationConfig, folder: Path, inputs: dict[str, str]
) -> Checkpoint | None:
    """Return the checkpoint from which to go on; `None` for a folder to start in.

    Raises
    ------
    InputError
        The folder holds a finished run, a run of something else, or files that are not a run's.
    """
    checkpoint = Checkpoint.load(folder / "checkpoint")
    elsewhere = "give another output= or remove the folder"
    if checkpoint is None:
        foreign = not (folder / "config.yaml").exists() and any(
            path.name != ".lock" for path in folder.iterdir()
        )
        if foreign:
            raise InputError(f"'{folder}' is not empty and not a run folder: {elsewhere}")
        return None
    if checkpoint.finished:
        raise InputError(f"'{folder}' holds a finished run: {elsewhere}")
    here, there = config.model_dump(), load_config(SimulationConfig, folder / "config.yaml")
    changes = [
        f"{key} is {here[key]}, was {value}"
        for key, value in there.model_dump().items()
        if key not in FREE_TO_CHANGE | _BY_CONTENT and here[key] != value
    ]
    changes += [f"another {key}" for key in _BY_CONTENT if inputs[key] != checkpoint.inputs[key]]
    if changes:
        raise InputError(
            f"'{folder}' holds the beginning of another run ({'; '.join(changes)}): {elsewhere}"
        )
    return checkpoint


def describe(
    config: SimulationConfig, folder: Path, structure: Structure, simulation: app.Simulation
) -> None:
    """Write what the run is: configuration, versions and starting structure."""
    text = yaml.safe_dump(config.model_dump(exclude_none=True), sort_keys=False, allow_unicode=True)
    write_atomically(folder / "config.yaml", text.encode())
    found = versions()
    found["platform"] = simulation.context.getPlatform().getName()
    found["engine"] = choose_engine(config.engine, config.device)
    found["forces"] = ", ".join(force.getName() for force in simulation.system.getForces())
    write_atomically(folder / "versions.json", (json.dumps(found, indent=2) + "\n").encode())
    write_structure(folder / "topology.pdb", structure.topology, structure.positions)


def write_structure(path: Path, topology: app.Topology, positions: object) -> None:
    """Write a PDB file; `positions` in nm, shape ``[N, 3]``."""
    with path.open("w") as file:
        app.PDBFile.writeFile(topology, positions * unit.nanometer, file)
