"""Surfaces, shells and hydrogen bonds of constructed geometries."""

import numpy as np
import pytest

from openmm_nequip.analysis.solvation import (
    acceptors,
    hydrogen_bond_count,
    hydrogen_bonds,
    neighbour_count,
    polar_hydrogens,
    sasa,
)


def test_surface_of_one_sphere():
    # Carbon has a radius of 1.70 Å, the probe 1.40 Å.
    found = sasa(np.array([6]), np.full((2, 1, 3), 30.0))
    np.testing.assert_allclose(found, 4 * np.pi * 3.1**2, rtol=1e-5)
    assert sasa(np.array([8]), np.zeros((1, 1, 3)), probe=0.0)[0, 0] == pytest.approx(
        4 * np.pi * 1.52**2, rel=1e-5
    )


def test_surface_of_two_spheres_that_overlap():
    # Each loses a cap of height R - d/2.
    radius, apart = 3.1, 2.0
    frames = np.array([[[0, 0, 0], [apart, 0, 0]], [[0, 0, 0], [50.0, 0, 0]]])
    found = sasa(np.array([6, 6]), frames)
    whole = 4 * np.pi * radius**2
    np.testing.assert_allclose(found[1], whole, rtol=1e-5)
    expected = whole - 2 * np.pi * radius * (radius - apart / 2)
    np.testing.assert_allclose(found[0], expected, rtol=5e-3)  # 960 points


def test_neighbours_are_counted_across_the_box():
    positions = np.array([[[0.5, 5, 5], [9.4, 5, 5], [2.0, 5, 5], [5, 5, 5]]])
    around, others = np.array([0]), np.array([1, 2, 3])
    box = np.array([np.diag([10.0, 10, 10])])
    assert neighbour_count(positions, around, others, 1.501, box).tolist() == [2]
    assert neighbour_count(positions, around, others, 1.501).tolist() == [1]
    assert neighbour_count(positions, around, others, 1.499, box).tolist() == [1]
    assert neighbour_count(positions, around, others, 1.099, box).tolist() == [0]


def test_donors_and_acceptors():
    numbers = np.array([6, 8, 1, 7, 1, 1])
    bonds = np.array([[0, 1], [2, 1], [3, 4], [0, 5]])
    assert polar_hydrogens(numbers, bonds).tolist() == [[3, 4], [1, 2]]
    assert acceptors(numbers).tolist() == [1, 3]


def chain(count: int, spacing: float, tilt: float = 0.0) -> np.ndarray:
    """Waters in a row: one O-H points to the next one, off by `tilt` degrees; one does not."""
    waters = np.zeros((count, 3, 3))
    waters[:, :, 0] = spacing * np.arange(count)[:, None]
    angle = np.radians(tilt)
    waters[:, 1] += [np.cos(angle), np.sin(angle), 0]
    waters[:, 2] += [0, 0, 1.0]
    return waters.reshape(1, -1, 3)


def bonded(positions: np.ndarray, box: np.ndarray | None = None) -> list[list[int]]:
    count = positions.shape[1] // 3
    oxygens = 3 * np.arange(count)
    donors = np.stack([oxygens.repeat(2), np.stack([oxygens + 1, oxygens + 2]).T.ravel()], axis=1)
    return hydrogen_bonds(positions, donors, oxygens, box).tolist()


def test_an_ideal_chain_has_a_bond_less_than_molecules():
    assert bonded(chain(5, 2.8)) == [[0, 2 * k, k + 1] for k in range(4)]


def test_a_ring_across_the_box_closes():
    box = np.array([np.diag([14.0, 20, 20])])
    assert bonded(chain(5, 2.8), box) == [*([0, 2 * k, k + 1] for k in range(4)), [0, 8, 0]]


@pytest.mark.parametrize(
    ("spacing", "tilt", "count"), [(3.497, 0, 4), (3.503, 0, 0), (2.8, 29.98, 4), (2.8, 30.02, 0)]
)
def test_limits_of_a_hydrogen_bond(spacing, tilt, count):
    assert len(bonded(chain(5, spacing, tilt))) == count


def test_bonds_of_several_frames():
    frames = np.concatenate([chain(3, 4.0), chain(3, 2.9), chain(3, 2.9, 45)])
    assert bonded(frames) == [[1, 0, 1], [1, 2, 2]]


def test_bonds_are_counted_in_pieces(monkeypatch):
    monkeypatch.setattr("openmm_nequip.analysis.solvation._HELD", 25)
    frames = np.concatenate([chain(3, 4.0), chain(3, 2.9), chain(3, 2.9, 45), chain(3, 2.9)])
    oxygens = np.array([0, 3, 6])
    donors = np.stack([oxygens, oxygens + 1], axis=1)
    assert hydrogen_bond_count(frames, donors, oxygens).tolist() == [0, 2, 0, 2]


def test_no_donors_no_bonds():
    found = hydrogen_bonds(np.zeros((2, 3, 3)), np.empty((0, 2), dtype=int), np.array([0]))
    assert found.shape == (0, 3)
    assert hydrogen_bond_count(
        np.zeros((2, 3, 3)), np.empty((0, 2), dtype=int), np.array([0])
    ).tolist() == [0, 0]
