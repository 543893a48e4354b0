"""NVE keeps its energy, NVT its temperature: with any potential, and with the trained one."""

import numpy as np
import pytest

from openmm_nequip.analysis.observables import block_error, energy_drift


def error_of_order_two(simulate, structure, potential, time, timestep, start=None) -> float:
    """By how much the energy fluctuation falls when the time step is halved."""
    spread = []
    for dt in (timestep, timestep / 2):
        _, series = simulate(
            structure, potential, time, start=start, ensemble="nve", timestep=dt, precision="double"
        )
        spread.append(series.total.std())
    return spread[0] / spread[1]


def test_energy_error_falls_with_the_square_of_the_time_step(simulate, gas, untrained):
    ratio = error_of_order_two(simulate, gas, untrained, time=0.1, timestep=0.5)
    assert ratio == pytest.approx(4, rel=0.08)


def test_nve_has_no_trend(simulate, gas, untrained, record_property):
    _, series = simulate(gas, untrained, 0.3, every=2, ensemble="nve", timestep=0.5)
    drift = energy_drift(series.time, series.total, num_atoms=8)
    record_property("drift_kJ_mol_atom_ps", drift.slope)
    assert series.potential.std() > 1.0  # something happens
    assert abs(drift.slope) * 0.3 < drift.fluctuation
    assert drift.fluctuation < 1e-3 * series.potential.std()


@pytest.mark.parametrize("precision", ["single", "double"])
def test_engines_conserve_energy_alike(simulate, gas, untrained, precision):
    """Neither splines nor a list that is kept cost any of it."""
    spread, last = {}, {}
    for engine in ("fused", "reference"):
        _, series = simulate(
            gas, untrained, 0.2, every=2, ensemble="nve", engine=engine, precision=precision
        )
        spread[engine], last[engine] = series.total.std(), series.potential[-1]
    assert spread["fused"] < 1.05 * spread["reference"]
    assert last["fused"] == pytest.approx(last["reference"], abs=0.01 * series.potential.std())


def test_nvt_reaches_its_temperature(simulate, gas, untrained):
    _, series = simulate(
        gas, untrained, 2.5, every=4, temperature=400, friction=50, timestep=2.5, seed=3
    )
    steady = series.temperature[len(series.time) // 10 :]
    error = block_error(steady)
    assert error < 20
    assert abs(steady.mean() - 400) < 3 * error
    assert steady.std() == pytest.approx(400 * np.sqrt(2 / 21), rel=0.15)  # canonical


@pytest.mark.slow
def test_ethanol_keeps_its_energy_for_ten_picoseconds(simulate, trained, record_property):
    _, series = simulate("ethanol", trained, 10.0, every=10, ensemble="nve", timestep=0.5)
    drift = energy_drift(series.time, series.total, num_atoms=9)
    slope, error = (value / 96.48533212 * 1000 for value in (drift.slope, drift.slope_error))
    record_property("drift_meV_atom_ps", slope)
    fluctuation = drift.fluctuation / 96.48533212 * 1000
    print(
        f"\ndrift {slope:+.5f} ± {error:.5f} meV/atom/ps at 0.5 fs, fluctuation "
        f"{fluctuation:.4f} meV/atom, {series.temperature.mean():.0f} K"
    )
    assert series.temperature.mean() > 100
    assert abs(drift.slope) * 10.0 < drift.fluctuation
    assert fluctuation < 1.0


@pytest.mark.slow
def test_ethanols_energy_error_falls_with_the_square_of_the_time_step(simulate, trained):
    # Warm it first: from the idealised geometry the first oscillations dominate.
    warm, _ = simulate("ethanol", trained, 0.2, every=100, friction=20.0, precision="double")
    start = warm.context.getState(positions=True, velocities=True)
    ratio = error_of_order_two(simulate, "ethanol", trained, time=0.4, timestep=0.5, start=start)
    assert ratio == pytest.approx(4, rel=0.08)


@pytest.mark.slow
def test_ethanol_reaches_its_temperature(simulate, trained):
    _, series = simulate("ethanol", trained, 6.0, every=10, temperature=300, friction=20.0)
    steady = series.temperature[len(series.time) // 10 :]
    error = block_error(steady)
    print(f"\n{steady.mean():.1f} ± {error:.1f} K")
    assert error < 15
    assert abs(steady.mean() - 300) < 3 * error
    assert steady.std() == pytest.approx(300 * np.sqrt(2 / 24), rel=0.15)
