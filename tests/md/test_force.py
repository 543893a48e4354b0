"""The potential in OpenMM gives what the potential gives."""

from dataclasses import replace

import ase
import numpy as np
import openmm
import pytest
import torch

from openmm_nequip.errors import InputError
from openmm_nequip.interop.ase import NequIPCalculator
from openmm_nequip.md import force as force_module
from openmm_nequip.md import python_force
from openmm_nequip.md.force import isolated_energies
from openmm_nequip.md.module import OpenMMModule, box_widths
from openmm_nequip.md.probe import why_not
from openmm_nequip.units import KJ_PER_MOL, KJ_PER_MOL_NM, NM

from . import systems
from .systems import (
    KINDS,
    TRICLINIC,
    context_of,
    evaluate,
    expected,
    random_frame,
    small_potential,
    with_potential,
)


@pytest.fixture(params=["fused", "reference"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(systems, "ENGINE", request.param)
    return request.param


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, engine: str) -> str:
    if reason := why_not(request.param):
        pytest.skip(reason)
    return request.param


@pytest.fixture(scope="module")
def potential():
    return small_potential()


def assert_equal(result, reference, rtol=1e-9):
    energy, forces = result
    expected_energy, expected_forces = reference
    size = np.abs(expected_forces).max()
    assert size > 10  # kJ/mol/nm; otherwise the test would say nothing
    assert energy == pytest.approx(expected_energy, rel=rtol)
    np.testing.assert_allclose(forces, expected_forces, rtol=0, atol=rtol * size)


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
@pytest.mark.parametrize("periodic", [False, True])
def test_equals_potential(kind, potential, platform, periodic):
    frame = random_frame(periodic)
    system = with_potential(potential, frame, force=kind)
    assert system.usesPeriodicBoundaryConditions() == periodic
    context = context_of(system, frame.positions, platform)
    assert_equal(evaluate(context), expected(potential, frame))


@pytest.mark.parametrize("periodic", [False, True])
def test_equals_ase(kind, potential, periodic):
    frame = random_frame(periodic)
    atoms = ase.Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
    atoms.calc = NequIPCalculator(potential)
    reference = (
        atoms.get_potential_energy() * KJ_PER_MOL,
        atoms.get_forces() * KJ_PER_MOL_NM,
    )
    system = with_potential(potential, frame, force=kind)
    assert_equal(evaluate(context_of(system, frame.positions)), reference)


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("subset", [False, True])
def test_python_torch_force(potential, engine, monkeypatch, periodic, subset):
    """The tensor interface, through a stand-in where openmm-torch does not have it yet."""

    class StandIn:
        @staticmethod
        def PythonTorchForce(compute, parameters):
            def with_tensors(state):
                positions = torch.from_numpy(state.getPositions(asNumpy=True)._value).float()
                energy, forces = compute(state, positions)
                assert energy.shape == ()
                assert forces.dtype == positions.dtype
                return energy.item(), forces.numpy()

            return openmm.PythonForce(with_tensors, parameters)

    monkeypatch.setattr(python_force, "import_openmmtorch", lambda: StandIn)
    monkeypatch.setattr(force_module, "why_not", lambda kind: "")
    frame, atoms = random_frame(periodic), [7, 2, 11, 0, 5] if subset else None
    system = with_potential(potential, frame, atoms, interpolate=True, force="python-torch")
    context = context_of(system, frame.positions)
    energy, forces = expected(potential, frame, atoms)
    assert_equal(evaluate(context), (energy, forces), rtol=1e-5)  # positions were single
    context.setParameter("lambda_interpolate", 0.5)
    assert_equal(evaluate(context), (0.5 * energy, 0.5 * forces), rtol=1e-5)
    context.setParameter("lambda_interpolate", 0.0)
    assert evaluate(context)[0] == 0.0


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_subset_in_any_order(kind, potential, platform, periodic):
    frame = random_frame(periodic)
    atoms = [7, 2, 11, 0, 5]
    system = with_potential(potential, frame, atoms, force=kind)
    context = context_of(system, frame.positions, platform)
    energy, forces = evaluate(context)
    assert_equal((energy, forces), expected(potential, frame, atoms))
    others = np.setdiff1d(np.arange(len(frame)), atoms)
    assert not forces[others].any()


def test_images_do_not_matter(kind, potential):
    """Wrapped or not, molecules whole or split across the box: the same energy and forces."""
    frame = random_frame(periodic=True)
    context = context_of(with_potential(potential, frame, force=kind), frame.positions)
    reference = evaluate(context)
    shifts = np.random.default_rng(3).integers(-3, 4, (len(frame), 3))
    context.setPositions((frame.positions + shifts @ TRICLINIC) * NM)
    assert_equal(evaluate(context), reference)
    context.setPositions((frame.positions + np.array([3.0, -7.0, 2.0])) * NM)
    assert_equal(evaluate(context), reference)


def test_periodic_images_are_felt(kind, potential):
    frame = random_frame(periodic=True)
    free = replace(frame, cell=None, pbc=(False,) * 3)
    energy, _ = evaluate(context_of(with_potential(potential, frame, force=kind), frame.positions))
    alone, _ = evaluate(context_of(with_potential(potential, free, force=kind), frame.positions))
    assert abs(energy - alone) > 1.0


def test_follows_the_box(kind, potential):
    frame = random_frame(periodic=True)
    context = context_of(with_potential(potential, frame, force=kind), frame.positions)
    larger = replace(frame, cell=frame.cell * 1.1)
    context.setPeriodicBoxVectors(*(larger.cell * NM))
    assert_equal(evaluate(context), expected(potential, larger))


@pytest.mark.parametrize("model_dtype", ["float32", "float64"])
@pytest.mark.parametrize("precision", [None, "single", "double"])
def test_precision(kind, engine, model_dtype, precision):
    frame, potential = random_frame(periodic=False), small_potential(model_dtype)
    dtype = {None: model_dtype, "single": "float32", "double": "float64"}[precision]
    system = with_potential(potential, frame, force=kind, precision=precision)
    context = context_of(system, frame.positions)
    rtol = 1e-9 if dtype == "float64" else 2e-6
    same = potential.with_dtype(dtype).with_engine(engine)
    assert_equal(evaluate(context), expected(same, frame), rtol)
    if dtype == "float32":  # and the radial splines of the fused engine are good
        assert_equal(evaluate(context), expected(potential.with_dtype(dtype), frame), 5e-5)
    # and it is that precision, not the other
    other = potential.with_dtype("float32" if dtype == "float64" else "float64")
    difference = np.abs(evaluate(context)[1] - expected(other, frame)[1]).max()
    assert difference > 1e-7


def test_two_contexts_at_once(kind, potential):
    frame, other = random_frame(False, seed=0), random_frame(False, seed=5)
    other = replace(other, numbers=frame.numbers)
    system = with_potential(potential, frame, force=kind)
    first = context_of(system, frame.positions)
    second = context_of(system, other.positions, "CPU")
    for _ in range(3):
        assert_equal(evaluate(first), expected(potential, frame))
        assert_equal(evaluate(second), expected(potential, other))
    del first
    assert_equal(evaluate(second), expected(potential, other))


def test_system_outlives_the_potential(kind):
    potential, frame = small_potential(), random_frame(False)
    reference = expected(potential, frame)
    system = with_potential(potential, frame, force=kind)
    with torch.no_grad():
        for parameter in potential.parameters():
            parameter.zero_()
    assert_equal(evaluate(context_of(system, frame.positions)), reference)


def test_where_gradients_are_off(kind, engine, potential):
    frame = random_frame(False)
    context = context_of(with_potential(potential, frame, force=kind), frame.positions)
    with torch.no_grad():
        if kind == "torch" and engine == "reference":
            with pytest.raises(openmm.OpenMMException, match="TorchForce cannot run under"):
                evaluate(context)
        else:
            assert_equal(evaluate(context), expected(potential, frame))
    assert_equal(evaluate(context), expected(potential, frame))


def test_minimiser_and_dynamics(kind, potential):
    frame = random_frame(False)
    context = context_of(with_potential(potential, frame, force=kind), frame.positions)
    before, _ = evaluate(context)
    openmm.LocalEnergyMinimizer.minimize(context, 10, 20)
    after, _ = evaluate(context)
    assert after < before - 10
    context.setVelocitiesToTemperature(100, 1)
    context.getIntegrator().step(20)
    assert np.isfinite(evaluate(context)[0])


def test_barostat(kind, potential):
    frame = random_frame(periodic=True)
    system = with_potential(potential, frame, force=kind)
    system.addForce(openmm.MonteCarloBarostat(1.0, 300.0, 2))
    context = context_of(system, frame.positions)
    box = context.getState().getPeriodicBoxVolume()
    context.getIntegrator().step(20)
    assert context.getState().getPeriodicBoxVolume() != box
    assert np.isfinite(evaluate(context)[0])


def test_interaction_energy(kind, potential):
    frame = random_frame(False)
    system = with_potential(potential, frame, force=kind, returnEnergyType="interaction_energy")
    energy, forces = evaluate(context_of(system, frame.positions))
    total, expected_forces = expected(potential, frame)
    shift = {1: -13.6, 6: -1030.0, 8: -2042.0}
    shifts = sum(shift[int(z)] for z in frame.numbers) * KJ_PER_MOL
    assert energy == pytest.approx(total - shifts, abs=1e-6)
    np.testing.assert_allclose(forces, expected_forces)
    np.testing.assert_allclose(isolated_energies(potential), [-13.6, -1030.0, -2042.0])


def test_atom_types(kind):
    potential = small_potential(
        type_names=["H", "CT", "CA"],
        elements=["H", "C", "C"],
        per_type_energy_shifts={"H": 0.0, "CT": 1.0, "CA": 2.0},
    )
    frame = replace(random_frame(False, n=3), numbers=np.array([6, 1, 6]))
    energies = {}
    for types in (["CT", "H", "CA"], [1, 0, 2], ["CA", "H", "CA"]):
        system = with_potential(potential, frame, force=kind, atomTypes=types)
        energies[str(types)] = evaluate(context_of(system, frame.positions))[0]
    by_name, by_index, other = energies.values()
    assert by_name == by_index
    assert abs(by_name - other) > 1
    with pytest.raises(InputError, match="several atom types"):
        with_potential(potential, frame, force=kind)


def test_forces_of_the_module():
    """What `TorchForce` relies on: contiguous forces in the dtype of the positions."""
    frame, atoms = random_frame(periodic=True), [3, 1]
    potential = small_potential()
    types = potential.type_indices(frame.numbers[atoms]).tolist()
    module = OpenMMModule(potential, types, atoms, periodic=True)
    for dtype in (torch.float32, torch.float64):
        positions = torch.tensor(frame.positions * NM, dtype=dtype)
        box = torch.tensor(frame.cell * NM, dtype=dtype)
        for evaluated in (module, torch.jit.script(module)):
            energy, forces = evaluated(positions, box)
            assert energy.dtype == torch.float64
            assert energy.shape == ()
            assert forces.dtype == dtype
            assert forces.shape == positions.shape
            assert forces.is_contiguous()
            assert not forces.requires_grad


def test_box_widths():
    np.testing.assert_allclose(box_widths(torch.eye(3) * torch.tensor([1.0, 2.0, 3.0])), [1, 2, 3])
    volume = np.linalg.det(TRICLINIC)
    widths = [
        volume / np.linalg.norm(np.cross(TRICLINIC[(k + 1) % 3], TRICLINIC[(k + 2) % 3]))
        for k in range(3)
    ]
    np.testing.assert_allclose(box_widths(torch.tensor(TRICLINIC)), widths)
