"""Heating and equilibration are functions of the step."""

import openmm
import pytest
from openmm import unit

from openmm_nequip.config import parse_config
from openmm_nequip.errors import InputError
from openmm_nequip.md.config import SimulationConfig
from openmm_nequip.md.stages import Stages

STAGES = Stages(heating=50, equilibration=30, temperature=300.0, barostat_interval=25)


def test_names():
    names = {step: STAGES.name(step) for step in (-80, -31, -30, -1, 0, 7)}
    assert names == {
        -80: "heating", -31: "heating", -30: "equilibration", -1: "equilibration",
        0: "production", 7: "production",
    }  # fmt: skip
    assert STAGES.first_step == -80


def test_the_temperature_climbs_twenty_rungs_and_stays():
    temperatures = [STAGES.temperature_at(step) for step in range(-80, -30)]
    assert temperatures[0] == 15.0
    assert sorted(set(temperatures)) == temperatures[:1] + [15.0 * k for k in range(2, 21)]
    assert temperatures == sorted(temperatures)
    assert {STAGES.temperature_at(step) for step in range(-30, 10)} == {300.0}


def test_a_run_stops_wherever_something_changes():
    """Between two stops of the run nothing may change that depends on the step."""
    step, stops = -80, [-80]
    while (change := STAGES.next_change(step)) is not None:
        held = {(STAGES.temperature_at(s), STAGES.name(s)) for s in range(step, change)}
        assert len(held) == 1
        step = change
        stops.append(step)
    assert stops[-2:] == [-30, 0]
    assert len(stops) == 22


def test_what_is_in_force_at_a_step():
    system = openmm.System()
    barostat = openmm.MonteCarloBarostat(1.0, 300.0, 25)
    system.addForce(barostat)
    both = openmm.CompoundIntegrator()
    both.addIntegrator(openmm.LangevinMiddleIntegrator(300, 1, 0.001))
    both.addIntegrator(openmm.VerletIntegrator(0.001))
    seen = []
    for step in (-80, -30, 0):
        STAGES.apply(both, system, step)
        temperature = both.getIntegrator(0).getTemperature().value_in_unit(unit.kelvin)
        seen.append((both.getCurrentIntegrator(), temperature, barostat.getFrequency()))
    assert seen == [(0, 15.0, 0), (0, 300.0, 25), (1, 300.0, 25)]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (0, 0)),
        ({"heating": "1 ps"}, (2000, 0)),
        ({"force_field": "x.prmtop", "ml_region": "resname LIG"}, (10_000, 40_000)),
        ({"force_field": ["x"], "ml_region": "all", "heating": "0 ps", "equilibration": 7}, (0, 7)),
    ],
)
def test_lengths(changes, expected):
    values = {"structure": "x.pdb", "steps": 10} | changes
    config = parse_config(SimulationConfig, values, where="test")
    assert (config.heating_steps, config.equilibration_steps) == expected
    assert config.total_steps == 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"force_field": "x.prmtop"}, "'force_field' needs 'ml_region'"),
        ({"ml_region": "resname LIG"}, "'ml_region' needs 'force_field'"),
        ({"lambda_interpolate": 0.5}, "'lambda_interpolate' needs 'force_field'"),
        ({"heating": "-1 ps"}, "must not be negative"),
        ({"heating": "1"}, "number and one of the units"),
        ({"replicas": 0}, "replicas"),
    ],
)
def test_bad_values_are_one_clear_line(changes, message):
    with pytest.raises(InputError, match=message) as error:
        parse_config(SimulationConfig, {"structure": "x", "steps": 1} | changes, where="test")
    assert "\n" not in str(error.value)
