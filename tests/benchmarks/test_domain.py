"""The script that records the domain of a bundled potential."""

import shutil
import subprocess
import sys
from pathlib import Path

import torch

import openmm_nequip
from openmm_nequip.modelfile import find_model

SCRIPT = Path(__file__).parents[2] / "benchmarks/domain.py"


def test_only_what_is_asked_for_changes(tmp_path):
    model = shutil.copy(find_model("ethanol-pbe"), tmp_path / "ethanol.safetensors")
    before = openmm_nequip.load(model)
    subprocess.run([sys.executable, SCRIPT, model, "--multiplicity", "3"], check=True)
    after = openmm_nequip.load(model)
    assert after.metadata["domain"] == {**before.metadata["domain"], "multiplicity": 3}
    assert {**after.metadata, "domain": None} == {**before.metadata, "domain": None}
    assert after.config == before.config
    weights = after.state_dict()
    assert all(torch.equal(weights[name], w) for name, w in before.state_dict().items())
