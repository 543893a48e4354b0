"""Free energies of models whose answer is known."""

import json

import numpy as np
import openmm
import pytest
from openmm import unit
from scipy.optimize import brentq

from openmm_nequip.analysis.free_energy import GAS_CONSTANT, free_energy, save_free_energy
from openmm_nequip.errors import InputError
from openmm_nequip.md.mixed import energy_derivative

TEMPERATURE = 300.0
THERMAL = GAS_CONSTANT * TEMPERATURE
LAMBDAS = [0.0, 0.25, 0.5, 0.75, 1.0]
OFFSET = -250_000.0  # kJ/mol; a potential counts the energies of electrons too


def springs(soft=100.0, stiff=400.0, count=2000, seed=0, lambdas=LAMBDAS):
    """dE/dλ of a particle in three dimensions, from spring `soft` to `stiff`; and the answer."""
    rng = np.random.default_rng(seed)
    series = []
    for value in lambdas:
        spread = np.sqrt(THERMAL / (soft + value * (stiff - soft)))
        square = (rng.normal(0, spread, (count, 3)) ** 2).sum(axis=1)
        series.append(0.5 * (stiff - soft) * square + OFFSET)
    return series, 1.5 * THERMAL * np.log(stiff / soft) + OFFSET


def test_two_springs_within_the_error():
    series, answer = springs()
    result = free_energy(LAMBDAS, series, TEMPERATURE)
    assert 0 < result.total.error < 0.12
    assert abs(result.total.value - answer) < 3 * result.total.error
    assert result.profile[0] == result.errors[0] == 0
    assert result.cautions() == []


def test_errors_are_the_scatter_of_independent_samples():
    lambdas = [0.0, 0.5, 1.0]
    found = [
        free_energy(lambdas, springs(count=200, seed=s, lambdas=lambdas)[0], TEMPERATURE, [0.5, 1])
        for s in range(40)
    ]
    scatter = np.std([result.total.value for result in found], ddof=1)
    claimed = np.mean([result.total.error for result in found])
    assert 0.7 < scatter / claimed < 1.4
    mean = np.mean([result.total.value for result in found])
    assert abs(mean - springs()[1]) < 4 * scatter / np.sqrt(len(found))


def test_every_window_has_its_free_energy():
    series, _ = springs(count=5000)
    result = free_energy(LAMBDAS, series, TEMPERATURE)
    exact = 1.5 * THERMAL * np.log(1 + 3 * np.array(LAMBDAS)) + OFFSET * np.array(LAMBDAS)
    assert (abs(result.profile - exact)[1:] < 4 * result.errors[1:]).all()


def test_correlated_samples_count_less():
    series, answer = springs(count=500)
    repeated = [np.repeat(samples, 20) for samples in series]
    result = free_energy(LAMBDAS, repeated, TEMPERATURE)
    single = free_energy(LAMBDAS, series, TEMPERATURE)
    assert result.total.error == pytest.approx(single.total.error, rel=0.5)
    assert (result.samples < 1000).all()
    assert abs(result.total.value - answer) < 4 * result.total.error


def test_the_overlap_is_a_probability_and_low_overlap_is_said():
    series, _ = springs(soft=100, stiff=1e5, count=100, lambdas=[0.0, 1.0])
    result = free_energy([0.0, 1.0], series, TEMPERATURE, [0.5, 1.0])
    np.testing.assert_allclose(result.overlap.sum(axis=1), 1, rtol=1e-6)
    assert any("put another window" in caution for caution in result.cautions())


def test_the_smaller_overlap_of_both_directions_is_told():
    lambdas = [0.0, 1.0]
    long, _ = springs(soft=100, stiff=4000, count=4000, lambdas=lambdas)
    for counts in ((60, 4000), (4000, 60)):
        series = [samples[:count] for samples, count in zip(long, counts, strict=True)]
        result = free_energy(lambdas, series, TEMPERATURE, [0.5, 1.0])
        assert result.overlaps[0] == min(result.overlap[0, 1], result.overlap[1, 0]) < 0.02
        assert any("put another window" in caution for caution in result.cautions())


def test_two_windows_are_bennetts_acceptance_ratio():
    # Solved here by its own equation, with the gas constant of CODATA: kT must be right.
    lambdas = [0.0, 1.0]
    series, _ = springs(count=300, lambdas=lambdas, seed=5)
    thermal = 8.314462618e-3 * TEMPERATURE
    forward, backward = (samples / thermal for samples in series)

    def balance(answer: float) -> float:
        return (1 / (1 + np.exp(forward - answer))).sum() - (
            1 / (1 + np.exp(answer - backward))
        ).sum()

    middle = OFFSET / thermal
    expected = brentq(balance, middle - 50, middle + 50, xtol=1e-12) * thermal
    result = free_energy(lambdas, series, TEMPERATURE, [0.5, 1.0])
    assert result.samples.tolist() == [300, 300]  # all of them count
    assert result.total.value - OFFSET == pytest.approx(expected - OFFSET, rel=1e-5)


def test_thermodynamic_integration_is_the_trapezoidal_rule():
    lambdas = [0.0, 0.2, 1.0]
    series = [np.arange(8.0) ** power for power in (1, 2, 3)]
    result = free_energy(lambdas, series, TEMPERATURE, [0.5, 1.0])
    means = [samples.mean() for samples in series]
    errors = [samples.std(ddof=1) / np.sqrt(8) for samples in series]
    assert result.integral.value == pytest.approx(np.trapezoid(means, lambdas), rel=1e-12)
    expected = np.sqrt(((np.array([0.1, 0.5, 0.4]) * errors) ** 2).sum())
    assert result.integral.error == pytest.approx(expected, rel=1e-12)


def test_a_drift_is_said():
    series, _ = springs(count=4000)
    drifting = [samples + np.where(np.arange(4000) < 2000, 0, 3) for samples in series]
    result = free_energy(LAMBDAS, drifting, TEMPERATURE)
    assert result.forward[-1].tolist() == result.backward[-1].tolist()
    assert result.forward[-1, 0] == pytest.approx(result.total.value, rel=1e-12)
    half = int(np.argmin(abs(result.fractions - 0.5)))
    assert 2 < result.backward[half, 0] - result.forward[half, 0] < 5
    assert [caution for caution in result.cautions() if "last half" in caution]


@pytest.mark.parametrize(
    ("lambdas", "count", "message"),
    [([0.0], 100, "two windows"), ([1.0, 0.0], 100, "ascending"), ([0.0, 1.0], 5, "needs 8")],
)
def test_too_little_is_one_clear_line(lambdas, count, message):
    with pytest.raises(InputError, match=message):
        free_energy(lambdas, [np.arange(count, dtype=float)] * len(lambdas), TEMPERATURE)


def test_files(tmp_path):
    series, _ = springs(count=30)
    result = free_energy(LAMBDAS, series, TEMPERATURE)
    cautions = save_free_energy(result, tmp_path)
    assert any("independent samples" in caution for caution in cautions)
    found = json.loads((tmp_path / "free_energy.json").read_text())
    assert found["free_energy_kJ_mol"]["value"] == result.total.value
    assert found["cautions"] == cautions
    assert (tmp_path / "free_energy.png").stat().st_size > 10_000


def test_dynamics_of_springs():
    """Langevin dynamics between two models in OpenMM, with dE/dλ taken as in mixed systems."""
    soft, stiff = 500.0, 1500.0
    system = openmm.System()
    force = openmm.CustomExternalForce(
        "(1 - lambda_interpolate) * 0.5 * soft * r2 + lambda_interpolate * 0.5 * stiff * r2;"
        "r2 = x^2 + y^2 + z^2"
    )
    force.addGlobalParameter("lambda_interpolate", 0.0)
    force.addGlobalParameter("soft", soft)
    force.addGlobalParameter("stiff", stiff)
    for index in range(8):  # independent particles
        system.addParticle(12.0)
        force.addParticle(index)
    system.addForce(force)
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 5, 4 * unit.femtosecond)
    integrator.setRandomNumberSeed(1)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(np.zeros((8, 3)))
    context.setVelocitiesToTemperature(TEMPERATURE, 1)
    series = []
    for value in LAMBDAS:
        context.setParameter("lambda_interpolate", value)
        integrator.step(500)
        samples = []
        for _ in range(400):
            integrator.step(20)
            samples.append(energy_derivative(context))
        series.append(np.array(samples))
    result = free_energy(LAMBDAS, series, TEMPERATURE)
    answer = 8 * 1.5 * THERMAL * np.log(stiff / soft)
    assert result.total.error < 0.02 * answer
    assert abs(result.total.value - answer) < 3 * result.total.error
    assert abs(result.integral.value - answer) < 0.1 * answer


def test_a_derivative_that_never_changes_is_one_sample():
    result = free_energy([0.0, 0.5, 1.0], [np.full(50, -1.3e6)] * 3, temperature=300)
    np.testing.assert_allclose(result.profile, [0, -0.65e6, -1.3e6], rtol=1e-12)
    assert result.samples.tolist() == [1, 1, 1]
    assert len(result.cautions()) == 3


@pytest.mark.parametrize("first", [5000.0, 300_000.0])
def test_windows_that_have_nothing_in_common(tmp_path, first):
    """As where the force field's geometry is one that the potential does not know."""
    rng = np.random.default_rng(0)
    means, spreads = (first, -100.0, -130.0), (0.18 * first, 30.0, 30.0)
    series = [rng.normal(m, s, 300) for m, s in zip(means, spreads, strict=True)]
    result = free_energy([0.0, 0.5, 1.0], series, TEMPERATURE)
    assert result.total.value == pytest.approx(result.integral.value, rel=1e-9)
    cautions = save_free_energy(result, tmp_path)
    assert any("λ = 0 and 0.5 overlap by 0.000 only" in text for text in cautions)
    found = json.loads((tmp_path / "free_energy.json").read_text(), parse_constant=pytest.fail)
    assert found["overlap"][0][1] == 0
    assert (tmp_path / "free_energy.png").exists()
