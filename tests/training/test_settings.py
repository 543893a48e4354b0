"""Keys of a configuration have the effect that they are documented to have."""

import json

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from torch.optim import Adam, AdamW
from torch.utils.data import DataLoader

import openmm_nequip
from openmm_nequip.architectures.nequip import NequIPConfig
from openmm_nequip.errors import InputError
from openmm_nequip.modelfile import read_header
from openmm_nequip.potential import Potential
from openmm_nequip.training import run, sets
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
    found = optimizer.param_groups[0]
    found = found | ({"weight_decay": optimizer.weight_decay} if kind is SOAP else {})
    assert {key: found[key] for key in expected} == expected
    optimized = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert optimized == {id(p) for p in potential.parameters() if p.requires_grad}


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "soap"])
def test_energy_shifts_and_frequencies_do_not_decay(optimizer):
    """They have units; of -1000 eV a hundredth in every step would be more than any step."""
    settings = TrainingConfig(optimizer=optimizer, weight_decay=0.1, learning_rate=0.01)
    potential = Potential(
        NequIPConfig(
            **TINY, type_names=["Cu", "Au"], avg_num_neighbors=3.0, per_type_energy_shifts=-1000.0,
            per_type_energy_shifts_trainable=True, bessel_trainable=True,
        )
    )  # fmt: skip
    before = {name: p.detach().clone() for name, p in potential.named_parameters()}
    module = PotentialModule(potential, Loss(settings, True, False), settings)
    step = module.configure_optimizers()
    for _ in range(3):
        for parameter in potential.parameters():
            parameter.grad = torch.zeros_like(parameter)
        step.step()
    changed = {
        name for name, p in potential.named_parameters() if p.numel() and not p.equal(before[name])
    }
    units = {"network.shifts", "network.basis.frequencies"}
    assert units <= set(before)
    assert not changed & units
    assert "network.type_embedding" in changed


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


@pytest.mark.parametrize("name", ["val", "test"])
def test_an_element_that_is_never_trained_on_is_refused(tmp_path, cluster_file, name):
    write(tmp_path / "other.xyz", clusters(3, 1, "Cu3Ni"), format="extxyz")
    data = {f"{name}_file": str(tmp_path / "other.xyz")} | (
        {"n_val": None} if name == "val" else {}
    )
    words = {"val": "validation", "test": "test"}[name]
    with pytest.raises(InputError, match=f"Ni is in {words} frames and in no training frame"):
        train(config(cluster_file, data=data), tmp_path / "run")


def test_validation_frames_without_labels_that_count_are_refused(tmp_path, cluster_file):
    frames = clusters(5, 1)
    for atoms in frames:
        del atoms.calc.results["forces"]
    write(tmp_path / "energies.xyz", frames, format="extxyz")
    data = {"n_val": None, "val_file": str(tmp_path / "energies.xyz"), "require": ["energy"]}
    training = {"loss_weights": {"energy": 0.0, "forces": 1.0}}
    with pytest.raises(InputError, match=r"nothing to choose the weights by.*validation frames"):
        train(config(cluster_file, training, data=data), tmp_path / "run")


def test_forces_of_symmetric_crystals_set_no_scale(tmp_path):
    frames = []
    for k in range(12):
        atoms = bulk("Cu", cubic=True)
        atoms.set_cell(atoms.cell[:] * (0.97 + 0.005 * k), scale_atoms=True)
        atoms.calc = EMT()
        labels = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        atoms.calc = SinglePointCalculator(atoms, **labels)
        frames.append(atoms)
    write(tmp_path / "x.xyz", frames, format="extxyz")
    data = {"n_train": 8, "n_val": 4}
    found = weights(config(tmp_path / "x.xyz", data=data), tmp_path / "run")
    assert found["network.scales"].tolist() == [1.0]


def test_given_energy_shifts_are_the_reference_energies(tmp_path, cluster_file):
    shifts = {"Cu": -1.5, "Au": -2.5}
    train(config(cluster_file, model={"per_type_energy_shifts": shifts}), tmp_path / "fixed")
    found = read_header(tmp_path / "fixed/tiny.safetensors")["metadata"]
    assert (found["reference_energies"], found["reference_source"]) == (shifts, "given")
    model = {"per_type_energy_shifts_trainable": True}
    train(config(cluster_file, model=model), tmp_path / "moving")
    path = tmp_path / "moving/tiny.safetensors"
    potential = openmm_nequip.load(path)
    moved = dict(
        zip(potential.elements, potential.get_parameter("network.shifts").tolist(), strict=True)
    )
    assert read_header(path)["metadata"]["reference_energies"] == pytest.approx(moved, rel=1e-12)


def test_fine_tuning_that_keeps_energies_says_nothing_of_fitted_ones(
    tmp_path, cluster_file, capsys
):
    start = train(config(cluster_file), tmp_path / "start")
    capsys.readouterr()
    for shifts, said in (("keep", False), ("estimate", True)):
        training = {"fine_tune_from": str(start), "fine_tune_shifts": shifts}
        train(config(cluster_file, training), tmp_path / shifts)
        assert ("determine 1 of 2 reference energies" in capsys.readouterr().out) == said


def test_memory_is_that_of_the_control_group(tmp_path, monkeypatch):
    (tmp_path / "max").write_text("max")
    (tmp_path / "job").write_text("123456789")
    monkeypatch.setattr(
        sets, "_memory_limits", lambda: [tmp_path / n for n in ("max", "job", "no")]
    )
    assert sets._memory() == 123456789
    monkeypatch.undo()
    assert sets._memory() > 1e8
