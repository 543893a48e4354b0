"""Observables against closed formulas, known distributions and other programs."""

import ase
import ase.build
import mdtraj
import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.spatial.transform import Rotation

from openmm_nequip.analysis.observables import (
    block_error,
    box_widths,
    distances,
    energy_drift,
    equilibrated_from,
    find_bonds,
    pressure,
    radial_distribution,
    rmsd,
    statistical_inefficiency,
)

TRICLINIC = np.array([[9.0, 0, 0], [2.5, 8.0, 0], [-3.0, 1.5, 10.0]])


def test_rmsd_does_not_see_rotation_and_translation():
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(7, 3))
    moved = Rotation.random(5, rng).as_matrix() @ reference.T
    frames = moved.transpose(0, 2, 1) + rng.normal(size=(5, 1, 3))
    np.testing.assert_allclose(rmsd(frames, reference), 0, atol=1e-7)


def test_rmsd_sees_a_reflection():
    reference = np.random.default_rng(0).normal(size=(7, 3))
    assert rmsd(reference[None] * [1, 1, -1], reference)[0] > 0.3


def test_rmsd_is_mdtrajs():
    frames = np.random.default_rng(1).normal(size=(6, 9, 3))
    trajectory = mdtraj.Trajectory(frames / 10, topology=None)
    expected = mdtraj.rmsd(trajectory, trajectory, frame=0) * 10
    np.testing.assert_allclose(rmsd(frames, frames[0])[1:], expected[1:], rtol=1e-5)


def test_drift_finds_the_slope_and_its_error():
    time = np.arange(4000) * 0.01
    noise = np.random.default_rng(2).normal(0, 0.3, len(time))
    drift = energy_drift(time, 5000 + 9 * (0.02 * time + noise), num_atoms=9)
    exact_error = 0.3 / np.sqrt(((time - time.mean()) ** 2).sum())
    assert drift.fluctuation == pytest.approx(0.3, rel=0.03)
    assert drift.slope_error == pytest.approx(exact_error, rel=0.5)
    assert abs(drift.slope - 0.02) < 3 * exact_error


def test_error_of_the_slope_is_that_of_its_definition():
    time = np.arange(8) * 0.5
    energy = np.array([1.0, 4, 2, 8, 5, 7, 1, 3])
    centred = time - time.mean()
    slope = np.polyfit(time, energy, 1)[0]
    terms = centred * (energy - energy.mean() - slope * centred)
    expected = terms.std(ddof=1) / np.sqrt(8) * 8 / (centred @ centred) / 3
    found = energy_drift(time, energy, num_atoms=3)
    assert found.slope == pytest.approx(slope / 3, rel=1e-9)
    assert found.slope_error == pytest.approx(expected, rel=1e-9)


def test_drift_of_a_line_is_exact():
    time = np.linspace(0, 3, 50)
    drift = energy_drift(time, -1e6 + 4 * 0.5 * time, num_atoms=4)
    assert drift.slope == pytest.approx(0.5, rel=1e-9)
    assert drift.fluctuation < 1e-9


def remembering(memory: float, count: int) -> np.ndarray:
    """Gaussian samples of variance 1 whose correlation falls as ``memory ** lag``."""
    rng = np.random.default_rng(3)
    kicks = rng.normal(size=count) * np.sqrt(1 - memory**2)
    kicks[0] /= np.sqrt(1 - memory**2)
    return lfilter([1.0], [1.0, -memory], kicks)


@pytest.mark.parametrize("memory", [0.0, 0.9, 0.98])
def test_block_error_of_correlated_samples(memory):
    count = 2**16
    values = remembering(memory, count)
    exact = np.sqrt((1 + memory) / (1 - memory) / count)
    # The largest of several noisy estimates: a little high, never far too low.
    assert 0.9 * exact < block_error(values) < 1.9 * exact


def test_block_error_is_the_largest_of_its_levels():
    alternating = np.array([1.0, -1, 2, -2, 0, 3, -1, 1])  # 8 samples: no blocks
    assert block_error(alternating) == pytest.approx(alternating.std(ddof=1) / np.sqrt(8), rel=1e-9)
    slow = np.repeat(alternating, 2) + 0.1 * np.resize([1, -1], 16)
    pairs = slow.reshape(8, 2).mean(axis=1)
    assert block_error(slow) == pytest.approx(pairs.std(ddof=1) / np.sqrt(8), rel=1e-9)
    fast = np.resize([1.0, -1], 16) + np.arange(16) / 100
    assert block_error(fast) == pytest.approx(fast.std(ddof=1) / np.sqrt(16), rel=1e-9)


def test_block_error_of_too_few_samples_is_unknown():
    assert np.isnan(block_error(np.arange(7.0)))


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.9])
def test_inefficiency_of_correlated_samples(memory):
    found = statistical_inefficiency(remembering(memory, 2**20))
    assert found == pytest.approx((1 + memory) / (1 - memory), rel=0.02)


def test_inefficiency_is_the_sum_of_its_definition():
    values = np.array([1.0, 2, 4, 3, 1, -2, -4, -3, 0, 1])
    x = values - values.mean()
    expected, count = 1.0, len(x)
    for lag in range(1, count):
        correlation = (x[lag:] @ x[:-lag]) / (count - lag) / x.var()
        if correlation <= 0:
            break
        expected += 2 * (1 - lag / count) * correlation
    assert statistical_inefficiency(values) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("memory", "count"), [(0.95, 1000), (0.99, 5000)])
def test_inefficiency_sees_what_is_slow_behind_vibrations(memory, count):
    # The autocorrelation vanishes within a period; then it goes on, small and long.
    rng, found = np.random.default_rng(0), []
    for seed in range(20):
        pole = np.exp(-1 / 50 + 2j * np.pi / 2.4)
        kicks = rng.normal(size=(2, count + 500))
        vibration = lfilter([1.0], [1.0, -pole], kicks[0] + 1j * kicks[1])[500:].real
        slow = remembering(memory, 20 * count)[seed * count :][:count]
        found.append(statistical_inefficiency(1.3 * vibration / vibration.std() + 0.5 * slow))
    exact = 0.25 / (1.3**2 + 0.25) * (1 + memory) / (1 - memory)
    assert np.mean(found) == pytest.approx(exact, rel=0.25)


def test_inefficiency_of_a_constant_is_unknown():
    assert np.isnan(statistical_inefficiency(np.full(100, -1e6)))
    assert np.isnan(statistical_inefficiency(np.array([1.0, 2.0])))


def test_a_stationary_series_is_averaged_from_its_start():
    for memory in (0.0, 0.9):
        _, gain = equilibrated_from(remembering(memory, 5000))
        assert gain < 1.5


def test_the_beginning_of_a_relaxation_is_left_out():
    time = np.arange(4000)
    first, gain = equilibrated_from(remembering(0.5, 4000) + 30 * np.exp(-time / 150))
    assert 600 <= first <= 1600  # the rest is less than half a standard deviation off, or 0
    assert gain > 5
    assert equilibrated_from(np.ones(50)) == (0, pytest.approx(np.nan, nan_ok=True))


def test_distances_take_the_minimum_image():
    positions = np.random.default_rng(4).uniform(-15, 15, (3, 6, 3))
    pairs = np.array([(i, j) for i in range(6) for j in range(i)])
    found = distances(positions, pairs, np.array([TRICLINIC] * 3))
    for frame, row in zip(positions, found, strict=True):
        atoms = ase.Atoms("H6", frame, cell=TRICLINIC, pbc=True)
        expected = atoms.get_all_distances(mic=True)[pairs[:, 0], pairs[:, 1]]
        np.testing.assert_allclose(row, expected, atol=1e-4)


def test_distances_without_a_box():
    positions = np.array([[[0, 0, 0], [3.0, 4.0, 0], [0, 0, 25.0]]])
    np.testing.assert_allclose(
        distances(positions, np.array([[0, 1], [0, 2]])), [[5.0, 25.0]], rtol=1e-6
    )


def test_widths_of_a_triclinic_box():
    # Two opposite faces are as far apart as volume over area.
    volume = np.linalg.det(TRICLINIC)
    areas = [
        np.linalg.norm(np.cross(TRICLINIC[1], TRICLINIC[2])),
        np.linalg.norm(np.cross(TRICLINIC[2], TRICLINIC[0])),
        np.linalg.norm(np.cross(TRICLINIC[0], TRICLINIC[1])),
    ]
    np.testing.assert_allclose(box_widths(TRICLINIC), volume / np.array(areas))
    np.testing.assert_allclose(box_widths(np.diag([3.0, 4.0, 5.0])), [3, 4, 5])


def test_an_ideal_gas_has_no_structure():
    box = np.array([np.diag([12.0, 13.0, 14.0])] * 20)
    positions = np.random.default_rng(5).uniform(0, 1, (20, 150, 3)) @ box[0]
    pairs = np.array([(i, j) for i in range(150) for j in range(i)])
    r, g = radial_distribution(positions, pairs, box)
    assert r[-1] == pytest.approx(6.0, abs=0.05)
    counted = g[r > 2.0]
    assert counted.mean() == pytest.approx(1.0, abs=0.01)


def test_neighbours_of_a_crystal_are_counted():
    atoms = ase.build.bulk("Ar", "sc", a=3.0) * (4, 4, 4)
    pairs = np.array([(i, j) for i in range(64) for j in range(i)])
    r, g = radial_distribution(atoms.positions[None], pairs, atoms.cell.array[None], bin_width=0.02)
    # 6 neighbours at a, 12 at a√2: the coordination number is 4πρ∫ g r² dr. Pairs are counted
    # once and there are N-1 others in the box, not N: hence the factor.
    for radius, neighbours in [(3.0, 6), (3.0 * np.sqrt(2), 12)]:
        shell = abs(r - radius) < 0.2
        count = 4 * np.pi / 27 * (g[shell] * r[shell] ** 2).sum() * 0.02 * 63 / 64
        assert count == pytest.approx(neighbours, rel=2e-3)
    assert g[(r > 3.2) & (r < 4.0)].max() == 0


def test_bonds_of_ethanol_by_distance():
    atoms = ase.build.molecule("CH3CH2OH")
    found = find_bonds(atoms.numbers, atoms.positions)
    symbols = [sorted(atoms.symbols[i] + atoms.symbols[j]) for i, j in found]
    assert sorted("".join(pair) for pair in symbols) == ["CC", *["CH"] * 5, "CO", "HO"]


def test_bonds_reach_across_the_box():
    found = find_bonds(
        np.array([1, 1]), np.array([[0.1, 0, 0], [9.5, 0, 0]]), np.diag([10.0, 10.0, 10.0])
    )
    assert found.tolist() == [[0, 1]]


def test_pressure_of_an_ideal_gas():
    # A mole in 24.79 litres at 298.15 K has a pressure of 1 bar.
    volume = 24.79e-3 / 6.02214076e23 * 1e30  # Å³ per atom
    found = pressure(np.zeros((2, 3, 3)), 100001 * volume, 298.15, 100001)
    np.testing.assert_allclose(found, 1.0, rtol=2e-4)
    # two atoms whose centre rests: one moves
    found = pressure(np.zeros((1, 3, 3)), volume, 298.15, 2)
    np.testing.assert_allclose(found, 1.380649e-23 * 298.15 / (volume * 1e-30) / 1e5, rtol=1e-6)


def test_tension_takes_off_pressure():
    stress = np.diag([3.0, 2.0, 1.0])[None] * 6.241509e-7  # eV/Å³ in a bar
    assert pressure(stress, 1e12, 1.0, 2)[0] == pytest.approx(-2.0, rel=1e-6)
