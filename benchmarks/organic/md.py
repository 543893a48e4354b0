"""Molecular dynamics of `evaluate.py`, through openmm-ml: bonds, conservation, speed."""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import openmm
import subjects
import torch
import torchani
from conformations import Molecule
from openmm import app, unit
from openmmml import MLPotential
from rich.progress import Progress, track
from teacher import Teacher

from openmm_nequip.analysis.observables import energy_drift
from openmm_nequip.benchmarking.machine import describe
from openmm_nequip.benchmarking.md import fastest_platform
from openmm_nequip.benchmarking.timing import alternate
from openmm_nequip.units import KJ_PER_MOL, NM

_TIMESTEP = 0.5  # fs
_WATCHED = 100  # steps between two looks at the bonds
_TIMED = 20  # steps of a repeat
_APART = 100.0  # Å between molecules of one System: more than they diffuse in 100 ps


def run_nvt(
    model: Path, names: list[str], temperature: float, time: float
) -> dict[str, dict[str, Any]]:
    """Run some molecules beside each other for `time` ps and watch their bonds.

    Returns
    -------
    dict
        By name, the ps that were asked for, the first change of a bond (empty if there is none)
        and when that was, ps.
    """
    drugs = [subjects.drug_like(name, conformers=1) for name in names]
    watches = [subjects.Watch(drug.numbers, bonds_of(drug)) for drug in drugs]
    starts = [drug.minima[0] - drug.minima[0].mean(0) for drug in drugs]
    places = np.array(list(np.ndindex(3, 3, 3))[: len(names)]) * _APART
    numbers = np.concatenate([drug.numbers for drug in drugs])
    positions = np.concatenate([x + place for x, place in zip(starts, places, strict=True)])
    integrator = langevin(temperature, friction=1)
    context = context_of(model, numbers, positions, integrator)
    context.setVelocitiesToTemperature(temperature * unit.kelvin, subjects.SEED)
    ends = np.cumsum([len(drug.numbers) for drug in drugs])[:-1]
    found = {name: {"ps": time, "change": "", "at_ps": None} for name in names}
    looks = round(time * 1000 / _TIMESTEP / _WATCHED)
    with Progress() as progress:
        task = progress.add_task(f"{', '.join(names)}, {temperature} K", total=looks)
        for look in range(1, looks + 1):
            try:
                integrator.step(_WATCHED)
                now = positions_of(context)
            except openmm.OpenMMException:
                now = np.full_like(positions, np.nan)
            for name, watch, x in zip(names, watches, np.split(now, ends), strict=True):
                changes = watch.changes(x)
                if changes and not found[name]["change"]:
                    at = look * _WATCHED * _TIMESTEP / 1000
                    found[name] |= {"change": changes[0], "at_ps": at}
            progress.advance(task)
            if all(values["change"] for values in found.values()):
                break
    for name, values in found.items():
        print(f"{name}, {temperature} K, {time} ps: {values['change'] or 'all bonds as before'}")
    return found


def run_nve(model: Path, name: str, time: float) -> dict[str, float]:
    """Thermalise for 2 ps at 300 K, run NVE for `time` ps, and fit a line to the total energy."""
    drug = subjects.drug_like(name, conformers=1)
    warm = langevin(300, friction=10)
    start = context_of(model, drug.numbers, drug.minima[0], warm)
    start.setVelocitiesToTemperature(300 * unit.kelvin, subjects.SEED)
    warm.step(round(2000 / _TIMESTEP))
    state = start.getState(positions=True, velocities=True)
    verlet = openmm.VerletIntegrator(_TIMESTEP * unit.femtosecond)
    context = context_of(model, drug.numbers, drug.minima[0], verlet)
    context.setPositions(state.getPositions())
    context.setVelocities(state.getVelocities())
    energies = []
    samples = round(time * 1000 / _TIMESTEP / 10)
    for _ in track(range(samples), description=f"{name}, NVE"):
        verlet.step(10)
        now = context.getState(energy=True)
        total = now.getPotentialEnergy() + now.getKineticEnergy()
        energies.append(total.value_in_unit(unit.kilojoule_per_mole) / KJ_PER_MOL * 1000)
    times = np.arange(1, samples + 1) * 10 * _TIMESTEP / 1000
    drift = energy_drift(times, np.array(energies), len(drug.numbers))
    return {
        "ps": time,
        "drift_meV_per_atom_per_ps": drift.slope,
        "drift_error_meV_per_atom_per_ps": drift.slope_error,
        "fluctuation_meV_per_atom": drift.fluctuation,
    }


def time_steps(model: Path, repeats: int) -> dict[str, Any]:
    """Time steps of aspirin with a potential and with openmm-ml's own ANI-2x, in turns.

    Returns
    -------
    dict
        ``ms_per_step`` of both, medians over the repeats, and ``machine``.
    """
    aspirin = Molecule(subjects.ASPIRIN, np.random.default_rng(subjects.SEED), conformers=1)
    ensemble = Teacher().model
    ensemble.set_enabled("energy_shifter", True)
    potentials = {
        "potential": MLPotential("nequip", modelPath=str(model)),
        "ANI-2x": MLPotential("ani2x"),
    }
    calls: dict[str, Callable[[], object]] = {}
    # ANI2x() would download the networks that the reference data holds
    with mock.patch.object(torchani.models, "ANI2x", return_value=ensemble):
        for name, potential in potentials.items():
            integrator = langevin(300, friction=1)
            context = in_openmm(potential, aspirin.numbers, aspirin.minima[0], integrator)
            context.setVelocitiesToTemperature(300 * unit.kelvin, subjects.SEED)
            calls[name] = stepping(context)
            calls[name]()  # compiles
    seconds = alternate(calls, repeats, dict.fromkeys(calls, 1))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return {
        "ms_per_step": {k: 1000 * statistics.median(v) / _TIMED for k, v in seconds.items()},
        "machine": describe(torch.get_num_threads(), device, fastest_platform(device)),
    }


def stepping(context: openmm.Context) -> Callable[[], object]:
    """Return a function that takes some steps and waits for them."""

    def step() -> None:
        context.getIntegrator().step(_TIMED)
        context.getState(velocities=True)

    return step


def langevin(temperature: float, friction: float) -> openmm.Integrator:
    """Return an integrator for a temperature, K, and a friction, 1/ps."""
    integrator = openmm.LangevinMiddleIntegrator(
        temperature * unit.kelvin, friction / unit.picosecond, _TIMESTEP * unit.femtosecond
    )
    integrator.setRandomNumberSeed(subjects.SEED)
    return integrator


def context_of(
    model: Path, numbers: np.ndarray, positions: np.ndarray, integrator: openmm.Integrator
) -> openmm.Context:
    """Put atoms (positions in Å) with the potential into OpenMM, through openmm-ml."""
    return in_openmm(MLPotential("nequip", modelPath=str(model)), numbers, positions, integrator)


def in_openmm(
    potential: Any, numbers: np.ndarray, positions: np.ndarray, integrator: openmm.Integrator
) -> openmm.Context:
    """Put atoms (positions in Å) into OpenMM with any potential of openmm-ml."""
    topology = app.Topology()
    residue = topology.addResidue("MOL", topology.addChain())
    for number in numbers.tolist():
        element = app.Element.getByAtomicNumber(number)
        topology.addAtom(element.symbol, element, residue)
    system = potential.createSystem(topology, removeCMMotion=False)
    name = fastest_platform("cuda" if torch.cuda.is_available() else "cpu")
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName(name))
    context.setPositions(positions * NM)
    return context


def positions_of(context: openmm.Context) -> np.ndarray:
    """Return the positions, Å, ``[N, 3]``."""
    state = context.getState(positions=True)
    return state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)


def bonds_of(molecule: Molecule) -> np.ndarray:
    """Return the bonded pairs, ``[B, 2]``."""
    return np.array(
        [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in molecule.molecule.GetBonds()]
    )
