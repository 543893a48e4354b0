"""What molecules do in molecular dynamics, through openmm-ml: bonds, energy, speed of a step."""

import json
import statistics
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openmm
import torch
from ase.data import chemical_symbols, covalent_radii
from openmm import app, unit
from openmmml import MLPotential
from rich.progress import Progress, track

from ..analysis.observables import energy_drift
from ..units import KJ_PER_MOL, NM
from .machine import describe
from .md import fastest_platform
from .timing import alternate

_SEED = 2027
_TIMESTEP = 1.0  # fs
_NVE_TIMESTEP = 0.5  # fs
_WATCHED = 100  # steps between two looks at the bonds
_SAVED = 100  # looks between two states on disk
_APART = 100.0  # Å between molecules of one System: more than they diffuse in 100 ps


class Start(NamedTuple):
    """A molecule as it is at the start.

    Attributes
    ----------
    numbers
        Atomic numbers, shape ``[N]``.
    positions
        Å, shape ``[N, 3]``.
    bonds
        Pairs of atoms, shape ``[B, 2]``.
    """

    numbers: np.ndarray
    positions: np.ndarray
    bonds: np.ndarray


class Watch:
    """Tells whether bonds break or form.

    Parameters
    ----------
    numbers
        Atomic numbers, shape ``[N]``.
    bonds
        Pairs of atoms, shape ``[B, 2]``.

    Notes
    -----
    A bond is broken when it is longer than 1.6 times the sum of the covalent radii; two other
    atoms are bonded when they are nearer than 1.15 times that.
    """

    def __init__(self, numbers: np.ndarray, bonds: np.ndarray):
        self.symbols = [chemical_symbols[z] for z in numbers]
        radii = covalent_radii[numbers]
        self.sums = np.add.outer(radii, radii)
        self.bonded = np.zeros(self.sums.shape, bool)
        self.bonded[tuple(np.transpose(bonds))] = True
        self.bonded |= self.bonded.T

    def changes(self, positions: np.ndarray) -> list[str]:
        """Say which bonds are broken or new, for positions in Å, ``[N, 3]``."""
        distances = np.linalg.norm(positions[:, None] - positions, axis=2)
        broken = self.bonded & ~(distances <= 1.6 * self.sums)  # NaN is broken
        new = ~self.bonded & (distances < 1.15 * self.sums)
        return [
            f"{self.symbols[i]}{i}-{self.symbols[j]}{j} {what} ({distances[i, j]:.2f} Å)"
            for what, which in (("broken", broken), ("new", new))
            for i, j in np.argwhere(np.triu(which, 1))
        ]


def run_nvt(
    model: Path, molecules: dict[str, Start], temperature: float, time: float, state: Path
) -> dict[str, dict[str, Any]]:
    """Run some molecules beside each other until `time` ps and watch their bonds.

    Parameters
    ----------
    model
        Model file.
    molecules
        By name.
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
    names = list(molecules)
    watches = [Watch(m.numbers, m.bonds) for m in molecules.values()]
    places = np.array(list(np.ndindex(3, 3, 3))[: len(names)]) * _APART
    start = [
        m.positions - m.positions.mean(axis=0) + place
        for m, place in zip(molecules.values(), places, strict=True)
    ]
    integrator = langevin(temperature, friction=1)
    numbers = np.concatenate([m.numbers for m in molecules.values()])
    context = context_of(model, numbers, np.concatenate(start), integrator)
    context.setVelocitiesToTemperature(temperature * unit.kelvin, _SEED)
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
    context: openmm.Context, watches: list[Watch], start: list[np.ndarray]
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
    context.getIntegrator().setRandomNumberSeed(_SEED + look)  # not the same noise again
    context.reinitialize()
    context.setPositions(saved["positions"])
    context.setVelocities(saved["velocities"])
    return look, json.loads(str(saved["changes"]))


def run_nve(model: Path, molecule: Start, time: float) -> dict[str, float]:
    """Thermalise for 2 ps at 300 K, run NVE for `time` ps, and fit a line to the total energy."""
    warm = langevin(300, friction=10)
    start = context_of(model, molecule.numbers, molecule.positions, warm)
    start.setVelocitiesToTemperature(300 * unit.kelvin, _SEED)
    warm.step(round(2000 / _TIMESTEP))
    state = start.getState(positions=True, velocities=True)
    verlet = openmm.VerletIntegrator(_NVE_TIMESTEP * unit.femtosecond)
    context = context_of(model, molecule.numbers, molecule.positions, verlet)
    context.setPositions(state.getPositions())
    context.setVelocities(state.getVelocities())
    energies = []
    samples = round(time * 1000 / _NVE_TIMESTEP / 10)
    for _ in track(range(samples), description="NVE"):
        verlet.step(10)
        now = context.getState(energy=True)
        total = now.getPotentialEnergy() + now.getKineticEnergy()
        energies.append(total.value_in_unit(unit.kilojoule_per_mole) / KJ_PER_MOL * 1000)
    times = np.arange(1, samples + 1) * 10 * _NVE_TIMESTEP / 1000
    drift = energy_drift(times, np.array(energies), len(molecule.numbers))
    return {
        "ps": time,
        "drift_meV_per_atom_per_ps": drift.slope,
        "drift_error_meV_per_atom_per_ps": drift.slope_error,
        "fluctuation_meV_per_atom": drift.fluctuation,
    }


def time_steps(contexts: Mapping[str, openmm.Context], steps: int, repeats: int) -> dict[str, Any]:
    """Time steps of several contexts in turns.

    Parameters
    ----------
    contexts
        By name, ready to go.
    steps, repeats
        Steps of a repeat, and rounds of repeats.

    Returns
    -------
    dict
        ``ms_per_step`` by name, medians over the repeats, and ``machine``.
    """

    def call(context: openmm.Context) -> None:
        context.getIntegrator().step(steps)
        context.getState(velocities=True)  # waits for them

    calls = {name: partial(call, context) for name, context in contexts.items()}
    for first in calls.values():
        first()  # compiles
    seconds = alternate(calls, repeats, dict.fromkeys(calls, 1))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return {
        "ms_per_step": {k: 1000 * statistics.median(v) / steps for k, v in seconds.items()},
        "machine": describe(torch.get_num_threads(), device, fastest_platform(device)),
    }


def langevin(temperature: float, friction: float) -> openmm.Integrator:
    """Return an integrator for a temperature, K, and a friction, 1/ps."""
    integrator = openmm.LangevinMiddleIntegrator(
        temperature * unit.kelvin, friction / unit.picosecond, _TIMESTEP * unit.femtosecond
    )
    integrator.setRandomNumberSeed(_SEED)
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
