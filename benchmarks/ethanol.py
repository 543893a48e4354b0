"""The figures of the card of `ethanol-pbe`: errors on held-out frames, and what MD does with it.

Prints one JSON object::

    python benchmarks/ethanol.py --data rmd17_ethanol_test_01.npz --time 10

Errors are those on the frames of ``--data`` (left out: none). MD is ten picoseconds of NVE at
0.5 fs from a thermalised start, in the precision of the model file.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from openmm_nequip.analysis.observables import energy_drift
from openmm_nequip.config import parse_config
from openmm_nequip.md.config import SimulationConfig
from openmm_nequip.md.preparation import build_simulation, degrees_of_freedom
from openmm_nequip.md.reporters import read
from openmm_nequip.md.structure import load_structure
from openmm_nequip.training.assess import assess
from openmm_nequip.units import KJ_PER_MOL
from openmm_nequip.versions import versions

MODEL = "ethanol-pbe"


def conservation(time: float) -> dict[str, float]:
    """Run NVE for `time` ps and fit a line to the total energy."""
    structure = load_structure("ethanol")

    def simulation(**keys: object):
        values = {"structure": "ethanol", "potential": MODEL, "time": f"{time} ps"} | keys
        return build_simulation(parse_config(SimulationConfig, values, where=__file__), structure)

    warm = simulation(ensemble="nvt", friction=20.0)
    warm.step(2000)
    state = warm.context.getState(positions=True, velocities=True)
    nve = simulation(ensemble="nve")
    nve.context.setPositions(state.getPositions())
    nve.context.setVelocities(state.getVelocities())
    rows, every, dof = [], 10, degrees_of_freedom(nve.system)
    for step in range(0, round(time / 0.0005) + 1, every):
        reading = read(nve.context.getState(energy=True), dof, periodic=False)
        rows.append((step * 0.0005, reading.potential + reading.kinetic, reading.temperature))
        nve.step(every)
    times, total, temperature = np.array(rows).T
    drift = energy_drift(times, total * 1000 / KJ_PER_MOL, num_atoms=9)
    return {
        "time_ps": time,
        "timestep_fs": 0.5,
        "mean_temperature_K": temperature.mean(),
        "drift_meV_per_atom_per_ps": drift.slope,
        "drift_error_meV_per_atom_per_ps": drift.slope_error,
        "fluctuation_meV_per_atom": drift.fluctuation,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="labelled frames of ethanol")
    parser.add_argument("--time", type=float, default=10.0, help="ps of NVE")
    arguments = parser.parse_args()
    report: dict = {"model": MODEL, "versions": versions()}
    if arguments.data is not None:
        with tempfile.TemporaryDirectory() as folder:
            report["errors"] = assess(MODEL, arguments.data, Path(folder))
    report["nve"] = conservation(arguments.time)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
