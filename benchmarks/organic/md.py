"""Speed of a molecular dynamics step in `evaluate.py`, through openmm-ml."""

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import subjects
import torchani
from conformations import Molecule
from openmm import unit
from openmmml import MLPotential
from teacher import Teacher

from openmm_nequip.benchmarking import stability
from openmm_nequip.benchmarking.stability import in_openmm, langevin

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
    contexts = {}
    # ANI2x() would download the networks that the reference data holds
    with mock.patch.object(torchani.models, "ANI2x", return_value=ensemble):
        for name, potential in potentials.items():
            integrator = langevin(300, friction=1)
            context = in_openmm(potential, aspirin.numbers, aspirin.minima[0], integrator)
            context.setVelocitiesToTemperature(300 * unit.kelvin, subjects.SEED)
            contexts[name] = context
    return stability.time_steps(contexts, _TIMED, repeats)
