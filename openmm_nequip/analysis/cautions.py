"""What a reader of the results should know before believing them."""

from ase.units import kB

from .folder import Run
from .observables import equilibrated_from
from .results import Quantity, Section

HEATING = 10.0  # K/ns that a drift of the total energy may amount to
SAMPLES = 20  # independent ones, below which an error is itself hardly known
_SIGNIFICANT = 4.0  # standard errors
_GAIN = 2.0  # times more independent samples without the beginning: it is not in equilibrium
_DRIFT = HEATING * 3 * kB  # meV/atom/ps: 3 kB per atom, as of anything harmonic
_LOGGED = {
    "potential_kJ_mol": "the potential energy",
    "ml_potential_kJ_mol": "the energy of the ML region",
    "density_g_mL": "the density",
}


def cautions(run: Run, sections: list[Section]) -> list[str]:
    """Look for drift, poor equilibration and few independent samples.

    Returns
    -------
    list of str
        A sentence for each; none is a good sign, not a proof.
    """
    results = {q.name: q for section in sections for q in section.quantities}
    return [*_drifting(results), *_off_target(run, results), *_moving(run), *_few(results)]


def _drifting(results: dict[str, Quantity]) -> list[str]:
    drift = results.get("total energy drift")
    if drift is None or drift.error is None:
        return []
    if abs(drift.value) < max(_DRIFT, _SIGNIFICANT * drift.error):
        return []
    rate = drift.value / _DRIFT * HEATING
    return [
        f"The total energy drifts by {drift.text()}, which heats or cools by about {rate:+.0f} K "
        "per ns: try a shorter time step or double precision."
    ]


def _off_target(run: Run, results: dict[str, Quantity]) -> list[str]:
    temperature, target = results["temperature"], run.config.temperature
    if run.config.ensemble == "nve":
        return []
    error = 0.1 * target if temperature.error is None else temperature.error  # of very short runs
    off = abs(temperature.value - target)
    if off < max(_SIGNIFICANT * error, 0.01 * target):
        return []
    return [
        f"The temperature is {temperature.number()}, the thermostat's "
        f"{target:g} K: the run is not in equilibrium yet, or the time step is too long."
    ]


def _moving(run: Run) -> list[str]:
    found = []
    for column, name in _LOGGED.items():
        values = run.steady_log.get(column)
        if values is None:
            continue
        first, gain = equilibrated_from(values)
        if gain > _GAIN:  # NaN is not
            found.append(
                f"{name[0].upper()}{name[1:]} was not in equilibrium before about "
                f"{run.steady_log['time_ps'][first]:.3g} ps: averages that begin at "
                f"{run.steady_log['time_ps'][0]:.3g} ps are off. Equilibrate for longer."
            )
    return found


def _few(results: dict[str, Quantity]) -> list[str]:
    few = {q.name: q.samples for q in results.values() if q.samples and q.samples < SAMPLES}
    if not few:
        return []
    worst = sorted(few, key=lambda name: few[name])
    named = ", ".join(f"{name} ({few[name]:.0f})" for name in worst[:4])
    more = f" and {len(worst) - 4} more" if len(worst) > 4 else ""
    return [
        f"Fewer than {SAMPLES} independent samples of: {named}{more}. Such errors are themselves "
        "uncertain, and rare events may not have happened: run for longer, or several replicas."
    ]
