"""Lists that are kept are the lists that a fresh search would give."""

import numpy as np
import pytest
import torch

from openmm_nequip.data.neighbors import neighbor_list
from openmm_nequip.errors import InputError
from openmm_nequip.kernels.edges import Edges
from openmm_nequip.md import verlet_numba
from openmm_nequip.md.verlet import SKIN, TorchVerletList, VerletList, verlet_list
from openmm_nequip.md.verlet_numba import NumbaVerletList

R_MAX = 3.0
TRICLINIC = np.array([[9.0, 0.0, 0.0], [2.0, 8.5, 0.0], [-2.5, 3.0, 8.0]])
FREE = (False, False, False)
PERIODIC = (True, True, True)
CASES = {
    "few atoms": (None, FREE, 20),
    "many atoms": (None, FREE, 90),
    "cube": (np.eye(3) * 8.0, PERIODIC, 60),
    "triclinic": (TRICLINIC, PERIODIC, 60),
    "several images": (TRICLINIC / 3.5, PERIODIC, 5),
    "wire": (TRICLINIC, (False, True, False), 40),
}


@pytest.fixture(params=[NumbaVerletList, TorchVerletList])
def new(request) -> type[VerletList]:
    return request.param


def in_order(receivers, senders, vectors):
    """Several images of a pair come in any order."""
    order = np.lexsort((*vectors.round(6).T, senders, receivers))
    return receivers[order], senders[order], vectors[order]


def assert_right(found, positions, box, periodic):
    """Compare with a search from scratch."""
    (i, j), shifts = neighbor_list(positions, box, periodic, R_MAX)
    vectors = positions[j] - positions[i] + (shifts @ box if box is not None else 0.0)
    i, j, vectors = in_order(i, j, vectors)
    key = found.edges.receivers.numpy() * len(positions) + found.edges.senders.numpy()
    assert (np.diff(key) >= 0).all()
    expected = Edges.of(torch.stack([found.edges.receivers, found.edges.senders]), len(positions))
    for tensor, other in zip(found.edges, expected, strict=True):
        assert tensor.dtype == torch.int64
        assert torch.equal(tensor, other)
    edges = found.edges
    receivers, senders, found_vectors = in_order(
        edges.receivers.numpy(), edges.senders.numpy(), found.vectors.numpy()
    )
    np.testing.assert_array_equal(receivers, i)
    np.testing.assert_array_equal(senders, j)
    np.testing.assert_allclose(found_vectors, vectors, rtol=0, atol=1e-12)
    assert found.vectors.dtype == torch.float64


def assert_identical(first, second):
    assert torch.equal(first.vectors, second.vectors)
    for a, b in zip(first.edges, second.edges, strict=True):
        assert torch.equal(a, b)


def start(case, seed=0):
    box, periodic, n = CASES[case]
    rng = np.random.default_rng(seed)
    extent = box if box is not None else np.eye(3) * n ** (1 / 3) * 1.8
    return rng, rng.random((n, 3)) @ extent, box, periodic


def update(neighbors, positions, box, periodic):
    return neighbors.update(torch.from_numpy(positions), box, periodic)


@pytest.mark.parametrize("case", CASES)
def test_random_walk(new, case):
    """Atoms move, the box breathes and shears, atoms are wrapped or put elsewhere."""
    rng, positions, box, periodic = start(case)
    neighbors, steps = new(R_MAX), 80
    for step in range(steps):
        assert_right(update(neighbors, positions, box, periodic), positions, box, periodic)
        positions = positions + rng.normal(scale=0.02, size=positions.shape)
        if box is None:
            continue
        if step % 7 == 3:  # as a barostat does, and then some
            changed = box @ (np.eye(3) + rng.normal(scale=0.004, size=(3, 3)))
            positions, box = positions @ np.linalg.solve(box, changed), changed
        jumps = np.zeros_like(positions)
        if step % 5 == 2:
            jumps = rng.integers(-3, 4, positions.shape).astype(float)
        if step % 5 == 4:
            jumps = -np.floor(positions @ np.linalg.inv(box))
        positions = positions + jumps * periodic @ box
    if case == "few atoms":
        assert neighbors.builds == 1
    else:
        assert 1 < neighbors.builds < steps / 3


@pytest.mark.parametrize("case", ["cube", "triclinic"])
def test_jumps_by_lattice_vectors_are_followed(new, case):
    rng, positions, box, periodic = start(case)
    neighbors = new(R_MAX)
    update(neighbors, positions, box, periodic)
    for _ in range(5):
        positions = positions + rng.integers(-5, 6, positions.shape) @ box
        assert_right(update(neighbors, positions, box, periodic), positions, box, periodic)
    assert neighbors.builds == 1
    positions[7] += 0.5 * box[0]  # this is none
    assert_right(update(neighbors, positions, box, periodic), positions, box, periodic)
    assert neighbors.builds == 2


@pytest.mark.parametrize("atoms_follow", [True, False])
@pytest.mark.parametrize("factor", [0.985, 1.015])
def test_box_that_changes_only(new, factor, atoms_follow):
    """Without a single displacement pairs come within the cutoff."""
    _, positions, box, periodic = start("triclinic")
    squeeze = np.diag([factor, 1.0, 1.0])
    neighbors = new(R_MAX)
    for _ in range(25):
        assert_right(update(neighbors, positions, box, periodic), positions, box, periodic)
        box = box @ squeeze
        positions = positions @ squeeze if atoms_follow else positions
    if factor > 1 and atoms_follow:
        assert neighbors.builds == 1
    else:
        assert 1 < neighbors.builds < 25


def test_two_atoms_meet(new):
    """Each moves by half: just before they are close enough there must be a new list."""
    far = [1e3, 0, 0] + np.arange(100)[:, None] * [0, 50.0, 0]  # so that not all are candidates
    gap = R_MAX + SKIN + 1e-3
    neighbors = new(R_MAX)
    for k in range(100):
        moved = 0.0101 * k
        positions = np.vstack([[[moved, 0, 0], [gap - moved, 0, 0]], far])
        found = update(neighbors, positions, None, FREE)
        assert len(found.edges.senders) == (2 if gap - 2 * moved < R_MAX else 0)
    assert found.vectors[0].tolist() == pytest.approx([gap - 2 * moved, 0, 0])
    assert neighbors.builds > 1


def test_lists_do_not_depend_on_when_they_were_built(new):
    """Else a run that goes on would round differently from one that never stopped."""
    rng, positions, box, periodic = start("cube")
    kept = new(R_MAX)
    for _ in range(12):
        update(kept, positions, box, periodic)
        positions = positions + rng.normal(scale=0.01, size=positions.shape)
    old = update(kept, positions, box, periodic)
    fresh = update(new(R_MAX), positions, box, periodic)
    assert_identical(old, fresh)
    assert kept.builds == 1


def test_other_atoms(new):
    neighbors = new(R_MAX)
    for case in CASES:
        _, positions, box, periodic = start(case)
        for n in (len(positions), 1, 2, len(positions) - 1):
            found = update(neighbors, positions[:n], box, periodic)
            assert_right(found, positions[:n], box, periodic)


def test_earlier_results_stay(new):
    _, positions, box, periodic = start("cube")
    neighbors = new(R_MAX)
    first = update(neighbors, positions, box, periodic)
    before = first.vectors.clone()
    update(neighbors, positions * 1.001, box, periodic)
    assert torch.equal(first.vectors, before)


@pytest.mark.parametrize("case", ["few atoms", "many atoms", "cube"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -1e200])
def test_positions_that_are_not_finite(new, case, value):
    _, positions, box, periodic = start(case)
    neighbors, broken = new(R_MAX), positions.copy()
    broken[3, 1] = value
    for _ in range(2):
        with pytest.raises(InputError, match="position of atom 3 is not finite"):
            update(neighbors, broken, box, periodic)
        assert_right(update(neighbors, positions, box, periodic), positions, box, periodic)


def test_after_a_failure_the_list_is_made_anew(new):
    """An atom of a slab has left it; before, the list served fewer atoms."""
    rng = np.random.default_rng(0)
    box, slab = np.diag([12.0, 12.0, 12.0]), (True, True, False)
    positions = 12.0 * rng.random((60, 3))
    for before in (None, 20):
        neighbors = new(R_MAX)
        if before:
            update(neighbors, positions[:before], box, slab)
        away = positions.copy()
        away[7, 2] = 1e6
        for _ in range(2):
            with pytest.raises(InputError):
                update(neighbors, away, box, slab)
        assert_right(update(neighbors, positions, box, slab), positions, box, slab)


def test_an_atom_that_flies_away(new):
    """Cells over empty space must not be made (vesin 0.6 would end the process)."""
    _, positions, _, _ = start("many atoms")
    neighbors, without = new(R_MAX), positions[1:]
    for distance in (1e3, 1e5, 1e7):
        positions[0] = distance, 0.0, 0.0
        found = update(neighbors, positions, None, FREE)
        expected = update(new(R_MAX), without, None, FREE)
        assert torch.equal(found.edges.senders - 1, expected.edges.senders)
        assert torch.equal(found.vectors, expected.vectors)


@pytest.mark.parametrize("case", CASES)
def test_forces(new, case):
    """As autograd has them, for an energy of the vectors alone."""
    _, positions, box, periodic = start(case)
    neighbors = new(R_MAX)
    vectors, edges = update(neighbors, positions, box, periodic)
    coefficients = torch.linspace(1.0, 2.0, len(vectors), dtype=torch.float64)[:, None]
    points = torch.tensor(positions, requires_grad=True)
    moving = points[edges.senders] - points[edges.receivers]
    energy = (coefficients * (vectors + moving - moving.detach()).square()).sum()
    (gradient,) = torch.autograd.grad(energy, points)
    found = neighbors.forces(2 * coefficients * vectors, edges)
    torch.testing.assert_close(found, -gradient, rtol=0, atol=1e-11)
    assert found.shape == positions.shape
    assert case == "several images" or found.abs().max() > 1.0


def test_threads_do_not_change_the_result(monkeypatch):
    _, positions, box, periodic = start("triclinic")
    one = update(NumbaVerletList(R_MAX), positions, box, periodic)
    monkeypatch.setattr(verlet_numba, "_PARALLEL", 0)
    called = []
    parallel = verlet_numba._select_parallel
    monkeypatch.setattr(
        verlet_numba, "_select_parallel", lambda *args: called.append(1) or parallel(*args)
    )
    torch.set_num_threads(2)
    try:
        two = update(NumbaVerletList(R_MAX), positions, box, periodic)
    finally:
        torch.set_num_threads(1)
    assert called
    assert_identical(one, two)


def test_on_cpu_it_is_compiled():
    assert isinstance(verlet_list(R_MAX, "cpu"), NumbaVerletList)
    assert isinstance(verlet_list(R_MAX, "cuda:1"), TorchVerletList)
