"""Two processes take the steps that one takes at the same global batch size."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ase.io import write

from openmm_nequip.errors import InputError
from openmm_nequip.training import loop

from .conftest import TINY, clusters, crystals


def run(config_file: Path, *overrides: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "openmm_nequip", "train", config_file, *overrides],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    # structures of different size, periodic and not, so that the shares are unequal
    write(tmp_path / "mixed.xyz", clusters(20, symbols="Cu4") + crystals(1), format="extxyz")
    config = tmp_path / "run.yaml"
    values = {
        "data": {"file": str(tmp_path / "mixed.xyz"), "n_train": 13, "n_val": 5},
        "model": {**TINY, "model_dtype": "float64"},
        "training": {
            "max_epochs": 4, "batch_size": 4, "val_interval": 1, "loss": "huber",
            "optimizer": "adam",  # the axes of SOAP, where no gradient is, follow rounding errors
        },
    }  # fmt: skip
    config.write_text(yaml.safe_dump(values))
    run(config, f"output={tmp_path / 'one'}")
    run(config, f"output={tmp_path / 'two'}", "training.devices=2", "training.accelerator=cpu")
    logs = []
    for name in ("one", "two"):
        with (tmp_path / name / "log.csv").open() as file:
            logs.append(list(csv.DictReader(file)))
    assert len(logs[0]) == len(logs[1]) == 4
    for one, two in zip(*logs, strict=True):
        for key in ("train_loss", "val_loss", "train_forces_mae_meV_per_A"):
            assert float(two[key]) == pytest.approx(float(one[key]), rel=1e-9), key
    errors = [
        json.loads((tmp_path / name / "metrics.json").read_text())["validation"]
        for name in ("one", "two")
    ]
    assert errors[1]["forces_rmse_meV_per_A"] == pytest.approx(
        errors[0]["forces_rmse_meV_per_A"], rel=1e-9
    )


def test_processes_that_found_different_checkpoints_stop(monkeypatch):
    """As where the run folder is on the disk of one node."""

    def gather(found: list, step: int) -> None:
        found[:] = [step, 0]

    monkeypatch.setattr(loop.dist, "all_gather_object", gather)
    with pytest.raises(InputError, match=r"different steps \(120, 0\): the run folder must be on"):
        loop._check_steps(120, world_size=2)
    loop._check_steps(0, world_size=2)
    loop._check_steps(120, world_size=1)
