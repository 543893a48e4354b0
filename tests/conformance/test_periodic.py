"""Images: wrapped or not, supercells, cells smaller than the cutoff, other cell vectors."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from . import checks
from .cases import R_MAX, crystal, molecule


@pytest.mark.parametrize("scale", [1.0, 2.5], ids=["small", "large"])
def test_atoms_in_other_images(potential, scale):
    frame = crystal(scale=scale)
    images = np.random.default_rng(0).integers(-3, 4, size=(len(frame), 3))
    moved = replace(frame, positions=frame.positions + images @ frame.cell)
    checks.assert_same(potential, frame, moved)


@pytest.mark.parametrize("repeat", [(2, 1, 1), (2, 2, 2), (1, 3, 2)])
def test_supercell(potential, repeat):
    frame = crystal()
    assert np.linalg.norm(frame.cell, axis=1).max() < R_MAX
    corners = np.argwhere(np.ones(repeat)) @ frame.cell
    n = len(corners)
    supercell = replace(
        frame,
        numbers=np.tile(frame.numbers, n),
        positions=np.concatenate([frame.positions + corner for corner in corners]),
        cell=frame.cell * np.array(repeat)[:, None],
    )
    small = checks.evaluate(potential, frame, stress=True)
    large = checks.evaluate(potential, supercell, stress=True)
    relative = checks.tolerance(potential)
    shift = checks.shifts(potential, frame)
    checks.assert_close(
        large.atomic_energies - shift.repeat(n),
        (small.atomic_energies - shift).repeat(n),
        relative,
        "energies",
    )
    checks.assert_close(large.forces, small.forces.repeat(n, 1), relative, "forces")
    checks.assert_close(large.stress, small.stress, relative, "stress")
    checks.assert_close(large.virial, n * small.virial, relative, "virial")


def test_same_lattice_by_other_vectors(potential):
    frame = crystal()
    unimodular = np.array([[1, 1, 0], [0, 1, -1], [0, 0, 1]])
    checks.assert_same(potential, frame, replace(frame, cell=unimodular @ frame.cell))


def test_left_handed_cell(potential):
    frame = crystal()
    swapped = replace(frame, cell=frame.cell[[1, 0, 2]])
    assert np.linalg.det(swapped.cell) < 0
    checks.assert_same(potential, frame, swapped)


def test_molecule_in_a_large_cell(potential):
    frame = molecule()
    boxed = replace(frame, cell=30.0 * np.eye(3), pbc=(True, True, True))
    free, periodic = checks.evaluate(potential, frame), checks.evaluate(potential, boxed)
    relative = checks.tolerance(potential)
    checks.assert_close(periodic.atomic_energies, free.atomic_energies, relative, "energies")
    checks.assert_close(periodic.forces, free.forces, relative, "forces")


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_direction_that_is_not_periodic_sees_no_images(potential, axis):
    frame = crystal()
    pbc = [True] * 3
    pbc[axis] = False
    slab = replace(frame, pbc=tuple(pbc))
    # the same slab with vacuum instead of the missing images
    padded = frame.cell.copy()
    padded[axis] *= 12.0
    vacuum = replace(frame, cell=padded)
    a, b = checks.evaluate(potential, slab), checks.evaluate(potential, vacuum)
    relative = checks.tolerance(potential)
    checks.assert_close(a.forces, b.forces, relative, "forces")
    assert not torch.allclose(a.forces, checks.evaluate(potential, frame).forces)
