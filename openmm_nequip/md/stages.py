"""Heating, equilibration, production: what is in force at a step, as a function of nothing else.

Steps before production are negative. Because everything follows from the step, a run that goes on
from a checkpoint finds itself where it was.
"""

from dataclasses import dataclass

import openmm
from openmm import unit

_RUNGS = 20  # temperatures of the heating


@dataclass(frozen=True)
class Stages:
    """The stages of a run.

    Parameters
    ----------
    heating, equilibration
        Their lengths in steps.
    temperature
        Of equilibration and production, K.
    barostat_interval
        Steps between two attempts to change the volume.
    """

    heating: int
    equilibration: int
    temperature: float
    barostat_interval: int

    @property
    def first_step(self) -> int:
        """Where the run begins; zero or negative."""
        return -self.heating - self.equilibration

    def name(self, step: int) -> str:
        """Return 'heating', 'equilibration' or 'production'."""
        if step >= 0:
            return "production"
        return "heating" if step < -self.equilibration else "equilibration"

    def temperature_at(self, step: int) -> float:
        """Return the thermostat's temperature, K; while heating it climbs a ladder."""
        return self.temperature * min(1.0, (self._rung(step) + 1) / _RUNGS)

    def next_change(self, step: int) -> int | None:
        """Return the first step behind `step` where something changes, if there is one."""
        if step >= 0:
            return None
        if self.name(step) == "equilibration":
            return 0
        rung = self._rung(step) + 1
        return self.first_step + -(-rung * self.heating // _RUNGS)

    def _rung(self, step: int) -> int:
        if self.name(step) != "heating":
            return _RUNGS
        return (step - self.first_step) * _RUNGS // self.heating

    def apply(self, integrator: openmm.Integrator, system: openmm.System, step: int) -> None:
        """Set thermostat and barostat, and the integrator of a compound, as the step wants them.

        Parameters
        ----------
        integrator
            Of the run; a compound has the thermostat first and the integrator of production second.
        system
            That of its Context.
        step
            About to be made.
        """
        thermostat = integrator
        if isinstance(integrator, openmm.CompoundIntegrator):
            integrator.setCurrentIntegrator(int(step >= 0))
            thermostat = integrator.getIntegrator(0)
        if isinstance(thermostat, openmm.LangevinMiddleIntegrator):
            thermostat.setTemperature(self.temperature_at(step) * unit.kelvin)
        heating = self.name(step) == "heating"
        for force in system.getForces():
            if isinstance(force, openmm.MonteCarloBarostat):
                force.setFrequency(0 if heating else self.barostat_interval)
