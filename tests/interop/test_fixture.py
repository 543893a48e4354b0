"""Stored results of official NequIP models, for machines on which nequip is not installed."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from openmm_nequip.architectures.nequip import NequIPConfig
from openmm_nequip.data.frame import Frame
from openmm_nequip.potential import Potential

FIXTURE = np.load(Path(__file__).with_name("fixture.npz"))


def frame(name: str) -> Frame:
    cell = FIXTURE.get(f"{name}/cell")
    x, y, z = FIXTURE[f"{name}/pbc"].tolist()
    return Frame(FIXTURE[f"{name}/numbers"], FIXTURE[f"{name}/positions"], cell, (x, y, z))


@pytest.mark.parametrize("model", ["parity", "no-parity", "cutoffs"])
def test_energies_and_forces_agree(model):
    potential = Potential(NequIPConfig(**json.loads(FIXTURE[f"{model}/config"].item()))).eval()
    prefix = f"{model}/weights/"
    weights = {
        key.removeprefix(prefix): torch.from_numpy(FIXTURE[key])
        for key in FIXTURE
        if key.startswith(prefix)
    }
    potential.load_state_dict(weights)
    for name in ("molecule", "triclinic", "slab"):
        output = potential(potential.to_graph(frame(name)), stress=True)
        results = {
            "energy": output.energy[0],
            "energies": output.atomic_energies,
            "forces": output.forces,
        }
        if name == "triclinic":
            results["stress"] = output.stress[0]
        for key, value in results.items():
            expected = FIXTURE[f"{model}/{name}/{key}"]
            limit = 1e-8 if key == "forces" else 1e-9
            assert np.abs(value.numpy() - expected).max() < limit, f"{name}: {key}"
