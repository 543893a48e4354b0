"""Training from a configuration to a model file, on small sets with known physics."""

import json
import os
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from lightning.pytorch.plugins.environments import TorchElasticEnvironment
from typer.testing import CliRunner

import openmm_nequip
from openmm_nequip.cli import app, evaluate  # noqa: F401 - registers its command
from openmm_nequip.cli import train as train_command  # noqa: F401
from openmm_nequip.config import load_config, parse_config
from openmm_nequip.data.readers import read_frames
from openmm_nequip.domain import pair_name
from openmm_nequip.errors import InputError
from openmm_nequip.interop.ase import NequIPCalculator
from openmm_nequip.modelfile import read_header
from openmm_nequip.training.assess import assess
from openmm_nequip.training.config import TrainConfig, TrainingConfig
from openmm_nequip.training.loop import TrainingLoop
from openmm_nequip.training.preparation import Preparation, network
from openmm_nequip.training.run import _resolve, _trainer, train

from .conftest import TINY, clusters, crystals


def config(file: Path, training: dict | None = None, **sections) -> TrainConfig:
    values = {
        "data": {"file": str(file), "n_train": 20, "n_val": 10, **sections.pop("data", {})},
        "model": {**TINY, **sections.pop("model", {})},
        "training": {"max_epochs": 2, "num_threads": 1, **(training or {})},
        "name": "tiny",
        **sections,
    }
    return parse_config(TrainConfig, values, "test")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, cluster_file) -> Path:
    """A run long enough to learn something; the folder."""
    output = tmp_path_factory.mktemp("runs") / "clusters"
    torch.set_num_threads(1)
    settings = config(
        cluster_file,
        {"max_epochs": 60, "val_interval": 5, "batch_size": 4},
        data={"n_train": 40, "n_test": 10},
        model={"num_features": 16},
    )
    train(settings, output)
    return output


def test_training_reduces_the_error(trained, cluster_file):
    metrics = json.loads((trained / "metrics.json").read_text())
    frames = read_frames(cluster_file)
    rms = 1000 * np.sqrt(np.mean([np.square(frame.forces) for frame in frames]))
    assert metrics["test"]["forces_rmse_meV_per_A"] < 0.15 * rms
    spread = 1000 * np.std([frame.energy for frame in frames])
    assert metrics["test"]["energy_rmse_meV"] < 0.2 * spread
    assert set(metrics["test"]["forces_by_element"]) == {"Cu", "Au"}


def test_run_folder_is_complete(trained):
    names = {path.relative_to(trained).as_posix() for path in trained.rglob("*")}
    assert {
        "config.yaml",
        "versions.json",
        "split.json",
        "log.csv",
        "checkpoints/last.ckpt",
        "checkpoints/best.safetensors",
        "learning_curve.png",
        "parity.png",
        "metrics.json",
        "tiny.safetensors",
        "tensorboard",
    } <= names
    assert any("events.out.tfevents" in name for name in names)
    for picture in ("learning_curve.png", "parity.png"):
        assert (trained / picture).stat().st_size > 10_000
    best = openmm_nequip.load(trained / "checkpoints/best.safetensors").state_dict()
    final = openmm_nequip.load(trained / "tiny.safetensors").state_dict()
    assert all(torch.equal(best[name], final[name]) for name in final)
    header = read_header(trained / "tiny.safetensors")
    metadata = header["metadata"]
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metadata["errors"]["test"] == metrics["test"]
    assert metadata["training"]["seed"] == 0
    assert len(metadata["training"]["data"]["fingerprint"]["train"]) == 64
    assert set(metadata["reference_energies"]) == {"Cu", "Au"}
    assert metadata["reference_source"] == "least squares"
    assert "/" not in metadata["training"]["config"]["data"]["file"]
    split = json.loads((trained / "split.json").read_text())
    assert [len(split[name]) for name in ("train", "val", "test")] == [40, 10, 10]


def test_resolved_configuration_trains_the_same_model(tmp_path, cluster_file):
    first = train(config(cluster_file), tmp_path / "first")
    again = load_config(TrainConfig, tmp_path / "first/config.yaml")
    second = train(again, tmp_path / "second")
    one, two = openmm_nequip.load(first), openmm_nequip.load(second)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name]), name


def test_evaluate_gives_the_metrics_of_the_run(tmp_path, trained, cluster_file):
    split = json.loads((trained / "split.json").read_text())
    every = clusters(60)
    write(tmp_path / "test.xyz", [every[i] for i in split["test"]], format="extxyz")
    found = assess(trained / "tiny.safetensors", tmp_path / "test.xyz", tmp_path / "errors")
    saved = json.loads((tmp_path / "errors/metrics.json").read_text())
    expected = json.loads((trained / "metrics.json").read_text())["test"]
    assert saved["test.xyz"] == found
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, float):
            # the file has the labels to 8 digits
            assert found[key] == pytest.approx(value, rel=1e-4), key
    assert (tmp_path / "errors/parity.png").exists()
    with pytest.raises(InputError, match="already"):
        assess(trained / "tiny.safetensors", tmp_path / "test.xyz", tmp_path / "errors")


def test_stress_is_trained_and_reported(tmp_path):
    write(tmp_path / "copper.xyz", crystals(30), format="extxyz")
    train(config(tmp_path / "copper.xyz", {"max_epochs": 8}), tmp_path / "run")
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    header = (tmp_path / "run/log.csv").read_text().splitlines()[0]
    assert "val_stress_mae_meV_per_A3" in header
    stress = np.array([atoms.get_stress(voigt=False) for atoms in crystals(30)])
    assert metrics["validation"]["stress_rmse_meV_per_A3"] < 700 * np.sqrt(np.mean(stress**2))


def test_fine_tuning_starts_from_the_weights(tmp_path, trained, cluster_file):
    start = trained / "tiny.safetensors"
    settings = config(
        cluster_file,
        {
            "max_epochs": 1,
            "learning_rate": 1e-12,
            "fine_tune_from": str(start),
            "fine_tune_shifts": "keep",
        },
        model={"num_features": 16},
    )
    settings.model.model_dtype = "float64"
    before, after = openmm_nequip.load(start), openmm_nequip.load(train(settings, tmp_path / "f"))
    assert after.dtype == torch.float64
    for name, tensor in before.state_dict().items():
        assert torch.allclose(tensor.double(), after.state_dict()[name].double(), atol=1e-9), name

    shifted = clusters(30)
    for atoms in shifted:
        atoms.calc.results["energy"] += 7.0  # 1.75 eV per atom: another level of theory
    write(tmp_path / "shifted.xyz", shifted, format="extxyz")
    training = {"max_epochs": 1, "learning_rate": 1e-12, "fine_tune_from": str(start)}
    settings = config(tmp_path / "shifted.xyz", training, model={"num_features": 16})
    moved = openmm_nequip.load(train(settings, tmp_path / "g"))
    change = moved.network.shifts.detach() - before.network.shifts.detach()
    composition = torch.tensor(
        [{"Cu": 3.0, "Au": 1.0}[symbol] for symbol in moved.elements], dtype=torch.float64
    )
    assert float(composition @ change) == pytest.approx(7.0, abs=0.1)
    shifts = dict(zip(moved.elements, moved.network.shifts.tolist(), strict=True))
    assert moved.metadata["reference_energies"] == pytest.approx(shifts, rel=1e-6)
    given = {"reference_energies": {"Cu": -3.0, "Au": -4.0}}
    file = tmp_path / "shifted.xyz"
    settings = config(file, training, model={"num_features": 16}, data=given)
    with pytest.raises(InputError, match=r"reference_energies .* are for new potentials"):
        train(settings, tmp_path / "h")


def test_fine_tuning_on_forces_alone_keeps_the_shifts(tmp_path, trained):
    frames = clusters(30)
    for atoms in frames:
        atoms.calc.results = {"forces": atoms.calc.results["forces"]}
    write(tmp_path / "forces.xyz", frames, format="extxyz")
    start = trained / "tiny.safetensors"
    training = {"max_epochs": 1, "learning_rate": 1e-12, "fine_tune_from": str(start)}
    data = {"require": ["forces"]}
    settings = config(tmp_path / "forces.xyz", training, model={"num_features": 16}, data=data)
    before, after = openmm_nequip.load(start), openmm_nequip.load(train(settings, tmp_path / "f"))
    assert torch.equal(before.network.shifts, after.network.shifts)
    settings.training.fine_tune_shifts = "estimate"
    with pytest.raises(InputError, match="needs energies"):
        train(settings, tmp_path / "g")


def test_the_learning_rate_is_that_of_the_optimizer():
    def chosen(**values):
        training = TrainingConfig(**values)
        return training.optimizer, training.learning_rate

    assert chosen() == chosen(optimizer="soap") == chosen(fine_tune_from=None) == ("soap", 0.02)
    assert chosen(fine_tune_from="organic-small") == ("soap", 0.03)
    assert chosen(optimizer="adam") == ("adam", 0.01)
    assert chosen(fine_tune_from="x", optimizer="adamw") == ("adamw", 0.01)
    assert chosen(fine_tune_from="x", learning_rate=0.2) == ("soap", 0.2)
    assert chosen(optimizer="adam", learning_rate=0.2) == ("adam", 0.2)


@pytest.mark.parametrize(
    ("model", "l_max", "features"),
    [
        ({}, 2, [64, 32, 16]),
        ({"l_max": 3}, 3, [64, 32, 16, 16]),
        ({"l_max": 0, "num_layers": 2}, 0, [64]),
        ({"num_features": 8}, 2, 8),
        ({"num_features": [8, 4]}, 1, [8, 4]),
        ({"size": "S"}, 1, [128, 64]),
        ({"size": "S", "num_features": [16, 8]}, 1, [16, 8]),
    ],
)
def test_what_is_left_out_of_the_network(cluster_file, model, l_max, features):
    settings = config(cluster_file, {}, model=dict.fromkeys(TINY) | model)
    built = network(Preparation(settings).given)
    assert (built["l_max"], built["num_features"]) == (l_max, features)
    assert built["num_layers"] == model.get("num_layers", 2 if "size" in model else 4)
    assert built["parity"] is False


def test_the_domain_is_recorded(tmp_path, cluster_file):
    pytest.importorskip("h5py")
    said = {"charge": -1, "multiplicity": 2}
    one = openmm_nequip.load(train(config(cluster_file, **said), tmp_path / "memory"))
    domain = one.metadata["domain"]
    split = json.loads((tmp_path / "memory/split.json").read_text())
    frames = [clusters(60)[i] for i in split["train"]]
    distances = [
        (pair_name(a.symbol, b.symbol), atoms.get_distance(a.index, b.index))
        for atoms in frames
        for a, b in combinations(atoms, 2)
    ]
    closest = {name: min(r for n, r in distances if n == name) for name, _ in distances}
    assert domain.keys() == {
        "elements", "charge", "multiplicity", "min_distances", "num_neighbors", "max_force",
    }  # fmt: skip
    assert domain["num_neighbors"] == {"Cu": [3, 3], "Au": [3, 3]}
    assert (domain["charge"], domain["multiplicity"]) == (-1, 2)
    assert set(domain["elements"]) == {"Cu", "Au"}
    assert domain["min_distances"] == pytest.approx(closest, abs=1e-6)
    largest = max(np.linalg.norm(atoms.get_forces(), axis=1).max() for atoms in frames)
    assert domain["max_force"] == pytest.approx(largest, abs=1e-6)
    assert "charge" not in one.metadata["training"]["config"]

    streamed = config(cluster_file, data={"stream_from_disk": True}, **said)
    two = openmm_nequip.load(train(streamed, tmp_path / "disk"))
    assert two.metadata["domain"]["min_distances"] == pytest.approx(closest, abs=1e-6)
    unsaid = openmm_nequip.load(train(config(cluster_file), tmp_path / "unsaid"))
    assert "charge" not in unsaid.metadata["domain"]

    # what was seen before counts after fine-tuning, too
    near = clusters(30, seed=5)
    for atoms in near:
        atoms.positions *= 0.9
    write(tmp_path / "near.xyz", near, format="extxyz")
    training = {"fine_tune_from": str(tmp_path / "memory/tiny.safetensors"), "max_epochs": 1}
    tuned = train(config(tmp_path / "near.xyz", training, charge=-1), tmp_path / "tuned")
    after = openmm_nequip.load(tuned).metadata["domain"]
    assert (after["charge"], after["multiplicity"]) == (-1, 2)
    path = train(config(tmp_path / "near.xyz", training, multiplicity=None), tmp_path / "any")
    any_multiplicity = openmm_nequip.load(path).metadata["domain"]
    assert any_multiplicity["charge"] == -1
    assert "multiplicity" not in any_multiplicity
    resolved = load_config(TrainConfig, tmp_path / "tuned/config.yaml")
    assert (resolved.charge, resolved.multiplicity) == (-1, 2)
    assert after["min_distances"]["Cu-Cu"] < domain["min_distances"]["Cu-Cu"]
    assert after["max_force"] >= domain["max_force"]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("shifts", "known"), [("estimate", {"Cu"}), ("keep", {"Cu", "Au"})])
def test_elements_of_another_level_leave_the_domain(tmp_path, trained, shifts, known, streamed):
    """Where energies are shifted, those of elements that the data lacks are not."""
    write(tmp_path / "copper.xyz", clusters(30, symbols="Cu4"), format="extxyz")
    training = {
        "max_epochs": 1,
        "fine_tune_from": str(trained / "tiny.safetensors"),
        "fine_tune_shifts": shifts,
    }
    data = {"stream_from_disk": streamed}
    settings = config(tmp_path / "copper.xyz", training, model={"num_features": 16}, data=data)
    tuned = train(settings, tmp_path / "tuned")
    assert set(openmm_nequip.load(tuned).metadata["domain"]["elements"]) == known
    gold = Atoms("CuAu", positions=[[0, 0, 0], [0, 0, 2.6]], calculator=NequIPCalculator(tuned))
    if shifts == "keep":
        gold.get_potential_energy()
        return
    with pytest.raises(InputError, match="not trained on Au; it knows Cu"):
        gold.get_potential_energy()


def test_fine_tuning_refuses_new_elements_and_another_network(tmp_path, trained, cluster_file):
    training = {"fine_tune_from": str(trained / "tiny.safetensors")}
    write(tmp_path / "ag.xyz", clusters(30, symbols="Cu3Ag"), format="extxyz")
    with pytest.raises(InputError, match=r"cannot fine-tune .* on Ag"):
        train(config(tmp_path / "ag.xyz", training, model={"num_features": 16}), tmp_path / "a")
    with pytest.raises(InputError, match=r"model\.num_features cannot change"):
        train(config(cluster_file, training), tmp_path / "b")


def test_float64_and_early_stopping_and_clipping(tmp_path, cluster_file):
    training = {
        "max_epochs": 50,
        "learning_rate": 0.5,
        "schedule": "constant",
        "ema_decay": 0.0,
        "early_stopping": 2,
        "gradient_clip": 1.0,
        "loss": "huber",
        "optimizer": "adamw",
        "val_interval": 1,
    }
    path = train(config(cluster_file, training, model={"model_dtype": "float64"}), tmp_path / "d")
    assert openmm_nequip.load(path).dtype == torch.float64
    run = json.loads((tmp_path / "d/metrics.json").read_text())["run"]
    assert run["epochs"] < 50


def test_time_limit_ends_the_run(tmp_path, cluster_file):
    train(config(cluster_file, {"max_epochs": 100_000, "max_time": 1.0}), tmp_path / "short")
    run = json.loads((tmp_path / "short/metrics.json").read_text())["run"]
    assert run["seconds"] >= 1.0
    assert run["epochs"] < 100_000


def test_separate_files_and_duplicates(tmp_path, cluster_file):
    write(tmp_path / "test.xyz", clusters(7, seed=1), format="extxyz")
    settings = config(cluster_file, data={"test_file": str(tmp_path / "test.xyz")})
    train(settings, tmp_path / "run")
    assert json.loads((tmp_path / "run/metrics.json").read_text())["test"]["frames"] == 7
    settings = config(cluster_file, data={"test_file": str(cluster_file)})
    with pytest.raises(InputError, match="in more than one set"):
        train(settings, tmp_path / "other")


@pytest.mark.parametrize("optimizer", ["adam", "soap"])
def test_divergence_is_said(tmp_path, cluster_file, optimizer):
    with pytest.raises(InputError, match="diverged"):
        train(
            config(cluster_file, {"learning_rate": 1e30, "optimizer": optimizer}),
            tmp_path / "run",
        )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.nun_layers=3", "unknown key 'model.nun_layers' (did you mean 'num_layers'?)"),
        ("training.learning_rat=3", "unknown key 'training.learning_rat' (did you mean"),
        ("model.l_max=7", "key 'model.l_max'"),
        ("data.n_train=1000", "1000 frames asked for"),
        ("model.type_names=[Cu]", "model.type_names lacks Au"),
        ("training.strategy=fsdp", "key 'training.strategy': input should be 'auto', 'ddp',"),
        (
            "training.loss_weights={energy: 0, forces: 0}",
            "training.loss_weights are zero for all that the training frames are labelled with",
        ),
    ],
)
def test_mistakes_are_named(tmp_path, cluster_file, override, message):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"data": {"file": str(cluster_file)}}))
    result = CliRunner().invoke(app, ["train", str(path), override, f"output={tmp_path / 'run'}"])
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)
    assert not (tmp_path / "run").exists()  # nothing is left of it


def test_paths_hold_from_the_folder_of_the_configuration(tmp_path, cluster_file, monkeypatch):
    from openmm_nequip.training.config import find_files

    beside, here = tmp_path / "configs", tmp_path / "here"
    for folder, names in ((beside, ("a.xyz", "b.xyz", "m.safetensors")), (here, ("b.xyz", "c"))):
        folder.mkdir()
        for name in names:
            (folder / name).touch()
    (beside / "organic-small").mkdir()
    (beside / "deepmd").mkdir()
    monkeypatch.chdir(here)

    def found(names, start, *overrides):
        settings = config(names[0], {"fine_tune_from": start}, data={"file": names})
        files = find_files(settings, beside, overrides)
        return files.data.file, files.training.fine_tune_from

    assert found(["a.xyz", "b.xyz", "c", "deepmd"], "m.safetensors") == (
        [str(beside / "a.xyz"), str(beside / "b.xyz"), "c", str(beside / "deepmd")],
        str(beside / "m.safetensors"),
    )
    typed = found(["a.xyz", "b.xyz", "d"], "organic-small", "data.file=[a.xyz, b.xyz, d]")
    assert typed == ([str(beside / "a.xyz"), "b.xyz", "d"], "organic-small")


def test_streaming_from_disk_gives_the_same_model(tmp_path, cluster_file):
    pytest.importorskip("h5py")
    one = openmm_nequip.load(train(config(cluster_file), tmp_path / "memory"))
    streamed = config(cluster_file, data={"stream_from_disk": True})
    two = openmm_nequip.load(train(streamed, tmp_path / "disk"))
    assert list((tmp_path / "disk/cache").glob("*.h5"))
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name]), name


@pytest.mark.parametrize("label", ["energy", "forces"])
def test_one_kind_of_label_is_enough(tmp_path, label):
    frames = clusters(30)
    for atoms in frames:
        atoms.calc.results = {label: atoms.calc.results[label]}
    write(tmp_path / "data.xyz", frames, format="extxyz")
    train(config(tmp_path / "data.xyz", data={"require": [label]}), tmp_path / "run")
    found = json.loads((tmp_path / "run/metrics.json").read_text())["validation"]
    assert ("energy_mae_meV" in found) == (label == "energy")
    assert ("forces_mae_meV_per_A" in found) == (label == "forces")


def test_isolated_atoms_give_the_reference_energies(tmp_path, cluster_file):
    atoms = [Atoms(symbol, info={"energy": e}) for symbol, e in (("Cu", -3.5), ("Au", -4.25))]
    write(tmp_path / "atoms.xyz", atoms, format="extxyz")
    settings = config(cluster_file, data={"isolated_atoms_file": str(tmp_path / "atoms.xyz")})
    potential = openmm_nequip.load(train(settings, tmp_path / "run"))
    assert potential.metadata["reference_energies"] == {"Cu": -3.5, "Au": -4.25}
    assert potential.metadata["reference_source"] == "isolated atoms"
    assert potential.config.per_type_energy_shifts == {"Cu": -3.5, "Au": -4.25}


def test_new_potentials_have_radial_splines(tmp_path, cluster_file):
    training = {"max_epochs": 1}
    new = openmm_nequip.load(train(config(cluster_file, training), tmp_path / "new"))
    assert (new.config.radial, new.config.radial_intervals) == ("spline", 64)
    assert yaml.safe_load((tmp_path / "new/config.yaml").read_text())["model"]["radial"] == "spline"

    exact = train(config(cluster_file, training, model={"radial": "exact"}), tmp_path / "exact")
    assert openmm_nequip.load(exact).config.radial == "exact"
    training["fine_tune_from"] = str(exact)
    tuned = openmm_nequip.load(train(config(cluster_file, training), tmp_path / "tuned"))
    assert tuned.config.radial == "exact"


def test_environment_variables_in_paths(monkeypatch):
    monkeypatch.setenv("DATA_FOLDER", "/somewhere")
    monkeypatch.delenv("NO_SUCH_FOLDER", raising=False)
    data = {"test_file": ["${DATA_FOLDER}/a.xyz", "$DATA_FOLDER/b.xyz"]}
    assert config(Path("x"), data=data).data.test_file == ["/somewhere/a.xyz", "/somewhere/b.xyz"]
    with pytest.raises(InputError, match=r"data\.val_file.* NO_SUCH_FOLDER is not set"):
        config(Path("x"), data={"val_file": "${NO_SUCH_FOLDER}/a.xyz"})


@pytest.mark.parametrize(
    ("frames", "tuned", "epochs"),
    [(50, False, 800), (400, False, 283), (50, True, 200), (100_000, False, 18), (10**6, True, 10)],
)
def test_the_length_that_is_left_open(trained, cluster_file, frames, tuned, epochs):
    """8000 steps with 50 frames, more with the square root of their number."""
    start = trained / "tiny.safetensors"
    training = {"max_epochs": None, "fine_tune_from": str(start) if tuned else None}
    settings = config(cluster_file, training)
    sizes = {"train": frames, "val": 10, "test": 0}
    assert _resolve(settings, openmm_nequip.load(start), sizes).training.max_epochs == epochs


def test_isolated_atoms_in_boxes(tmp_path, cluster_file):
    atoms = [
        Atoms(symbol, cell=np.eye(3) * 9.0, pbc=True, calculator=None) for symbol in ("Cu", "Au")
    ]
    for one, energy in zip(atoms, (-3.5, -4.25), strict=True):
        one.calc = SinglePointCalculator(one, energy=energy, forces=np.zeros((1, 3)))
    write(tmp_path / "atoms.xyz", atoms, format="extxyz")
    settings = config(cluster_file, data={"isolated_atoms_file": str(tmp_path / "atoms.xyz")})
    potential = openmm_nequip.load(train(settings, tmp_path / "i"))
    assert potential.metadata["reference_energies"] == {"Cu": -3.5, "Au": -4.25}
    write(tmp_path / "atoms.xyz", atoms[:1], format="extxyz")
    with pytest.raises(InputError, match="no isolated-atom frame for Au"):
        train(settings, tmp_path / "j")


def test_units_are_declared_for_one_kind_of_file(tmp_path):
    """Isolated atoms in extended XYZ stay in eV beside an archive in kcal/mol."""
    frames = clusters(30)
    kcal = 23.0605478
    np.savez(
        tmp_path / "data.npz", z=frames[0].numbers, R=np.array([a.positions for a in frames]),
        E=kcal * np.array([a.get_potential_energy() for a in frames]),
        F=kcal * np.array([a.get_forces() for a in frames]),
    )  # fmt: skip
    atoms = [Atoms(symbol) for symbol in ("Cu", "Au")]
    for one, energy in zip(atoms, (-3.5, -4.25), strict=True):
        one.calc = SinglePointCalculator(one, energy=energy, forces=np.zeros((1, 3)))
    write(tmp_path / "atoms.xyz", atoms, format="extxyz")
    data = {
        "isolated_atoms_file": str(tmp_path / "atoms.xyz"), "energy_unit": "kcal/mol",
        "length_unit": "Å", "keys": {"energy": "E"},
    }  # fmt: skip
    potential = openmm_nequip.load(train(config(tmp_path / "data.npz", data=data), tmp_path / "u"))
    assert potential.metadata["reference_energies"] == {"Cu": -3.5, "Au": -4.25}
    domain = potential.metadata["domain"]
    largest = max(np.linalg.norm(a.get_forces(), axis=1).max() for a in frames)
    assert 0.5 * largest < domain["max_force"] < 1.001 * largest


def test_a_split_belongs_to_its_frames(tmp_path, trained, cluster_file):
    split = str(trained / "split.json")
    again = {"split_file": split, "n_train": None, "n_val": None, "n_test": None}
    train(config(cluster_file, {"max_epochs": 1}, data=again), tmp_path / "same")
    write(tmp_path / "other.xyz", clusters(60)[::-1], format="extxyz")
    with pytest.raises(InputError, match="belongs to other data"):
        train(config(tmp_path / "other.xyz", data=again), tmp_path / "other")


@pytest.mark.parametrize(
    ("job", "torchrun", "message"),
    [
        ({"SLURM_NTASKS": "1"}, None, None),
        ({"SLURM_NTASKS": "4"}, None, "ask for 1 processes, and there are 4|cannot set up"),
        ({"SLURM_NTASKS": "1"}, 1, None),
        ({}, 4, "ask for 1 processes, and there are 4"),
    ],
)
def test_processes_of_a_job_are_counted(cluster_file, monkeypatch, job, torchrun, message):
    """Those that torchrun has started inside of a SLURM job are torchrun's."""
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    if job:
        job |= {"SLURM_JOB_NAME": "train", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
                "SLURM_NODEID": "0", "SLURM_NODELIST": "node1"}  # fmt: skip
    if torchrun is not None:
        job |= {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0",
                "WORLD_SIZE": str(torchrun), "LOCAL_WORLD_SIZE": str(torchrun),
                "MASTER_ADDR": "localhost", "MASTER_PORT": "12345"}  # fmt: skip
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    settings = config(cluster_file, {"strategy": "ddp", "accelerator": "cpu"})
    if message is not None:
        with pytest.raises(InputError, match=message):
            _trainer(settings)
        return
    environment = _trainer(settings).strategy.cluster_environment
    assert isinstance(environment, TorchElasticEnvironment) == (torchrun is not None)


def test_a_folder_of_the_user_stays(tmp_path, cluster_file):
    (tmp_path / "mine").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    for place in ("mine", "link", "new"):
        with pytest.raises(InputError, match="within model"):
            train(config(cluster_file, model={"r_max": 0.5}), tmp_path / place)
    assert list((tmp_path / "mine").iterdir()) == []
    assert not (tmp_path / "new").exists()


def test_no_validation_no_model(tmp_path, cluster_file, monkeypatch):
    """What an interrupted run has that is given fewer epochs than it has done."""
    monkeypatch.setattr(TrainingLoop, "ending", lambda self: "0 epochs done")
    with pytest.raises(InputError, match="ended before its first validation"):
        train(config(cluster_file), tmp_path / "run")


def test_a_cutoff_in_nanometres_is_an_error(tmp_path, cluster_file):
    with pytest.raises(InputError, match=r"within model.r_max of 0.5 Å"):
        train(config(cluster_file, model={"r_max": 0.5}), tmp_path / "run")


def test_frames_that_cannot_have_the_multiplicity_are_named(tmp_path, cluster_file):
    with pytest.raises(InputError, match=r"clusters.*:\d+: .* multiplicity 2, which Au.* cannot"):
        train(config(cluster_file, charge=0, multiplicity=2), tmp_path / "run")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_an_error(tmp_path, cluster_file):
    with pytest.raises(InputError, match="accelerator is gpu, and PyTorch finds no CUDA GPU"):
        train(config(cluster_file, {"accelerator": "gpu"}), tmp_path / "run")
