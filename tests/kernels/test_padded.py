"""The neighbour list of fixed shape against vesin, and that it never gives a wrong number."""

import numpy as np
import pytest
import torch

from openmm_nequip.data.neighbors import neighbor_list
from openmm_nequip.kernels.edges import sum_onto_atoms
from openmm_nequip.kernels.padded import count_edges, padded_edges
from tests.conformance.cases import TYPES, build

R_MAX = 3.5
BOXES = {
    "none": None,
    "cubic": 8.0 * np.eye(3),
    "just-wide-enough": np.diag([7.0, 9.0, 7.5]),
    # tilted as far as OpenMM allows
    "triclinic": np.array([[8.0, 0.0, 0.0], [4.0, 7.0, 0.0], [-4.0, 3.5, 7.2]]),
}


def scene(name: str, n: int = 30) -> tuple[np.ndarray, np.ndarray | None]:
    box = BOXES[name]
    rng = np.random.default_rng(3)
    positions = rng.random((n, 3)) @ (8.0 * np.eye(3) if box is None else box)
    if box is not None:
        positions += rng.integers(-3, 4, (n, 3)) @ box
    return positions, box


def tensor(array: np.ndarray | None) -> torch.Tensor | None:
    return None if array is None else torch.from_numpy(array)


def expected(positions: np.ndarray, box: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    (i, j), shifts = neighbor_list(positions, box, (box is not None,) * 3, R_MAX)
    vectors = positions[j] - positions[i]
    return np.stack([i, j]), vectors if box is None else vectors + shifts @ box


@pytest.mark.parametrize("name", BOXES)
def test_same_edges_as_vesin(name):
    positions, box = scene(name)
    (i, j), vectors = expected(positions, box)
    capacity = len(i) + 17
    edges, found, overflow = padded_edges(tensor(positions), tensor(box), R_MAX, capacity)
    edge_index = torch.stack([edges.receivers, edges.senders])
    assert not overflow
    assert count_edges(tensor(positions), tensor(box), R_MAX) == len(i)
    order, count = np.lexsort((j, i)), len(i)
    np.testing.assert_array_equal(edge_index[:, :count], np.stack([i, j])[:, order])
    np.testing.assert_allclose(found[:count], vectors[order], rtol=0, atol=1e-12)
    filling = found[count:]
    assert (torch.linalg.vector_norm(filling, dim=1) >= 2 * R_MAX).all()
    per_atom = torch.bincount(edge_index[0, count:], minlength=len(positions))
    assert per_atom.max() - per_atom.min() <= 1


def test_no_pairs_at_all():
    _, vectors, overflow = padded_edges(torch.zeros(1, 3), None, R_MAX, 4)
    assert vectors.tolist() == [[2 * R_MAX, 0, 0]] * 4
    assert not overflow


@pytest.mark.parametrize("missing", [0, 1, 50])
def test_overflow(missing):
    positions, box = scene("triclinic")
    capacity = expected(positions, box)[0].shape[1] - missing
    edges, vectors, overflow = padded_edges(tensor(positions), tensor(box), R_MAX, capacity)
    edge_index = torch.stack([edges.receivers, edges.senders])
    assert bool(overflow) == (missing > 0)
    assert bool(vectors.isnan().all()) == (missing > 0)
    assert edge_index.shape == (2, capacity)
    assert edge_index.min() >= 0
    assert edge_index.max() < len(positions)


@pytest.mark.parametrize(
    "box",
    [np.diag([6.99, 8.0, 8.0]), np.diag([8.0, 8.0, np.nan]), 8 * np.eye(3) + np.eye(3, k=1)],
    ids=["small", "nan", "not reduced"],
)
def test_box_that_cannot_be_used(box):
    positions, _ = scene("cubic")
    _, vectors, overflow = padded_edges(tensor(positions), tensor(box), R_MAX, 900)
    assert overflow
    assert vectors.isnan().all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_position_that_is_not_finite(value):
    positions, box = scene("cubic")
    positions[3, 1] = value
    _, vectors, overflow = padded_edges(tensor(positions), tensor(box), R_MAX, 900)
    assert overflow
    assert vectors.isnan().all()


@pytest.mark.parametrize("case", ["l2-edge-cutoffs", "l2-parity-zbl"])
@pytest.mark.parametrize("engine", ["reference", "fused"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_potential(case, engine, dtype):
    """Filling changes nothing; an overflow makes the energy NaN, and the forces."""
    potential = build(case, dtype).with_engine(engine)
    positions, box = scene("triclinic", n=20)
    types = torch.arange(20) % len(TYPES)
    edge_index, vectors = map(torch.from_numpy, expected(positions, box))
    energies, gradient = potential.differentiate(vectors.clone(), types, edge_index, True)
    forces = torch.zeros(20, 3, dtype=torch.float64).index_add(0, edge_index[0], gradient)
    forces.index_add_(0, edge_index[1], -gradient)
    count = edge_index.shape[1]
    for capacity in (count, 2 * count, count - 1):
        edges, vectors, overflow = padded_edges(tensor(positions), tensor(box), R_MAX, capacity)
        padded = torch.stack([edges.receivers, edges.senders])
        found, gradient = potential.differentiate(vectors, types, padded, True)
        found_forces = sum_onto_atoms(gradient, edges)
        if capacity < count:
            assert overflow
            assert found.sum().isnan()
            assert found_forces.isnan().all()
        else:
            tolerance = {"float64": 1e-12, "float32": 1e-6}[dtype]
            torch.testing.assert_close(found.sum(), energies.sum(), rtol=tolerance, atol=0)
            atol = 10 * tolerance * float(forces.abs().max())
            torch.testing.assert_close(found_forces, forces, rtol=0, atol=atol)
