"""Training, validation and test frames, and what is measured on them before a run."""

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from openmm_nequip.architectures.nequip import NequIPConfig
from openmm_nequip.config import parse_config
from openmm_nequip.errors import InputError
from openmm_nequip.potential import Potential
from openmm_nequip.training.config import TrainConfig
from openmm_nequip.training.preparation import Preparation
from openmm_nequip.training.sets import (
    Reader,
    Sets,
    StoredFrames,
    has_labels,
    load_sets,
    some_frames,
)

from .conftest import TINY, clusters

STREAMED = pytest.mark.parametrize("streamed", [False, True])


def labelled(atoms: Atoms, energy: float, forces=0.0) -> Atoms:
    forces = np.zeros((len(atoms), 3)) + forces
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    return atoms


def configuration(data: dict) -> TrainConfig:
    values = {"data": data, "model": {**TINY}, "training": {"max_epochs": 1}}
    return parse_config(TrainConfig, values, where="test")


def sets_of(config: TrainConfig, tmp_path) -> tuple[Sets, list[str]]:
    said: list[str] = []
    return load_sets(Reader(config.data, 4.5, tmp_path / "cache", said.append), 1), said


@STREAMED
def test_isolated_atoms_are_not_drawn_and_may_be_in_every_file(tmp_path, streamed):
    boxed = labelled(Atoms("Au", cell=12 * np.eye(3), pbc=True), -4.25)
    atoms = [labelled(Atoms("Cu"), -3.5), boxed]
    for name, seed in (("train", 1), ("test", 2)):
        write(tmp_path / f"{name}.xyz", [*atoms, *clusters(12, seed)], format="extxyz")
    data = {"file": str(tmp_path / "train.xyz"), "test_file": str(tmp_path / "test.xyz"),
            "n_train": 9, "n_val": 3, "stream_from_disk": streamed}  # fmt: skip
    config = configuration(data)
    sets, said = sets_of(config, tmp_path)
    assert sets.sizes == {"train": 9, "val": 3, "test": 12}
    assert all(len(frame) == 4 for part in (sets.train, sets.val, sets.test) for frame in part)
    assert "2 isolated atoms: for reference energies, in no set that is drawn" in said
    potential, statistics = Preparation(config).build(sets)
    assert potential.metadata["reference_energies"] == {"Cu": -3.5, "Au": -4.25}
    assert statistics.num_frames == 9

    data["n_train"] = 10
    with pytest.raises(
        InputError, match=r"val: 3 frames asked for, 2 of 12 \(and 2 isolated atoms"
    ):
        sets_of(configuration(data), tmp_path)
    data |= {"n_train": None, "n_val": 0.25}
    assert sets_of(configuration(data), tmp_path)[0].sizes == {"train": 9, "val": 3, "test": 12}


def test_an_isolated_atom_in_two_states(tmp_path):
    states = [labelled(Atoms("Cu"), -3.5), labelled(Atoms("Cu"), -2.0), labelled(Atoms("Au"), -4.0)]
    write(tmp_path / "data.xyz", [*states, *clusters(20)], format="extxyz")
    data = {"file": str(tmp_path / "data.xyz"), "n_train": 15, "n_val": 5}
    with pytest.raises(InputError, match="isolated Cu atoms have different energies"):
        Preparation(config := configuration(data)).build(sets_of(config, tmp_path)[0])
    data["reference_energies"] = "least_squares"
    potential, _ = Preparation(config := configuration(data)).build(sets_of(config, tmp_path)[0])
    assert potential.metadata["reference_source"] == "least squares"


def test_crystals_of_one_atom_are_drawn(tmp_path):
    cells = [
        labelled(Atoms("Cu", cell=(2.5 + 0.01 * k) * (1 - np.eye(3)), pbc=True), -3.5 + 0.1 * k)
        for k in range(8)
    ]
    write(tmp_path / "data.xyz", cells, format="extxyz")
    config = configuration({"file": str(tmp_path / "data.xyz"), "n_train": 5, "n_val": 3})
    sets, _ = sets_of(config, tmp_path)
    assert sets.sizes["train"] == 5
    potential, statistics = Preparation(config).build(sets)
    assert potential.config.per_type_energy_scales == {"Cu": 1.0}
    assert "the forces are zero: energy scales are 1 eV" in statistics.notes


@pytest.mark.parametrize("size", [0.005, 5.0])
def test_energy_scales_are_the_size_of_the_forces(tmp_path, size):
    rng = np.random.default_rng(1)
    frames = [labelled(a, -1.0, rng.normal(0, size, (4, 3))) for a in clusters(20)]
    write(tmp_path / "data.xyz", frames, format="extxyz")
    config = configuration({"file": str(tmp_path / "data.xyz"), "n_train": 15, "n_val": 5})
    potential, _ = Preparation(config).build(sets_of(config, tmp_path)[0])
    assert all(0.5 * size < s < 2 * size for s in potential.config.per_type_energy_scales.values())


@STREAMED
def test_elements_are_those_of_the_frames_that_are_used(tmp_path, streamed):
    frames = [*clusters(12), *clusters(3, symbols="Pt4")]
    write(tmp_path / "data.xyz", frames, format="extxyz")
    np.savez(tmp_path / "split.npz", train=np.arange(9), val=np.arange(9, 12))
    data = {"file": str(tmp_path / "data.xyz"), "split_file": str(tmp_path / "split.npz"),
            "stream_from_disk": streamed}  # fmt: skip
    potential, _ = Preparation(c := configuration(data)).build(sets_of(c, tmp_path)[0])
    assert potential.elements == ["Cu", "Au"]
    np.savez(tmp_path / "split.npz", train=np.arange(9), val=np.arange(9, 13))
    with pytest.raises(InputError, match="Pt is in validation frames and in no training frame"):
        Preparation(c).build(sets_of(c, tmp_path)[0])


@STREAMED
@pytest.mark.parametrize("shifts", ["keep", "estimate"])
def test_fine_tuning_is_tested_on_what_the_start_knows(tmp_path, streamed, shifts):
    names = ["Pt", "Au", "Cu"]
    start = Potential(NequIPConfig(**TINY, type_names=names, avg_num_neighbors=3.0))
    start.save(tmp_path / "start.safetensors")
    write(tmp_path / "data.xyz", clusters(12), format="extxyz")
    write(tmp_path / "test.xyz", clusters(3, symbols="Pt4"), format="extxyz")
    data = {"file": str(tmp_path / "data.xyz"), "test_file": str(tmp_path / "test.xyz"),
            "n_train": 9, "n_val": 3, "stream_from_disk": streamed}  # fmt: skip
    training = {"fine_tune_from": str(tmp_path / "start.safetensors"), "fine_tune_shifts": shifts}
    values = {"data": data, "training": {"max_epochs": 1, **training}}
    config = parse_config(TrainConfig, values, where="test")
    preparation = Preparation(config)
    reader = Reader(config.data, preparation.r_max, tmp_path / "cache", lambda text: None)
    potential, statistics = preparation.build(load_sets(reader, 1))
    note = "Pt is in no training frame: energies of validation and test frames with it are partly"
    assert any(text.startswith(note) for text in statistics.notes) == (shifts == "estimate")
    moved = potential.get_parameter("network.shifts") - start.get_parameter("network.shifts")
    assert moved[0] == 0
    assert bool((moved[1:] != 0).all()) == (shifts == "estimate")


@STREAMED
def test_some_frames_have_energies_and_all_elements(tmp_path, streamed):
    frames = clusters(40)
    del frames[7].calc.results["energy"]
    frames[31] = clusters(1, symbols="Pt4")[0]
    write(tmp_path / "data.xyz", frames, format="extxyz")
    data = {"file": str(tmp_path / "data.xyz"), "n_train": 40, "val_file": str(tmp_path / "v.xyz"),
            "require": ["forces"], "stream_from_disk": streamed}  # fmt: skip
    write(tmp_path / "v.xyz", clusters(2, seed=5), format="extxyz")
    train = sets_of(configuration(data), tmp_path)[0].train
    assert isinstance(train, StoredFrames) == streamed
    assert len(list(some_frames(train, 100, {"Cu"}))) == 39
    few = list(some_frames(train, 5, {"Cu", "Au", "Pt"}))
    assert len(few) in (5, 6)
    assert {78} <= {int(z) for frame in few for z in frame.numbers}
    assert all(frame.energy is not None for frame in few)
    assert [f.energy for f in few] == [f.energy for f in some_frames(train, 5, {"Cu", "Au", "Pt"})]


def test_streamed_sets_know_their_labels(tmp_path):
    write(tmp_path / "data.xyz", clusters(10), format="extxyz")
    data = {"file": str(tmp_path / "data.xyz"), "n_train": 6, "n_val": 4, "stream_from_disk": True}
    sets, _ = sets_of(configuration(data), tmp_path)
    found = [has_labels(sets.train, label) for label in ("energy", "forces", "stress")]
    assert found == [True, True, False]
