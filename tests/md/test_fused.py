"""The fused engine in OpenMM: its lists last, belong to one Context, and change nothing."""

import gc
import json
import subprocess
import sys
import threading
import weakref
from dataclasses import replace

import numpy as np
import openmm
import pytest
import torch

from openmm_nequip.errors import InputError
from openmm_nequip.kernels import engine as engine_module
from openmm_nequip.kernels.engine import choose_engine, why_not_fused
from openmm_nequip.md import fused
from openmm_nequip.md.module import OpenMMModule
from openmm_nequip.md.probe import why_not
from openmm_nequip.md.settings import ForceSettings, to_bytes
from openmm_nequip.md.torch_force import Shell
from openmm_nequip.units import NM

from .systems import (
    KINDS,
    context_of,
    evaluate,
    expected,
    random_frame,
    small_potential,
    with_potential,
)


@pytest.fixture(params=KINDS)
def kind(request):
    if reason := why_not(request.param):
        pytest.skip(reason)
    return request.param


@pytest.fixture(scope="module")
def potential():
    return small_potential()


@pytest.fixture
def modules(monkeypatch):
    """Weak references to all fused modules that are made."""
    made = []
    original = fused.FusedModule.__init__

    def remember(self, *args, **kwargs):
        original(self, *args, **kwargs)
        made.append(weakref.ref(self))

    monkeypatch.setattr(fused.FusedModule, "__init__", remember)
    return made


def builds(modules):
    return [module().engine.neighbors.builds for module in modules]


def moving(kind, frame, barostat=False, **keywords):
    """Return a Context in motion, heavy atoms at a temperature that moves them."""
    system = with_potential(small_potential(), frame, force=kind, **keywords)
    if barostat:
        force = openmm.MonteCarloBarostat(300.0, 300.0, 2)
        force.setRandomNumberSeed(5)
        system.addForce(force)
    context = context_of(system, frame.positions)
    context.setVelocitiesToTemperature(600, 1)
    return context


@pytest.mark.parametrize("barostat", [False, True])
def test_every_step_is_right(kind, modules, barostat):
    """What a list that was built long ago gives is what the potential gives."""
    frame = random_frame(periodic=True)
    context, potential = moving(kind, frame, barostat), small_potential()
    boxes = set()
    for _ in range(30):
        context.getIntegrator().step(4)
        state = context.getState(positions=True, energy=True, forces=True)
        box = state.getPeriodicBoxVectors(asNumpy=True)._value / NM
        boxes.add(float(box[0, 0]))
        now = replace(frame, positions=state.getPositions(asNumpy=True)._value / NM, cell=box)
        energy, forces = expected(potential, now)
        assert state.getPotentialEnergy()._value == pytest.approx(energy, rel=1e-9)
        found = state.getForces(asNumpy=True)._value
        np.testing.assert_allclose(found, forces, rtol=0, atol=1e-9 * np.abs(forces).max())
    assert (len(boxes) > 3) == barostat
    assert 1 < builds(modules)[-1] < 30


@pytest.mark.parametrize("model_dtype", ["float32", "float64"])
@pytest.mark.parametrize("periodic", [False, True])
def test_forces_of_all_kinds_agree(periodic, model_dtype):
    kinds = [kind for kind in KINDS if not why_not(kind)]
    if len(kinds) < 2:
        pytest.skip(f"only '{kinds[0]}' works here: nothing to compare")
    frame, potential = random_frame(periodic), small_potential(model_dtype)
    results = [
        evaluate(context_of(with_potential(potential, frame, force=kind), frame.positions))
        for kind in kinds
    ]
    for energy, forces in results[1:]:
        assert energy == results[0][0]
        np.testing.assert_array_equal(forces, results[0][1])


def test_contexts_share_nothing(potential, modules):
    if reason := why_not("torch"):
        pytest.skip(reason)
    frame, other = random_frame(True), random_frame(True, seed=5)
    system = with_potential(potential, frame, force="torch")
    assert not modules  # the force itself holds no network
    first, second = context_of(system, frame.positions), context_of(system, other.positions)
    for _ in range(3):
        evaluate(first)
        evaluate(second)
    assert builds(modules) == [1, 1]


def test_memory_goes_with_the_context(potential, modules):
    if reason := why_not("torch"):
        pytest.skip(reason)
    frame = random_frame(False)
    system = with_potential(potential, frame, force="torch")
    for count in range(1, 4):
        context = context_of(system, frame.positions)
        evaluate(context)
        evaluate(context)
        assert len(modules) == count
        context.reinitialize()
        del context
        gc.collect()
        assert all(module() is None for module in modules)


def test_context_that_is_alive_at_the_end_of_the_process(kind):
    script = (
        "from tests.md.systems import *\n"
        "frame = random_frame(True)\n"
        f"system = with_potential(small_potential(), frame, force={kind!r})\n"
        "context = context_of(system, frame.positions)\n"
        "print(evaluate(context)[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    frame = random_frame(True)
    assert float(done.stdout) == pytest.approx(expected(small_potential(), frame)[0], rel=1e-9)


def test_threads_may_share_a_system(kind, potential):
    """Contexts of a `PythonForce` share its function, and with it the list."""
    frames = [random_frame(True, seed=seed) for seed in (0, 5)]
    frames[1] = replace(frames[1], numbers=frames[0].numbers)
    system = with_potential(potential, frames[0], force=kind)
    contexts = [context_of(system, frame.positions) for frame in frames]
    results: list[list[float]] = [[], []]

    def work(k):
        for _ in range(15):
            results[k].append(evaluate(contexts[k])[0])

    threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for frame, energies in zip(frames, results, strict=True):
        assert energies == [pytest.approx(expected(potential, frame)[0], rel=1e-9)] * 15


def test_recovers_from_an_error(kind, potential):
    frame = random_frame(True)
    context = context_of(with_potential(potential, frame, force=kind), frame.positions)
    reference = evaluate(context)
    broken = frame.positions * NM
    broken[2, 2] = np.nan
    context.setPositions(broken)
    with pytest.raises(openmm.OpenMMException):
        evaluate(context)
    context.setPositions(frame.positions * NM)
    np.testing.assert_allclose(evaluate(context)[1], reference[1], rtol=0, atol=1e-9)
    context.setPeriodicBoxVectors(*(frame.cell * NM * 0.5))
    with pytest.raises(openmm.OpenMMException, match="narrower than twice the cutoff"):
        evaluate(context)
    context.setPeriodicBoxVectors(*(frame.cell * NM))
    np.testing.assert_allclose(evaluate(context)[1], reference[1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e9])
def test_what_the_module_says(potential, value):
    """OpenMM finds some of it first."""
    frame = random_frame(True)
    module = fused.FusedModule(potential, [0] * 12, None, periodic=True)
    positions, box = torch.tensor(frame.positions) * NM, torch.tensor(frame.cell) * NM
    positions[1, 1] = value
    with pytest.raises(RuntimeError, match="far away: the simulation has blown up"):
        module(positions, box)
    positions[1, 1] = 0.0
    box[0, 0] = value if value < 1e9 else 0.7
    with pytest.raises(RuntimeError, match="narrower than twice the cutoff"):
        module(positions, box)


@pytest.mark.parametrize("reference", [False, True])
def test_an_atom_that_has_left_the_vacuum_is_said(potential, reference):
    frame = random_frame(False)
    kind = OpenMMModule if reference else fused.FusedModule
    module = kind(potential.eval(), [0] * 12, None, periodic=False)
    positions = torch.tensor(frame.positions) * NM
    positions[0] += 1e3
    assert module(positions)[0].isfinite()
    positions[0] += 1e9
    with pytest.raises(RuntimeError, match="far away: the simulation has blown up"):
        module(positions)


@pytest.mark.parametrize("engine", ["fused", "reference"])
def test_particles_that_were_added_later_feel_nothing(kind, potential, engine):
    frame = random_frame(True)
    system = with_potential(potential, frame, force=kind, engine=engine)
    energy, forces = evaluate(context_of(system, frame.positions))
    system = with_potential(potential, frame, force=kind, engine=engine)
    system.addParticle(0.0)
    anchor = frame.positions[:1] + 0.5
    context = context_of(system, np.concatenate([frame.positions, anchor]))
    found, more = evaluate(context)
    assert found == pytest.approx(energy, rel=1e-12)
    np.testing.assert_allclose(more[:-1], forces, rtol=0, atol=1e-9)
    assert (more[-1] == 0).all()


def test_inference_mode(kind, potential):
    frame = random_frame(True)
    context = context_of(with_potential(potential, frame, force=kind), frame.positions)
    with torch.inference_mode():
        inside = evaluate(context)
    energy, forces = expected(potential, frame)
    for found in (inside, evaluate(context)):
        assert found[0] == pytest.approx(energy, rel=1e-9)
        np.testing.assert_allclose(found[1], forces, rtol=0, atol=1e-9 * np.abs(forces).max())


def test_minimisation_with_a_reporter(kind, potential):
    """With the reference engine in a `TorchForce` this crashes the process."""
    frame, seen = random_frame(False), []

    class Reporter(openmm.MinimizationReporter):
        def report(self, iteration, x, grad, args):
            seen.append(args["system energy"])
            return False

    context = context_of(with_potential(potential, frame, force=kind), frame.positions)
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, 10, Reporter())
    assert len(seen) > 2
    assert seen[-1] < seen[0] - 1


def test_groups(kind, potential):
    frame = random_frame(True)
    system = with_potential(potential, frame, [1, 4, 6, 8], force=kind)
    restraint = openmm.CustomExternalForce("100*x")
    restraint.addParticle(4)
    restraint.setForceGroup(2)
    system.addForce(restraint)
    system.getForce(0).setForceGroup(3)
    context = context_of(system, frame.positions)
    energy, forces = expected(potential, frame, [1, 4, 6, 8])
    found = evaluate(context, 1 << 3)
    assert found[0] == pytest.approx(energy, rel=1e-9)
    np.testing.assert_allclose(found[1], forces, rtol=0, atol=1e-9 * np.abs(forces).max())
    assert evaluate(context, 1 << 2)[1][4].tolist() == [-100.0, 0.0, 0.0]


def test_the_shell_takes_both_precisions(potential):
    """CUDA hands over single precision, and the scale as an array of one."""
    frame, atoms = random_frame(True), [3, 1, 7]
    types = potential.type_indices(frame.numbers[atoms]).tolist()
    settings = ForceSettings("torch", types, atoms, True, interpolate=True, engine="fused")
    shell = Shell(periodic=True)
    for name, content in (
        ("settings", settings.to_json().encode()),
        ("model_file", to_bytes(potential)),
    ):
        shell.register_buffer(name, torch.frombuffer(bytearray(content), dtype=torch.uint8))
    energy, forces = expected(potential, frame, atoms)
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        positions = torch.tensor(frame.positions * NM, dtype=dtype)
        box = torch.tensor(frame.cell * NM, dtype=dtype)
        scale = torch.tensor([0.5], dtype=dtype, requires_grad=True)
        found = torch.jit.script(shell)(positions, box, scale)
        assert found[0].shape == ()
        assert found[0].dtype == torch.float64
        assert found[0].item() == pytest.approx(0.5 * energy, rel=1e-7)
        (derivative,) = torch.autograd.grad(found[0], scale)
        assert derivative.item() == pytest.approx(energy, rel=1e-7)
        assert found[1].dtype == dtype
        assert found[1].is_contiguous()
        np.testing.assert_allclose(
            found[1].detach(), 0.5 * forces, rtol=0, atol=tolerance * np.abs(forces).max()
        )


def test_choice(monkeypatch):
    assert choose_engine("auto") == choose_engine("fused") == "fused"
    assert choose_engine("reference") == "reference"
    assert choose_engine("auto", "meta") == "reference"
    assert why_not_fused("mps") == "it runs on CPU and CUDA, not on 'mps'"

    def missing(name):
        raise ImportError(f"No module named '{name}'")

    monkeypatch.setattr(engine_module, "import_module", missing)
    assert choose_engine("auto", "cpu") == "reference"
    for device, compiler in (("cpu", "numba"), ("cuda:1", "triton")):
        with pytest.raises(InputError, match=f"does not work here: {compiler} cannot be") as error:
            choose_engine("fused", device)
        assert "\n" not in str(error.value)


def test_settings_without_an_engine(potential):
    """Of files that are older than the fused engine."""
    settings = ForceSettings("python", [0, 1], None, False, engine="reference")
    values = json.loads(settings.to_json())
    assert values.pop("engine") == "reference"
    old = ForceSettings.from_json(json.dumps(values))
    assert old.engine == "auto"
    file = to_bytes(potential)
    assert isinstance(old.module(file, True, "cpu"), fused.FusedModule)
    assert type(settings.module(file, True, "cpu")) is OpenMMModule
