"""Facts about e3nn that the weights of a model file rest on."""

import math

import torch
from e3nn.o3 import Irrep, Irreps, SphericalHarmonics, wigner_3j

from .layout import random


def harmonics(l_max: int, vectors: torch.Tensor) -> torch.Tensor:
    irreps = Irreps.spherical_harmonics(l_max)
    return SphericalHarmonics(irreps, normalize=True, normalization="component").double()(vectors)


def test_order_and_norm_of_the_harmonics():
    vectors = random(10, 3) * 3.0
    y = harmonics(4, vectors)
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    torch.testing.assert_close(y[:, 0], torch.ones(10, dtype=torch.float64))
    # l = 1 in the order x, y, z
    torch.testing.assert_close(y[:, 1:4], math.sqrt(3) * unit, rtol=1e-13, atol=1e-13)
    # l = 2: xz, xy, y² - (x² + z²)/2, yz, (z² - x²)/2
    x, yy, z = unit.T
    root = math.sqrt(15)
    expected = torch.stack(
        [
            root * x * z,
            root * x * yy,
            math.sqrt(5) * (yy**2 - 0.5 * (x**2 + z**2)),
            root * yy * z,
            0.5 * root * (z**2 - x**2),
        ],
        dim=1,
    )
    torch.testing.assert_close(y[:, 4:9], expected, rtol=1e-12, atol=1e-12)
    for order, s in enumerate(Irreps.spherical_harmonics(4).slices()):
        norm = (y[:, s] ** 2).sum(dim=1)
        torch.testing.assert_close(norm, torch.full_like(norm, 2.0 * order + 1))


def test_parity_of_the_harmonics():
    vectors = random(5, 3)
    sign = torch.cat([torch.full((2 * order + 1,), (-1.0) ** order) for order in range(5)]).double()
    torch.testing.assert_close(harmonics(4, -vectors), sign * harmonics(4, vectors))


def test_wigner_3j_signs():
    """Scalar product and cross product, with the signs that trained weights assume."""
    dot = wigner_3j(1, 1, 0, dtype=torch.float64)[:, :, 0]
    torch.testing.assert_close(dot, torch.eye(3).double() / math.sqrt(3))
    a, b = random(3), random(3, seed=1)
    cross = torch.einsum("ijk,i,j->k", wigner_3j(1, 1, 1, dtype=torch.float64), a, b)
    torch.testing.assert_close(cross, torch.linalg.cross(a, b) / math.sqrt(6))
    for ls in [(1, 2, 1), (2, 2, 2), (3, 2, 1), (4, 3, 2), (4, 4, 4)]:
        norm = wigner_3j(*ls, dtype=torch.float64).norm().item()
        assert math.isclose(norm, 1.0, abs_tol=1e-12)


def test_irreps_are_sorted_by_l_then_odd_before_even():
    irreps = [Irrep(name) for name in ("2e", "0e", "1e", "1o", "0o", "2o")]
    assert [str(ir) for ir in sorted(irreps)] == ["0o", "0e", "1o", "1e", "2o", "2e"]
