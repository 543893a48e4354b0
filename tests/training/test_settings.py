"""Keys of a configuration have the effect that they are documented to have."""

import json

import numpy as np
import pytest
import torch
from ase.io import write
from torch.optim import Adam, AdamW
from torch.utils.data import DataLoader

import openmm_nequip
from openmm_nequip.architectures.nequip import NequIPConfig
from openmm_nequip.errors import InputError
from openmm_nequip.potential import Potential
from openmm_nequip.training import run
from openmm_nequip.training.config import TrainingConfig
from openmm_nequip.training.loop import TrainingLoop
from openmm_nequip.training.loss import Loss
from openmm_nequip.training.module import PotentialModule
from openmm_nequip.training.run import train
from openmm_nequip.training.soap import SOAP

from .conftest import TINY, clusters
from .test_train import config


def weights(settings, output) -> dict[str, torch.Tensor]:
    return openmm_nequip.load(train(settings, output)).state_dict()


def assert_equal(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


@pytest.mark.parametrize(
    ("training", "kind", "expected"),
    [
        ({}, SOAP, {"lr": 0.02, "weight_decay": 0.0}),
        ({"learning_rate": 0.5, "weight_decay": 0.1}, SOAP, {"lr": 0.5, "weight_decay": 0.1}),
        ({"optimizer": "adam"}, Adam, {"lr": 0.01, "weight_decay": 0.0, "amsgrad": True}),
        ({"optimizer": "adamw"}, AdamW, {"lr": 0.01, "weight_decay": 0.0, "amsgrad": True}),
        (
            {"optimizer": "adam", "learning_rate": 0.2, "weight_decay": 0.3, "amsgrad": False},
            Adam,
            {"lr": 0.2, "weight_decay": 0.3, "amsgrad": False},
        ),
        (
            {"optimizer": "adamw", "weight_decay": 0.4, "amsgrad": False},
            AdamW,
            {"lr": 0.01, "weight_decay": 0.4, "amsgrad": False},
        ),
    ],
)
def test_the_optimizer_is_the_one_configured(training, kind, expected):
    settings = TrainingConfig(**training)
    potential = Potential(NequIPConfig(**TINY, type_names=["Cu", "Au"], avg_num_neighbors=3.0))
    module = PotentialModule(potential, Loss(settings, True, False), settings)
    optimizer = module.configure_optimizers()
    assert type(optimizer) is kind
    for group in optimizer.param_groups:
        found = group | ({"weight_decay": optimizer.weight_decay} if kind is SOAP else {})
        assert {key: found[key] for key in expected} == expected
    optimized = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert optimized == {id(p) for p in potential.parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        ({}, {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto"}),
        ({"num_nodes": 2}, {"devices": 1, "num_nodes": 2, "strategy": "ddp"}),
        ({"devices": 3}, {"devices": 3, "num_nodes": 1, "strategy": "ddp"}),
        ({"strategy": "single_device"}, {"strategy": "single_device"}),
        ({"gradient_clip": 0.25}, {"gradient_clip_val": 0.25}),
    ],
)
def test_the_trainer_is_the_one_configured(cluster_file, monkeypatch, training, expected):
    given = {}

    class Trainer:
        def __init__(self, **options):
            given.update(options)
            self.num_devices, self.num_nodes = options["devices"], options["num_nodes"]
            self.world_size = self.num_devices * self.num_nodes

    monkeypatch.setattr(run, "Trainer", Trainer)
    run._trainer(config(cluster_file, {"accelerator": "cpu", **training}))
    expected = {"gradient_clip_val": None, **expected}
    assert {key: given[key] for key in expected} == expected


def test_a_gradient_is_not_longer_than_its_limit(tmp_path, cluster_file, monkeypatch):
    norms, original = [], TrainingLoop.on_train_batch_end

    def note(self, *arguments):
        gradients = [
            p.grad.flatten() for p in self.module.potential.parameters() if p.requires_grad
        ]
        norms.append(float(torch.cat(gradients).norm()))
        original(self, *arguments)

    monkeypatch.setattr(TrainingLoop, "on_train_batch_end", note)
    free = weights(config(cluster_file), tmp_path / "free")
    limit = 0.5 * min(norms)
    norms.clear()
    clipped = weights(config(cluster_file, {"gradient_clip": limit}), tmp_path / "clipped")
    assert norms == pytest.approx([limit] * 8, rel=1e-3)  # 2 epochs of 20 frames, 5 in a step
    assert any(not torch.equal(tensor, clipped[name]) for name, tensor in free.items())


def test_frames_for_validation_from_a_file_of_their_own(tmp_path, cluster_file):
    write(tmp_path / "val.xyz", clusters(7, seed=1), format="extxyz")
    data = {"n_train": None, "n_val": None, "val_file": str(tmp_path / "val.xyz")}
    train(config(cluster_file, data=data), tmp_path / "run")
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["validation"]["frames"] == 7
    split = json.loads((tmp_path / "run/split.json").read_text())
    assert (len(split["train"]), split["val"]) == (60, [])  # nothing is taken from the other file
    with pytest.raises(InputError, match="in more than one set"):
        train(config(cluster_file, data=data | {"val_file": str(cluster_file)}), tmp_path / "twice")


def test_bad_frames_are_left_out_where_that_is_asked_for(tmp_path, capsys):
    frames = clusters(31)
    write(tmp_path / "good.xyz", [*frames[:4], *frames[5:]], format="extxyz")
    frames[4].calc.results["energy"] = np.nan
    write(tmp_path / "one-bad.xyz", frames, format="extxyz")
    with pytest.raises(InputError, match="frame 4: energy is NaN"):
        train(config(tmp_path / "one-bad.xyz"), tmp_path / "refused")
    skipping = config(tmp_path / "one-bad.xyz", data={"on_bad_frames": "skip"})
    found = weights(skipping, tmp_path / "skipped")
    assert "frame 4: energy is NaN" in capsys.readouterr().out
    assert_equal(found, weights(config(tmp_path / "good.xyz"), tmp_path / "good"))


def test_processes_that_prepare_batches_do_not_change_the_weights(
    tmp_path, cluster_file, monkeypatch
):
    workers = []

    class Loader(DataLoader):
        def __init__(self, *arguments, num_workers, **options):
            workers.append(num_workers)
            super().__init__(*arguments, num_workers=num_workers, **options)

    monkeypatch.setattr(run, "DataLoader", Loader)
    alone = weights(config(cluster_file), tmp_path / "alone")
    helped = weights(config(cluster_file, data={"num_workers": 2}), tmp_path / "helped")
    assert workers == [0, 2]
    assert_equal(alone, helped)
