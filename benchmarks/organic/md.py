"""Speed of a molecular dynamics step in `evaluate.py`, through openmm-ml."""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import openmm
import subjects
import torch
import torchani
from conformations import Molecule
from openmm import unit
from openmmml import MLPotential
from teacher import Teacher

from openmm_nequip.benchmarking.machine import describe
from openmm_nequip.benchmarking.md import fastest_platform
from openmm_nequip.benchmarking.stability import in_openmm, langevin
from openmm_nequip.benchmarking.timing import alternate

_TIMED = 20  # steps of a repeat


def time_steps(model: Path, repeats: int) -> dict[str, Any]:
    """Time steps of aspirin with a potential and with openmm-ml's own ANI-2x, in turns.

    Returns
    -------
    dict
        ``ms_per_step`` of both, medians over the repeats, and ``machine``.
    """
    aspirin = Molecule(subjects.ASPIRIN, np.random.default_rng(subjects.SEED), conformers=1)
    ensemble = Teacher().model
    ensemble.set_enabled("energy_shifter", True)
    potentials = {
        "potential": MLPotential("nequip", modelPath=str(model)),
        "ANI-2x": MLPotential("ani2x"),
    }
    calls: dict[str, Callable[[], object]] = {}
    # ANI2x() would download the networks that the reference data holds
    with mock.patch.object(torchani.models, "ANI2x", return_value=ensemble):
        for name, potential in potentials.items():
            integrator = langevin(300, friction=1)
            context = in_openmm(potential, aspirin.numbers, aspirin.minima[0], integrator)
            context.setVelocitiesToTemperature(300 * unit.kelvin, subjects.SEED)
            calls[name] = stepping(context)
            calls[name]()  # compiles
    seconds = alternate(calls, repeats, dict.fromkeys(calls, 1))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return {
        "ms_per_step": {k: 1000 * statistics.median(v) / _TIMED for k, v in seconds.items()},
        "machine": describe(torch.get_num_threads(), device, fastest_platform(device)),
    }


def stepping(context: openmm.Context) -> Callable[[], object]:
    """Return a function that takes some steps and waits for them."""

    def step() -> None:
        context.getIntegrator().step(_TIMED)
        context.getState(velocities=True)

    return step
