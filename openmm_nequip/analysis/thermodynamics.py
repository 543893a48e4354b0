"""From the state log of a run: energies, drift, temperature, density."""

from functools import partial

from ..units import KJ_PER_MOL
from .folder import Run
from .observables import energy_drift
from .plots import draw_drift, draw_energy, draw_series, draw_temperature
from .results import Picture, Quantity, Section, average


def thermodynamics(run: Run) -> Section:
    """Averages of the state log, and its figures."""
    section = Section("Energy and temperature")
    log, steady, config = run.log, run.steady_log, run.config
    target = None if config.ensemble == "nve" else config.temperature
    remark = "" if target is None else f"thermostat {target:g} K"
    temperature = average("temperature", steady["temperature_K"], "K", remark)
    energy = average("potential energy", steady["potential_kJ_mol"], "kJ/mol")
    section.quantities += [temperature, energy]
    section.pictures += [
        Picture(
            "energy",
            "Energy",
            "Potential, kinetic and total energy against time, potential and total relative to the "
            f"start; the potential energy is {energy.text()} on average.",
            partial(draw_energy, log=log),
        ),
        Picture(
            "temperature",
            "Temperature",
            f"Temperature and its running mean against time; {temperature.text()} on average.",
            partial(draw_temperature, log=log, target=target),
        ),
    ]
    if "ml_potential_kJ_mol" in log:
        ml = average("potential energy of the ML region", steady["ml_potential_kJ_mol"], "kJ/mol")
        values = log["ml_potential_kJ_mol"] - ml.value
        section.quantities.append(ml)
        section.pictures.append(
            Picture(
                "ml_energy",
                "Energy of the ML region",
                f"Energy of the potential on the ML region, relative to its mean of {ml.text()}.",
                partial(draw_series, time=log["time_ps"], values=values, colour=4,
                        ylabel="E − ⟨E⟩ (kJ/mol)"),
            )
        )  # fmt: skip
    if "dE_dlambda_kJ_mol" in log:
        section.quantities.append(average("dE/dλ", steady["dE_dlambda_kJ_mol"], "kJ/mol"))
    if config.ensemble == "nve":  # a thermostat is meant to change the total energy
        _add_drift(run, section)
    if "density_g_mL" in log:
        density = average("density", steady["density_g_mL"], "g/mL")
        if config.ensemble != "npt":
            density = Quantity("density", float(steady["density_g_mL"][0]), unit="g/mL")
        else:
            section.pictures.append(
                Picture(
                    "density",
                    "Density",
                    f"Density against time; {density.text()} on average.",
                    partial(draw_series, time=log["time_ps"], values=log["density_g_mL"],
                            ylabel="density (g/mL)", colour=5),
                )
            )  # fmt: skip
        section.quantities.append(density)
    return section


def _add_drift(run: Run, section: Section) -> None:
    time, energy = run.production["time_ps"], run.production["total_kJ_mol"]
    atoms = int((run.numbers > 0).sum())
    drift = energy_drift(time, energy, atoms)
    to_mev = 1000 / KJ_PER_MOL
    error = None if drift.slope_error != drift.slope_error else drift.slope_error * to_mev
    slope = Quantity("total energy drift", drift.slope * to_mev, error, "meV/atom/ps")
    section.quantities.append(slope)
    section.quantities.append(
        Quantity("total energy fluctuation", drift.fluctuation * to_mev, unit="meV/atom")
    )
    section.pictures.append(
        Picture(
            "drift",
            "Total energy",
            f"Total energy per atom around its mean, with a line through it: {slope.text()}.",
            partial(draw_drift, time=time, energy=energy, atoms=atoms, drift=drift),
        )
    )
