"""Diffusion against random walks and closed formulas."""

import numpy as np
import pytest

from openmm_nequip.analysis.transport import (
    diffusion_coefficient,
    finite_size_correction,
    mean_square_displacement,
    unwrap,
)


def walk(frames: int, atoms: int, step: float, seed: int = 0) -> np.ndarray:
    """Positions of Gaussian random walkers, ``D = step² / (2 spacing)``."""
    rng = np.random.default_rng(seed)
    return 100 + np.cumsum(rng.normal(0, step, (frames, atoms, 3)), axis=0)


def test_displacements_are_the_sums_of_their_definition():
    positions = walk(17, 4, 0.3)
    expected = [0.0]
    for lag in range(1, 17):
        moved = positions[lag:] - positions[:-lag]
        expected.append((moved**2).sum(axis=2).mean())
    np.testing.assert_allclose(mean_square_displacement(positions), expected, atol=1e-9)


def test_displacement_of_uniform_motion():
    positions = np.arange(50.0)[:, None, None] * np.array([0.0, 3.0, 4.0]) + np.ones((50, 2, 3))
    np.testing.assert_allclose(mean_square_displacement(positions), (5 * np.arange(50.0)) ** 2)


def test_diffusion_is_a_sixth_of_the_slope():
    positions, spacing = walk(103, 4, 0.3), 0.7
    found = diffusion_coefficient(positions, spacing, fit_from=1.0, blocks=5)
    slopes = []
    for piece in np.split(positions[:100], 5):
        lags = np.arange(2, 6)  # the first of at least 1 ps; to a quarter of the piece
        msd = [((piece[lag:] - piece[:-lag]) ** 2).sum(axis=2).mean() for lag in lags]
        slopes.append(np.polyfit(lags * spacing, msd, 1)[0] / 6)
    assert found.value == pytest.approx(np.mean(slopes), rel=1e-9)
    assert found.error == pytest.approx(np.std(slopes, ddof=1) / np.sqrt(5), rel=1e-9)
    assert (found.fit_from, found.fit_to) == (pytest.approx(1.4), pytest.approx(3.5))


def test_the_jump_at_the_start_is_not_fitted():
    found = diffusion_coefficient(walk(200, 4, 0.3), spacing=5.0, fit_from=1.0)
    assert found.fit_from == 5.0


def test_diffusion_of_random_walkers_within_its_error():
    found = diffusion_coefficient(walk(4000, 60, 0.2), spacing=0.5, fit_from=2.0, blocks=5)
    exact = 0.2**2 / (2 * 0.5)
    assert abs(found.value - exact) < 4 * found.error
    assert found.error < 0.1 * exact
    assert (found.fit_from, found.fit_to) == (2.0, 100.0)
    assert len(found.lags) == len(found.msd) == 201


def test_vibration_is_no_diffusion():
    rng = np.random.default_rng(1)
    found = diffusion_coefficient(rng.normal(0, 0.3, (1000, 20, 3)), 0.1, fit_from=1.0)
    assert abs(found.value) < 1e-3


def test_error_of_the_diffusion_is_the_scatter_of_independent_runs():
    runs = [diffusion_coefficient(walk(500, 20, 0.1, k), 1.0, fit_from=1.0) for k in range(40)]
    scatter = np.std([run.value for run in runs], ddof=1)
    assert np.mean([run.error for run in runs]) == pytest.approx(scatter, rel=0.4)


def test_too_short_a_trajectory_is_refused():
    with pytest.raises(ValueError, match="30 frames are too few for 5 pieces"):
        diffusion_coefficient(walk(30, 2, 0.1), 0.1, fit_from=1.0)


def test_finite_size_correction_of_water():
    # Yeh and Hummer, J. Phys. Chem. B 108, 15873 (2004): ξ kT / 6πηL, here with L in nm.
    expected = 2.837297 * 1.380649e-23 * 298 / (6 * np.pi * 0.89e-3 * 1.244e-9) * 1e9
    assert finite_size_correction(298, 12.44, 0.89) * 10 == pytest.approx(expected, rel=1e-6)
    assert expected == pytest.approx(0.56, abs=0.01)  # 10⁻⁹ m²/s


def test_unwrapping_undoes_the_wrapping():
    cell = np.array([[9.0, 0, 0], [2.5, 8.0, 0], [-3.0, 1.5, 10.0]])
    positions = walk(300, 7, 0.4)
    wrapped = ((positions @ np.linalg.inv(cell)) % 1.0) @ cell
    found = unwrap(wrapped, np.array([cell] * 300))
    np.testing.assert_allclose(found - found[0], positions - positions[0], atol=1e-9)


def test_a_changing_box_does_not_move_an_atom_far_away():
    # A barostat scales positions: an atom rests in a box that breathes, its image 50 boxes away
    # moves 50 times as far as the box.
    sizes = 20 + 0.1 * np.sin(np.arange(100))
    box = sizes[:, None, None] * np.eye(3)
    place = np.array([0.3, 0.5, 0.1])
    near, far = ((place + images) * sizes[:, None, None] for images in (0.0, 50.0))
    found = unwrap(far, box)
    np.testing.assert_allclose(found - found[0], near - near[0], atol=1e-9)
