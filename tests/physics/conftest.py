"""Systems whose dynamics is put to the test, and one way to run them."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import ase
import numpy as np
import openmm
import pytest
import torch
from openmm import unit

from openmm_nequip import list_models
from openmm_nequip.architectures.nequip import NequIPConfig
from openmm_nequip.config import parse_config
from openmm_nequip.md.config import SimulationConfig
from openmm_nequip.md.preparation import build_simulation, degrees_of_freedom, set_velocities
from openmm_nequip.md.reporters import read
from openmm_nequip.md.structure import Structure, from_ase, load_structure
from openmm_nequip.potential import Potential

TRAINED = "ethanol-pbe"


class Series(NamedTuple):
    """Time (ps), total and potential energy (kJ/mol) and temperature (K), one row per sample."""

    time: np.ndarray
    total: np.ndarray
    potential: np.ndarray
    temperature: np.ndarray


@pytest.fixture(scope="session")
def trained() -> str:
    """Name of the bundled, trained potential of ethanol."""
    if TRAINED not in list_models():
        pytest.skip(f"the bundled potential '{TRAINED}' is not there")
    return TRAINED


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights and repulsive cores (ZBL): a smooth potential of no particular substance."""
    torch.manual_seed(0)
    config = NequIPConfig(
        type_names=["C", "O"], r_max=3.5, num_layers=2, l_max=1, num_features=4,
        radial_mlp_width=8, avg_num_neighbors=4.0, per_type_energy_scales=0.1,
        pair_potential="zbl", model_dtype="float64",
    )  # fmt: skip
    path = tmp_path_factory.mktemp("model") / "untrained.safetensors"
    Potential(config).save(path)
    return path


@pytest.fixture(scope="session")
def gas() -> Structure:
    """Eight atoms in a triclinic box that keeps them colliding."""
    cell = np.array([[7.2, 0, 0], [0.9, 7.3, 0], [-0.7, 1.1, 7.4]])
    fractions = np.stack(np.meshgrid(*[[0.0, 0.5]] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    shaken = fractions @ cell + np.random.default_rng(3).uniform(-0.15, 0.15, (8, 3))
    return from_ase(ase.Atoms("C4O4", shaken, cell=cell, pbc=True))


@pytest.fixture(scope="session")
def simulate() -> Callable[..., tuple[openmm.app.Simulation, Series]]:
    """Run a structure with a potential and sample it; returns the simulation too.

    Starts from `start` (a State) if given, else with velocities at the temperature.
    """

    def run(
        structure: Structure | str,
        potential: str | Path,
        time: float,
        every: int = 1,
        start: openmm.State | None = None,
        **changes: object,
    ) -> tuple[openmm.app.Simulation, Series]:
        values = {"structure": "-", "potential": str(potential), "time": f"{time} ps"}
        config = parse_config(SimulationConfig, values | changes, where="test")
        if isinstance(structure, str):
            structure = load_structure(structure)
        simulation = build_simulation(config, structure)
        if start is None:
            set_velocities(simulation.context, config.temperature, config.seed)
        else:
            simulation.context.setPositions(start.getPositions())
            simulation.context.setVelocities(start.getVelocities())
        dof = degrees_of_freedom(simulation.system)
        rows = []
        for step in range(0, config.total_steps + 1, every):
            if step:
                simulation.integrator.step(every)
            state = simulation.context.getState(energy=True)
            reading = read(state, dof, periodic=False)
            total = reading.potential + reading.kinetic
            rows.append(
                (step * config.timestep / 1000, total, reading.potential, reading.temperature)
            )
        return simulation, Series(*np.array(rows).T)

    return run


def forces_of(simulation: openmm.app.Simulation) -> np.ndarray:
    """Forces in eV/Å, shape ``[N, 3]``."""
    forces = simulation.context.getState(forces=True).getForces(asNumpy=True)
    return forces.value_in_unit(unit.kilojoule_per_mole / unit.nanometer) / 964.8533212
