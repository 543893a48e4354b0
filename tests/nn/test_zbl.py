"""Screened nuclear repulsion against the published formula."""

import math

import pytest
import torch

from openmm_nequip.nn.zbl import ZBL


def universal(z1: int, z2: int, r: float) -> float:
    """Ziegler, Biersack & Littmark: eV from Å, with the constants that LAMMPS prints."""
    x = r * (z1**0.23 + z2**0.23) / 0.46850
    screening = (
        0.18175 * math.exp(-3.19980 * x)
        + 0.50986 * math.exp(-0.94229 * x)
        + 0.28022 * math.exp(-0.40290 * x)
        + 0.02817 * math.exp(-0.20162 * x)
    )
    return 14.399645 * z1 * z2 / r * screening


def envelope(x: float) -> float:
    return 1 - 28 * x**6 + 48 * x**7 - 21 * x**8 if x < 1 else 0.0


@pytest.mark.parametrize(("a", "b"), [(0, 0), (0, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("r", [0.3, 0.9, 2.5, 3.99, 4.0, 5.0])
def test_energy_of_a_pair(a, b, r):
    numbers = [1, 6, 29]
    distance = torch.tensor([r, r], dtype=torch.float64)
    i, j = torch.tensor([a, b]), torch.tensor([b, a])
    energies = ZBL(numbers)(distance, distance / 4.0, i, j)
    expected = universal(numbers[a], numbers[b], r) * envelope(r / 4.0)
    # half on each direction of the pair
    assert energies[0].item() == energies[1].item()
    assert energies.sum().item() == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_known_value():
    """Two hydrogen atoms at 1 Å, without the envelope."""
    one = torch.ones(1, dtype=torch.float64)
    types = torch.zeros(1, dtype=torch.int64)
    energy = 2 * ZBL([1])(one, 0 * one, types, types).item()
    assert energy == pytest.approx(1.0255749886551135, rel=1e-13)


def test_repulsion_at_short_range_is_coulombic():
    r = torch.tensor([1e-6], dtype=torch.float64)
    types = torch.zeros(1, dtype=torch.int64)
    energy = 2 * ZBL([6])(r, r, types, types).item()
    assert energy == pytest.approx(36 * 14.399645 / 1e-6, rel=1e-5)
