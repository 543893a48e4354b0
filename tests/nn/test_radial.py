"""Radial basis, envelope and perceptron against closed formulas."""

import math

import numpy as np
import pytest
import torch

from openmm_nequip.nn.radial import BesselBasis, PolynomialCutoff, ScalarMLP, ScaledDistance

from .layout import random


@pytest.mark.parametrize("p", [2, 3, 5, 6, 6.5, 12])
def test_envelope(p):
    cutoff = PolynomialCutoff(p)
    x = torch.linspace(0.0, 1.2, 25, dtype=torch.float64)
    expected = (
        1
        - (p + 1) * (p + 2) / 2 * x**p
        + p * (p + 2) * x ** (p + 1)
        - p * (p + 1) / 2 * x ** (p + 2)
    )
    torch.testing.assert_close(cutoff(x), torch.where(x < 1, expected, 0.0), rtol=1e-12, atol=1e-13)
    assert cutoff(x[:1]).item() == 1.0
    assert (cutoff(x[x >= 1]) == 0).all()


@pytest.mark.parametrize("p", [2, 5, 6])
def test_envelope_is_twice_differentiable_at_the_cutoff(p):
    x = torch.tensor([1.0 - 1e-6], dtype=torch.float64, requires_grad=True)
    u = PolynomialCutoff(p)(x)
    (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    # leading term: u = p(p+1)(p+2)/6 · (1-x)³
    third = p * (p + 1) * (p + 2)
    assert abs(u.item()) < 1e-13
    assert slope.item() == pytest.approx(-third / 2 * 1e-12, abs=2e-13)
    assert curvature.item() == pytest.approx(third * 1e-6, rel=1e-4)


@pytest.mark.parametrize("r_max", [3.5, 5.0])
def test_bessel_basis(r_max):
    basis = BesselBasis(r_max, 8, False, 6)
    r = np.linspace(0.05, 1.1 * r_max, 40)
    x = r / r_max
    u = np.where(x < 1, 1 - 28 * x**6 + 48 * x**7 - 21 * x**8, 0.0)
    n = np.arange(1, 9)
    expected = 2 / r_max * np.sin(n * np.pi * x[:, None]) / r[:, None] * u[:, None]
    value = basis(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(value, expected, rtol=1e-11, atol=1e-13)
    # at r = 0: b_n = 2nπ/r_max²
    at_zero = basis(torch.zeros(1, dtype=torch.float64))[0].detach().numpy()
    np.testing.assert_allclose(at_zero, 2 * n * np.pi / r_max**2, rtol=1e-14)


def test_frequencies_are_parameters_where_trainable():
    for trainable in (True, False):
        basis = BesselBasis(4.0, 3, trainable, 6)
        assert basis.frequencies.requires_grad == trainable
        assert basis.frequencies.tolist() == [1.0, 2.0, 3.0]
        assert basis.frequencies.dtype == torch.float64


def test_scaled_distance_per_ordered_pair():
    r = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    centre, neighbour = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0])
    table = torch.tensor([[2.0, 4.0], [5.0, 8.0]], dtype=torch.float64)
    x = ScaledDistance(table)(r, centre, neighbour)
    torch.testing.assert_close(x, r / torch.tensor([2.0, 4.0, 5.0]).double(), rtol=1e-15, atol=0)
    uniform = ScaledDistance(torch.full((2, 2), 4.0, dtype=torch.float64))
    torch.testing.assert_close(uniform(r, centre, neighbour), r / 4.0, rtol=1e-15, atol=0)


@pytest.mark.parametrize(
    ("nonlinearity", "activation"),
    [
        ("silu", lambda x: x / (1 + torch.exp(-x))),
        ("mish", lambda x: x * torch.tanh(torch.log1p(torch.exp(x)))),
        ("gelu", lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))),
        (None, lambda x: x),
    ],
)
def test_perceptron(nonlinearity, activation):
    mlp = ScalarMLP([3, 5, 4, 2], nonlinearity).double()
    a, b, c = (layer.weight for layer in mlp.layers)
    x = random(7, 3)
    gain = 1.0 if nonlinearity is None else math.sqrt(2)
    hidden = activation(x @ a / math.sqrt(3))
    hidden = activation(hidden @ b * gain / math.sqrt(5))
    torch.testing.assert_close(mlp(x), hidden @ c * gain / 2, rtol=1e-12, atol=1e-13)
    assert (mlp(torch.zeros(1, 3, dtype=torch.float64)) == 0).all()


def test_perceptron_weights_have_unit_variance():
    torch.manual_seed(0)
    weight = ScalarMLP([300, 300]).layers[0].weight
    assert weight.std().item() == pytest.approx(1.0, abs=0.01)
    assert weight.abs().max() <= math.sqrt(3)
