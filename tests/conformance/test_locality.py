"""Cutoff, isolated atoms, systems that do not see each other, empty neighbour lists."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from openmm_nequip.data.frame import Frame

from . import checks
from .cases import NUMBERS, molecule


@pytest.mark.parametrize("pair", [("H", "H"), ("C", "O"), ("O", "C"), ("H", "O")])
def test_energy_and_forces_vanish_smoothly_at_the_cutoff(potential64, case, pair):
    numbers = [NUMBERS[pair[0]], NUMBERS[pair[1]]]
    checks.check_cutoff(potential64, numbers, case.cutoff(*pair))
    checks.check_crossing(potential64, [*numbers, 6], case.cutoff(*pair))


def test_isolated_atom_has_exactly_its_shift(potential):
    for symbol, shift in potential.config.per_type_energy_shifts.items():
        for cell in (None, 20.0 * np.eye(3)):
            frame = Frame(
                numbers=np.array([NUMBERS[symbol]]),
                positions=np.array([[0.1, -0.2, 0.3]]),
                cell=cell,
                pbc=(cell is not None,) * 3,
            )
            output = checks.evaluate(potential, frame, stress=True)
            assert output.energy.item() == shift
            assert output.atomic_energies.tolist() == [shift]
            assert (output.forces == 0).all()
            assert (output.virial == 0).all()
            assert (output.stress == 0).all() if cell is not None else output.stress.isnan().all()


def test_far_systems_add_up(potential):
    a, b = molecule(seed=0), molecule(seed=8, n=6)
    both = Frame(
        numbers=np.concatenate([a.numbers, b.numbers]),
        positions=np.concatenate([a.positions, b.positions + np.array([0.0, 90.0, 0.0])]),
    )
    together = checks.evaluate(potential, both)
    apart = checks.evaluate(potential, a, b)
    relative = checks.tolerance(potential)
    shift = checks.shifts(potential, both)
    checks.assert_close(
        together.energy - shift.sum(), [apart.energy.sum() - shift.sum()], relative, "energy"
    )
    checks.assert_close(
        together.atomic_energies - shift, apart.atomic_energies - shift, relative, "energies"
    )
    checks.assert_close(together.forces, apart.forces, relative, "forces")


def test_no_neighbours_at_all(potential):
    frame = molecule()
    sparse = replace(frame, positions=frame.positions * 100.0)
    output = checks.evaluate(potential, sparse, stress=True)
    assert torch.equal(output.atomic_energies, checks.shifts(potential, sparse))
    assert (output.forces == 0).all()
    assert (output.virial == 0).all()


def test_no_atoms(potential):
    nothing = Frame(numbers=np.zeros(0, np.int64), positions=np.zeros((0, 3)))
    output = checks.evaluate(potential, nothing)
    assert output.energy.tolist() == [0.0]
    assert output.forces.shape == (0, 3)
    # and in a batch with others
    mixed = checks.evaluate(potential, molecule(), nothing)
    assert mixed.energy[1] == 0.0
