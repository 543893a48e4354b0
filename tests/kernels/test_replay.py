"""The step that a CUDA graph replays: as exact as any other, and never one of a list too short.

Without a GPU the same function runs without a graph; that a graph could capture it is seen on fake
tensors, which have no values, so that whatever waits for one fails.
"""

import gc
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from openmm_nequip.data.frame import Frame
from openmm_nequip.errors import InputError
from openmm_nequip.kernels import network, replay
from openmm_nequip.kernels.form import form, form_key
from openmm_nequip.kernels.linear_ops import ByType
from openmm_nequip.kernels.network import radial_tables
from openmm_nequip.kernels.replay import ReplayedStep
from openmm_nequip.md import fused as md_fused
from openmm_nequip.nn.spline import RadialSpline
from openmm_nequip.potential import make_graph
from tests.conformance.cases import TYPES, build

BOXES = {
    "none": None,
    # tilted as far as OpenMM allows
    "triclinic": np.array([[10.0, 0.0, 0.0], [5.0, 9.0, 0.0], [-5.0, 4.5, 9.2]]),
}


def scene(name: str, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray | None]:
    box = BOXES[name]
    rng = np.random.default_rng(3)
    positions = scale * rng.random((30, 3)) @ (10.0 * np.eye(3) if box is None else box)
    return positions, box


def reference(potential, positions, box):
    frame = Frame(np.ones(len(positions), int), positions, box, (box is not None,) * 3)
    types = np.arange(len(positions)) % len(TYPES)
    graph = make_graph(frame, types, potential.r_max)
    return potential(graph, stress=box is not None)


def step_of(potential) -> ReplayedStep:
    return ReplayedStep(potential.with_engine("fused"), torch.arange(30) % len(TYPES))


@pytest.fixture(scope="module")
def potential():
    return build("l2-parity-zbl", "float64")


@pytest.mark.parametrize("name", BOXES)
def test_as_the_reference(potential, name):
    step = step_of(potential)
    for shift in (0.0, 0.3):
        positions, box = scene(name)
        positions += shift * np.sin(np.arange(90)).reshape(30, 3)
        expected = reference(potential, positions, box)
        energies, forces, vectors, gradient = step(
            torch.from_numpy(positions), None if box is None else torch.from_numpy(box)
        )
        virial = vectors.T @ gradient
        torch.testing.assert_close(energies, expected.atomic_energies, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(forces, expected.forces, rtol=1e-11, atol=1e-10)
        if box is not None:
            stress = (virial + virial.T) / (2 * np.linalg.det(box))
            torch.testing.assert_close(stress, expected.stress[0], rtol=1e-10, atol=1e-12)
    assert step.captures == 1


def test_more_neighbours_than_places(potential):
    """A system that is compressed: captured anew, once; no number in between is wrong."""
    step = step_of(potential)
    capacities = []
    for scale in (1.0, 0.97, 0.6, 0.59, 1.0):
        positions, _ = scene("none", scale)
        expected = reference(potential, positions, None)
        energies, forces, *_ = step(torch.from_numpy(positions), None)
        torch.testing.assert_close(energies, expected.atomic_energies, rtol=1e-11, atol=1e-10)
        torch.testing.assert_close(forces, expected.forces, rtol=1e-10, atol=1e-9)
        capacities.append(step.capacity)
    assert step.captures == 2
    assert capacities[0] == capacities[1] < capacities[2] == capacities[3] == capacities[4]


def test_results_are_not_overwritten(potential):
    step = step_of(potential)
    positions = torch.from_numpy(scene("none")[0])
    first = step(positions, None)
    kept = [t.clone() for t in first]
    step(0.9 * positions, None)
    assert all(torch.equal(a, b) for a, b in zip(first, kept, strict=True))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_position_that_is_not_finite(potential, value):
    step = step_of(potential)
    positions, _ = scene("none")
    step(torch.from_numpy(positions), None)
    wrong = positions.copy()
    wrong[7, 1] = value
    for _ in range(2):
        with pytest.raises(InputError, match="position of atom 7 is not finite"):
            step(torch.from_numpy(wrong), None)
    step(torch.from_numpy(positions), None)


def test_box_that_becomes_too_narrow(potential):
    step = step_of(potential)
    positions, box = map(torch.from_numpy, scene("triclinic"))
    step(positions, box)
    for wrong in (0.5 * box, box.T.contiguous()):
        with pytest.raises(ValueError, match="narrower than twice the cutoff"):
            step(positions, wrong)


def test_a_box_of_twice_the_cutoff_in_single_precision(potential):
    positions, _ = scene("triclinic")
    box = torch.eye(3) * (2 * potential.r_max * 0.1)  # nm; as TorchForce hands it over on CUDA
    box = box.double() / 0.1
    assert box[0, 0] < 2 * potential.r_max
    found = step_of(potential)(torch.from_numpy(positions), box)
    assert all(result.isfinite().all() for result in found)
    with pytest.raises(ValueError, match="narrower than twice the cutoff"):
        step_of(potential)(torch.from_numpy(positions), 0.9999 * box)


def test_a_capture_that_fails_is_said_once_and_costs_only_time(potential, monkeypatch, caplog):
    class Broken(nullcontext):
        def __exit__(self, *_):
            raise RuntimeError("operation failed due to a previous error during capture")

    stream = SimpleNamespace(wait_stream=lambda _: None)
    monkeypatch.setattr(replay, "_stream", lambda _: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", lambda *_, **__: Broken())
    positions, box = map(torch.from_numpy, scene("triclinic"))
    expected = step_of(potential)(positions, box)
    step = step_of(potential)
    step._can_capture = True
    for _ in range(2):
        for a, b in zip(step(positions, box), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)
    (record,) = caplog.records
    assert "could not capture the step, which is slower now but right" in record.message
    assert "previous error during capture" in record.message
    assert gc.isenabled()


def test_chosen_for_small_systems_in_boxes_that_it_knows(potential, monkeypatch):
    """The engine on CUDA takes it where it is right, and the Verlet list elsewhere."""
    engine = md_fused.FusedEngine(potential, "cpu")
    assert not engine._is_replayed(30, None, (True,) * 3)
    monkeypatch.setattr(type(engine.potential), "device", torch.device("cuda"))
    wide = 3 * potential.r_max * np.eye(3)
    assert engine._is_replayed(1000, None, (True,) * 3)
    assert engine._is_replayed(30, wide, (True,) * 3)
    assert engine._is_replayed(30, 0.1 * wide, (False,) * 3)
    assert not engine._is_replayed(0, None, (True,) * 3)
    assert not engine._is_replayed(1001, None, (True,) * 3)
    assert not engine._is_replayed(30, 0.5 * wide, (True,) * 3)
    assert not engine._is_replayed(30, wide + np.eye(3, k=1), (True,) * 3)
    assert not engine._is_replayed(30, wide, (True, False, True))


@pytest.mark.parametrize("name", BOXES)
def test_engine_evaluates_by_it(potential, name, monkeypatch):
    positions, box = scene(name)
    types = torch.arange(30) % len(TYPES)
    arguments = (torch.from_numpy(positions), types, box)
    expected = md_fused.FusedEngine(potential, "cpu")(*arguments)
    engine = md_fused.FusedEngine(potential, "cpu")
    monkeypatch.setattr(engine, "_is_replayed", lambda *_: True)
    for found in (engine(*arguments), engine(arguments[0], types.clone(), box)):
        for name_ in ("energies", "forces", "virial"):
            a, b = getattr(found, name_), getattr(expected, name_)
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-10)
    assert engine._replayed.captures == 1
    engine(arguments[0], (types + 1) % len(TYPES), box)
    assert engine._replayed.types[0] == 1


@pytest.mark.parametrize("case", ["l2-parity-zbl", "l2-edge-cutoffs"])
@pytest.mark.parametrize("name", BOXES)
def test_nothing_waits_for_the_gpu(case, name, monkeypatch):
    monkeypatch.setattr(network, "linear", lambda module, x: module(x))  # as on a GPU
    types = torch.arange(30) % len(TYPES)
    by_type = ByType.of(types, len(TYPES))
    potential = build(case, "float32").with_engine("fused").eval().requires_grad_(False)
    tables = radial_tables(potential.network, RadialSpline(64))
    for layer in network.layers(potential.network):
        form(form_key(layer.convolution))  # for which the host needs numbers, once
    positions, box = (None if a is None else torch.from_numpy(a) for a in scene(name))
    with FakeTensorMode() as mode:
        fake = mode.from_tensor
        for module in potential.modules():
            for tensors in (module._parameters, module._buffers):
                tensors.update({name: fake(t) for name, t in tensors.items() if t is not None})
        potential._tables, potential._prepare = list(map(fake, tables)), lambda: None
        step = ReplayedStep(potential, fake(types))
        parts = ByType(fake(by_type.order), fake(by_type.inverse), by_type.parts)
        potential._types = step.types, step.types._version, parts
        step._positions, step.capacity = fake(positions), 300
        step._box = None if box is None else fake(box)
        results = step._evaluate()
        assert [tuple(t.shape) for t in results] == [(30,), (30, 3), (300, 3), (300, 3), ()]
        with pytest.raises(DataDependentOutputException):
            bool(results[-1])  # what the test would see
