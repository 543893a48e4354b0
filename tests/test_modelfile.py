"""The model file: bitwise, self-contained, atomic, and clear about what is wrong."""

import json
import pickle
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import openmm_nequip
from openmm_nequip import InputError, modelfile
from openmm_nequip.architectures.nequip import NequIPConfig
from openmm_nequip.data.frame import Frame
from openmm_nequip.potential import Potential

METADATA = {"licence": "CC0", "errors": {"test": {"forces_mae_meV_per_A": 7.25}}, "note": "Å and ε"}


@pytest.fixture
def potential():
    torch.manual_seed(0)
    config = NequIPConfig(
        type_names=["H", "O"],
        num_layers=2,
        num_features=4,
        avg_num_neighbors={"H": 3.0, "O": 4.5},
        per_type_energy_shifts={"H": -13.6, "O": -2041.8},
    )
    return Potential(config, METADATA).eval()


@pytest.fixture
def model_file(potential, tmp_path):
    path = tmp_path / "water.safetensors"
    potential.save(path)
    return path


def rewrite_header(path, change):
    """Apply `change` to the JSON document of a model file, leaving the tensors alone."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    document = json.loads(header["__metadata__"]["openmm-nequip"])
    change(document)
    header["__metadata__"]["openmm-nequip"] = json.dumps(document)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def test_round_trip_is_bitwise(potential, model_file):
    loaded = openmm_nequip.load(model_file)
    assert not loaded.training
    assert loaded.config == potential.config
    assert loaded.metadata == METADATA
    for (name, ours), theirs in zip(
        potential.state_dict().items(), loaded.state_dict().values(), strict=True
    ):
        assert ours.dtype == theirs.dtype, name
        assert torch.equal(ours, theirs), name
    frame = Frame(np.array([8, 1, 1]), np.array([[0, 0, 0], [0.96, 0, 0], [-0.2, 0.9, 0]]))
    expected, found = potential(potential.to_graph(frame)), loaded(loaded.to_graph(frame))
    assert torch.equal(expected.forces, found.forces)
    assert torch.equal(expected.energy, found.energy)


def test_precision_can_be_changed(potential):
    frame = Frame(np.array([8, 1, 1]), np.array([[0, 0, 0], [0.96, 0, 0], [-0.2, 0.9, 0]]))
    double = potential.with_dtype("float64")
    assert double.dtype == torch.float64
    single, exact = potential(potential.to_graph(frame)), double(double.to_graph(frame))
    assert not torch.equal(single.forces, exact.forces)
    torch.testing.assert_close(single.forces, exact.forces, rtol=1e-5, atol=1e-6)


def test_saving_over_a_file_is_atomic(potential, model_file, monkeypatch):
    before = model_file.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(modelfile.os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        potential.save(model_file)
    assert model_file.read_bytes() == before
    assert list(model_file.parent.iterdir()) == [model_file]


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        openmm_nequip.load(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("read", [modelfile.read_header, modelfile.find_model])
def test_folder_instead_of_a_file(tmp_path, monkeypatch, read):
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="'run' is a folder"):
        read("run")


def test_folder_with_a_model_file(tmp_path):
    (tmp_path / "mine.safetensors").touch()
    with pytest.raises(InputError, match=r"give the file in it, mine\.safetensors"):
        modelfile.find_model(tmp_path)


def test_unknown_name():
    with pytest.raises(InputError, match="no bundled potential is called 'no-such-one'"):
        openmm_nequip.load("no-such-one")


@pytest.mark.parametrize("name", ["Organic-Small", "organic-smal", "organic-small.safetensors"])
def test_nearly_a_name(name):
    with pytest.raises(InputError, match=r"did you mean 'organic-small'\?"):
        openmm_nequip.load(name)


@pytest.mark.parametrize("size", [0, 5, 200, -100])
def test_truncated_file(model_file, size):
    model_file.write_bytes(model_file.read_bytes()[:size])
    with pytest.raises(InputError, match="damaged"):
        openmm_nequip.load(model_file)


def test_a_pickle_is_refused_and_not_run(tmp_path):
    path = tmp_path / "evil.safetensors"

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError, match="not a safetensors file"):
        openmm_nequip.load(path)
    assert not (tmp_path / "executed").exists()


def test_foreign_safetensors_file(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(InputError, match="not of openmm-nequip"):
        openmm_nequip.load(path)


def test_newer_schema_says_so(model_file):
    rewrite_header(model_file, lambda document: document.update(schema_version=999))
    with pytest.raises(InputError, match="update openmm-nequip"):
        openmm_nequip.load(model_file)


def test_unknown_option_in_header(model_file):
    rewrite_header(model_file, lambda document: document["config"].update(num_heads=2))
    with pytest.raises(InputError, match="unknown key 'num_heads'"):
        openmm_nequip.load(model_file)


def test_weights_that_do_not_fit(model_file):
    rewrite_header(model_file, lambda document: document["config"].update(num_features=8))
    with pytest.raises(InputError, match="do not fit its configuration"):
        openmm_nequip.load(model_file)
