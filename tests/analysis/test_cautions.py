"""What a reader is told before believing the results, and when not."""

import numpy as np
import pytest

from openmm_nequip.analysis.summary import analyze
from openmm_nequip.md.structure import load_structure

from .runs import write_run
from .test_summary import shaken

ROWS = 2000


def cautions(tmp_path, **config) -> list[str]:
    structure = load_structure("ethanol")
    log = {name: config.pop(name) for name in list(config) if name.endswith(("_mol", "_K"))}
    log.setdefault("step", 10 * np.arange(ROWS))
    frames = shaken(structure, ROWS)
    return analyze(write_run(tmp_path / "run", structure, frames, log, **config)).summary[
        "cautions"
    ]


def noise(size: float = 1.0) -> np.ndarray:
    return np.random.default_rng(5).normal(0, size, ROWS)


def test_a_good_run_is_not_blamed(tmp_path):
    assert cautions(tmp_path, temperature_K=300 + noise(50)) == []


@pytest.mark.parametrize(("kelvin_per_ns", "blamed"), [(40.0, True), (5.0, False)])
def test_drift(tmp_path, kelvin_per_ns, blamed):
    time = np.arange(ROWS) * 0.005
    # 3 kB per atom, kJ/mol/K, of 9 atoms
    energy = 9 * 3 * 8.314463e-3 * kelvin_per_ns * time / 1000
    found = cautions(tmp_path, ensemble="nve", total_kJ_mol=energy + noise(1e-6))
    assert [line.startswith("The total energy drifts") for line in found] == [True] * blamed
    if blamed:
        assert "+40 K per ns" in found[0]


def test_a_temperature_that_is_not_the_thermostats(tmp_path):
    (found,) = cautions(tmp_path, temperature_K=320 + noise(50))
    assert found.startswith("The temperature is 32")
    assert "thermostat's 300 K" in found


def test_a_few_rows_that_are_far_too_cold(tmp_path):
    structure = load_structure("ethanol")
    log = {"step": 10 * np.arange(4), "temperature_K": np.full(4, 100.0)}
    run = write_run(tmp_path / "run", structure, shaken(structure, 4), log)
    analysis = analyze(run)
    assert analysis.summary["results"]["temperature"].get("error") is None
    assert any("temperature is 100" in line for line in analysis.summary["cautions"])


def test_a_run_that_is_still_relaxing(tmp_path):
    time = np.arange(ROWS)
    found = cautions(tmp_path, potential_kJ_mol=noise() + 50 * np.exp(-time / 150))
    assert found[0].startswith("The potential energy was not in equilibrium before about ")


def test_few_independent_samples(tmp_path):
    slow = np.repeat(np.random.default_rng(5).normal(size=10), ROWS // 10)
    found = cautions(tmp_path, potential_kJ_mol=slow + noise(0.01))
    assert "Fewer than 20 independent samples of: potential energy (" in found[-1]
