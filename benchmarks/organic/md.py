"""Molecular dynamics of `evaluate.py`, through openmm-ml: bonds, conservation, speed."""

import json
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

_TIMESTEP = 1.0  # fs
_NVE_TIMESTEP = 0.5  # fs
_WATCHED = 100  # steps between two looks at the bonds
_SAVED = 100  # looks between two states on disk
_TIMED = 20  # steps of a repeat
_APART = 100.0  # Å between molecules of one System: more than they diffuse in 100 ps


def run_nvt(
    model: Path, names: list[str], temperature: float, time: float, state: Path
) -> dict[str, dict[str, Any]]:
    """Run some molecules beside each other until `time` ps and watch their bonds.

    Parameters
    ----------
    model
        Model file.
    names
        Of `subjects.DRUG_LIKE`.
    temperature, time
        K, ps.
    state
        File from which the run goes on; written every 10 ps.

    Returns
    -------
    dict
        By name, the ps that were asked for, the first change of a bond (empty if there is none)
        and when that was, ps.
    """
    drugs = [subjects.drug_like(name, conformers=1) for name in names]
    watches = [subjects.Watch(drug.numbers, bonds_of(drug)) for drug in drugs]
    places = np.array(list(np.ndindex(3, 3, 3))[: len(names)]) * _APART
    start = [d.minima[0] - d.minima[0].mean(0) + x for d, x in zip(drugs, places, strict=True)]
    integrator = langevin(temperature, friction=1)
    numbers = np.concatenate([drug.numbers for drug in drugs])
    context = context_of(model, numbers, np.concatenate(start), integrator)
    context.setVelocitiesToTemperature(temperature * unit.kelvin, subjects.SEED)
    first, changes = _go_on(context, state)
    looks = round(time * 1000 / _TIMESTEP / _WATCHED)
    with Progress() as progress:
        title = f"{', '.join(names)}, {temperature} K"
        task = progress.add_task(title, total=looks, completed=first)
        for look in range(first + 1, looks + 1):
            if len(changes) == len(names):
                break
            problem = None
            try:
                integrator.step(_WATCHED)
            except openmm.OpenMMException as error:  # also raised when a coordinate is NaN
                problem = error
            found = _changes(context, watches, start)
            if problem and not found:
                raise problem
            for k, change in found.items():
                changes.setdefault(names[k], (change, look * _WATCHED * _TIMESTEP / 1000))
            if look % _SAVED == 0:
                _save(context, state, look, changes)
                if not progress.console.is_terminal:
                    print(f"{title}: {look * _WATCHED * _TIMESTEP / 1000:g} ps", flush=True)
            progress.advance(task)
    results = {}
    for name in names:
        change, at = changes.get(name, ("", None))
        print(f"{name}, {temperature} K, {time} ps: {change or 'all bonds as before'}")
        results[name] = {"ps": time, "change": change, "at_ps": at}
    return results


def _changes(
    context: openmm.Context, watches: list[subjects.Watch], start: list[np.ndarray]
) -> dict[int, str]:
    """Return what has changed in which molecule, and put these back to where they were.

    So that a molecule that blows up does not take the others with it.
    """
    state = context.getState(positions=True, velocities=True)
    positions = state.getPositions(asNumpy=True)._value / NM
    velocities = state.getVelocities(asNumpy=True)._value
    found, begin = {}, 0
    for k, (watch, x) in enumerate(zip(watches, start, strict=True)):
        atoms = slice(begin, begin + len(x))
        begin = atoms.stop
        if changes := watch.changes(positions[atoms]):
            found[k] = changes[0]
            positions[atoms], velocities[atoms] = x, 0.0
    if found:
        context.setPositions(positions * NM)
        context.setVelocities(velocities)
    return found


Changes = dict[str, tuple[str, float]]


def _save(context: openmm.Context, path: Path, look: int, changes: Changes) -> None:
    """Write the state of a run at once."""
    state = context.getState(positions=True, velocities=True)
    temporary = path.with_suffix(".tmp.npz")
    np.savez(
        temporary,
        positions=state.getPositions(asNumpy=True)._value,
        velocities=state.getVelocities(asNumpy=True)._value,
        look=look,
        changes=json.dumps(changes),
    )
    temporary.replace(path)


def _go_on(context: openmm.Context, path: Path) -> tuple[int, Changes]:
    """Take up the state of a run; return how often its bonds were looked at, and what was found."""
    if not path.exists():
        return 0, {}
    saved = np.load(path)
    look = int(saved["look"])
    context.getIntegrator().setRandomNumberSeed(subjects.SEED + look)  # not the same noise again
    context.reinitialize()
    context.setPositions(saved["positions"])
    context.setVelocities(saved["velocities"])
    return look, json.loads(str(saved["changes"]))


def run_nve(model: Path, name: str, time: float) -> dict[str, float]:
    """Thermalise for 2 ps at 300 K, run NVE for `time` ps, and fit a line to the total energy."""
    drug = subjects.drug_like(name, conformers=1)
    warm = langevin(300, friction=10)
    start = context_of(model, drug.numbers, drug.minima[0], warm)
    start.setVelocitiesToTemperature(300 * unit.kelvin, subjects.SEED)
    warm.step(round(2000 / _TIMESTEP))
    state = start.getState(positions=True, velocities=True)
    verlet = openmm.VerletIntegrator(_NVE_TIMESTEP * unit.femtosecond)
    context = context_of(model, drug.numbers, drug.minima[0], verlet)
    context.setPositions(state.getPositions())
    context.setVelocities(state.getVelocities())
    energies = []
    samples = round(time * 1000 / _NVE_TIMESTEP / 10)
    for _ in track(range(samples), description=f"{name}, NVE"):
        verlet.step(10)
        now = context.getState(energy=True)
        total = now.getPotentialEnergy() + now.getKineticEnergy()
        energies.append(total.value_in_unit(unit.kilojoule_per_mole) / KJ_PER_MOL * 1000)
    times = np.arange(1, samples + 1) * 10 * _NVE_TIMESTEP / 1000
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


def bonds_of(molecule: Molecule) -> np.ndarray:
    """Return the bonded pairs, ``[B, 2]``."""
    return np.array(
        [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in molecule.molecule.GetBonds()]
    )
