"""Training on the fused engine: the same potential, bit by bit reproducible."""

import csv
from pathlib import Path

import numba
import pytest
import torch

import openmm_nequip
from openmm_nequip.architectures.nequip import NequIPConfig
from openmm_nequip.data.dataset import FrameDataset
from openmm_nequip.data.readers import read_frames
from openmm_nequip.errors import InputError
from openmm_nequip.kernels import engine as engines
from openmm_nequip.kernels.engine import set_num_threads
from openmm_nequip.kernels.potential import FusedPotential
from openmm_nequip.potential import Potential
from openmm_nequip.training import run
from openmm_nequip.training.config import TrainConfig
from openmm_nequip.training.ema import EMA
from openmm_nequip.training.evaluation import evaluation_batches, predict
from openmm_nequip.training.run import train

from .conftest import TINY
from .test_train import config


@pytest.fixture(autouse=True)
def numba_threads():
    before = numba.get_num_threads()
    yield
    numba.set_num_threads(before)


def logged(output: Path, *names: str) -> list[list[float]]:
    with (output / "log.csv").open() as file:
        return [[float(row[name]) for name in names] for row in csv.DictReader(file)]


@pytest.mark.parametrize("radial", ["exact", "spline"])
def test_engines_have_the_same_loss_curve(tmp_path, cluster_file, radial):
    curves = []
    for engine in ("reference", "fused"):
        settings = config(
            cluster_file,
            # Adam: the axes of SOAP, where no gradient is, follow from rounding errors
            {"engine": engine, "max_epochs": 3, "val_interval": 1, "optimizer": "adam"},
            model={"model_dtype": "float64", "radial": radial},
        )
        train(settings, tmp_path / engine)
        curves.append(logged(tmp_path / engine, "train_loss", "val_loss"))
    assert len(curves[0]) == 3
    assert curves[1][-1][1] < curves[1][0][1]
    for one, two in zip(*curves, strict=True):
        assert two == pytest.approx(one, rel=1e-9)


def weights(settings: TrainConfig, output: Path, threads: int, monkeypatch) -> dict:
    """Return those that training with so many of Numba's threads ends with."""
    monkeypatch.setattr(run, "set_num_threads", lambda _: numba.set_num_threads(threads))
    return openmm_nequip.load(train(settings, output)).state_dict()


@pytest.mark.parametrize("radial", ["exact", "spline"])
def test_same_bits_again(tmp_path, cluster_file, radial, monkeypatch):
    settings = config(cluster_file, {"engine": "fused"}, model={"radial": radial})
    first, again = (weights(settings, tmp_path / name, 1, monkeypatch) for name in "ab")
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())


@pytest.mark.parametrize("radial", ["exact", "spline"])
def test_same_bits_for_any_number_of_threads(
    tmp_path, cluster_file, radial, monkeypatch, several_threads
):
    settings = config(cluster_file, {"engine": "fused"}, model={"radial": radial})
    one = weights(settings, tmp_path / "one", 1, monkeypatch)
    all_ = weights(settings, tmp_path / "all", several_threads, monkeypatch)
    assert all(torch.equal(tensor, all_[name]) for name, tensor in one.items())


def test_engine_is_chosen_by_what_can_be_compiled(monkeypatch, cluster_file, tmp_path):
    used = []
    original = run.finish

    def note(config, sets, potential, *arguments):
        used.append(type(potential))
        original(config, sets, potential, *arguments)

    monkeypatch.setattr(run, "finish", note)
    train(config(cluster_file, {"max_epochs": 1}), tmp_path / "auto")
    train(config(cluster_file, {"max_epochs": 1, "engine": "reference"}), tmp_path / "reference")
    monkeypatch.setattr(engines, "why_not_fused", lambda device=None: "no compiler")
    train(config(cluster_file, {"max_epochs": 1}), tmp_path / "without")
    assert used == [FusedPotential, Potential, Potential]
    with pytest.raises(InputError, match="does not work here: no compiler"):
        train(config(cluster_file, {"max_epochs": 1, "engine": "fused"}), tmp_path / "fused")


def test_evaluation_sees_weights_that_change_in_place(cluster_file):
    """The tables of evaluation are kept; averages come and go, a fused Adam leaves no trace."""
    torch.manual_seed(0)
    frames = read_frames(cluster_file)[:4]
    architecture = NequIPConfig(**TINY, type_names=["Cu", "Au"], avg_num_neighbors=3.0)
    reference = Potential(architecture)
    fused = reference.with_engine("fused")
    batches = list(evaluation_batches(FrameDataset(frames, ["Cu", "Au"], TINY["r_max"])))

    def check() -> torch.Tensor:
        reference.load_state_dict(fused.state_dict())
        found, expected = (predict(p, batches).output.forces for p in (fused, reference))
        assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
        return found

    ema = EMA(fused, 0.5)
    first = check()
    optimizer = torch.optim.Adam(fused.parameters(), lr=0.1, fused=True)
    for _ in range(2):
        graph, _targets = batches[0]
        fused.train()(graph).forces.square().sum().backward()
        optimizer.step()
        ema.update()
    second = check()
    with ema.applied():
        third = check()
    fourth = check()
    assert (second - first).abs().max() > 1e-2 * first.abs().max()
    assert (third - second).abs().max() > 1e-2 * first.abs().max()
    assert torch.equal(second, fourth)


def test_threads_are_set_for_both():
    before = torch.get_num_threads()
    try:
        set_num_threads(1)
        assert torch.get_num_threads() == numba.get_num_threads() == 1
        set_num_threads(1000)
        assert numba.get_num_threads() == numba.config.NUMBA_NUM_THREADS
    finally:
        torch.set_num_threads(before)
