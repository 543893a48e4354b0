"""Splines against scipy's, which know nothing of uniform knots."""

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from openmm_nequip.nn.spline import RadialSpline, evaluate

INTERVALS = 16
KNOTS = np.arange(-3, INTERVALS + 4) / INTERVALS


def envelope(x: np.ndarray) -> np.ndarray:
    """Three functions as radial networks give them: they vanish smoothly at 1."""
    frequencies = np.array([1.0, 2.5, 4.0])
    return (1 - x[:, None]) ** 3 * np.cos(frequencies * x[:, None] + 0.3)


def test_samples_are_at_two_gauss_points_of_each_interval():
    points, _ = np.polynomial.legendre.leggauss(2)
    edges = np.arange(INTERVALS) / INTERVALS
    expected = edges[:, None] + (points + 1) / (2 * INTERVALS)
    np.testing.assert_allclose(RadialSpline(INTERVALS).grid, expected.ravel(), atol=1e-15)


def test_coefficients_are_the_least_squares_fit_of_splines_that_vanish_at_one():
    spline = RadialSpline(INTERVALS)
    samples = envelope(spline.grid.numpy())
    design = BSpline.design_matrix(spline.grid.numpy(), KNOTS, 3).toarray()[:, :INTERVALS]
    expected = np.zeros((INTERVALS + 3, 3))
    expected[:INTERVALS] = np.linalg.lstsq(design, samples)[0]
    found = spline(torch.from_numpy(samples))
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("slope", [False, True])
def test_values_and_slopes_are_scipys(slope):
    x = np.linspace(0, 1, 333, endpoint=False)
    coefficients = np.random.default_rng(0).normal(size=(INTERVALS + 3, 4))
    coefficients[-3:] = 0.0
    expected = BSpline(KNOTS, coefficients, 3)(x, nu=int(slope))
    found = evaluate(torch.from_numpy(x), torch.from_numpy(coefficients), slope=slope)
    np.testing.assert_allclose(found, expected, atol=1e-10 if slope else 1e-12)
    beyond = torch.tensor([1.0, 1.5], dtype=torch.float64)
    assert not evaluate(beyond, torch.from_numpy(coefficients), slope=slope).any()


def test_error_falls_with_the_fourth_power_of_the_intervals():
    x, errors = np.linspace(0, 1, 1000, endpoint=False), []
    for intervals in (16, 32):
        spline = RadialSpline(intervals)
        coefficients = spline(torch.from_numpy(envelope(spline.grid.numpy())))
        found = evaluate(torch.from_numpy(x), coefficients)
        errors.append(np.abs(found.numpy() - envelope(x)).max())
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.25)
