"""Molecular dynamics through OpenMM: what a user waits for, neighbour lists included."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from openmm import unit

from ..units import KJ_PER_MOL, NM
from .budget import Forecast
from .energy import describe
from .models import TOLERANCE, Model, Unavailable
from .results import Results, Row
from .samples import Sample
from .timing import alternate, calls_per_repeat, stopwatch

TIMESTEP = 0.5  # fs
_TEMPERATURE = 300.0  # K
_SHORTEST = 0.5  # seconds of a repeat: long enough to see neighbour lists rebuilt
_SMALL = 192  # atoms

#: Name: keywords of `createSystem`, or nothing for openmm-ml's own implementation.
VARIANTS: dict[str, dict[str, str]] = {
    "fused, TorchForce": {"engine": "fused", "force": "torch"},
    "fused, PythonForce": {"engine": "fused", "force": "python"},
    "reference, TorchForce": {"engine": "reference", "force": "torch"},
    "reference, PythonForce": {"engine": "reference", "force": "python"},
    "openmm-ml nequip": {},
}


def measure_md(
    model: Model,
    sizes: list[int],
    engines: list[str],
    repeats: int,
    device: str,
    platform: str,
    forecast: Forecast,
    results: Results,
) -> None:
    """Measure the step of our forces and of openmm-ml's own ``nequip``, with the same weights.

    Parameters
    ----------
    model, sizes
        Potential and numbers of atoms.
    engines
        As for `measure_energy`; ``'nequip'`` stands for openmm-ml's implementation.
    repeats
        Rounds of alternating repeats.
    device, platform
        Where the networks and OpenMM compute.
    forecast, results
        As for `measure_energy`.
    """
    wanted = {
        name: keywords
        for name, keywords in VARIANTS.items()
        if keywords.get("engine", "nequip") in engines
    }
    with tempfile.TemporaryDirectory() as folder:
        makers, problems = _make_potentials(model, wanted, Path(folder), device)
        if min(sizes) > _SMALL:
            _forecast_from_small(model, makers, platform, forecast)
        for atoms in sorted(sizes):
            _measure_case(
                model, atoms, wanted, makers, problems, repeats, platform, forecast, results
            )


def fastest_platform(device: str) -> str:
    """Return the OpenMM platform to use with networks on `device`."""
    names = {
        openmm.Platform.getPlatform(k).getName() for k in range(openmm.Platform.getNumPlatforms())
    }
    if device.startswith("cuda") and "CUDA" in names:
        return "CUDA"
    return "CPU" if "CPU" in names else "Reference"


def _make_potentials(
    model: Model, wanted: dict[str, dict[str, str]], folder: Path, device: str
) -> tuple[dict[str, Callable[[Sample], openmm.System]], dict[str, tuple[str, str]]]:
    """Return functions that create Systems, and why there is none."""
    from openmmml import MLPotential

    makers: dict[str, Callable[[Sample], openmm.System]] = {}
    problems: dict[str, tuple[str, str]] = {}
    ours = MLPotential("openmm-nequip", modelPath=str(model.model_file(folder)))

    def maker(potential: Any, keywords: dict[str, str]) -> Callable[[Sample], openmm.System]:
        return lambda sample: potential.createSystem(sample.topology(), device=device, **keywords)

    for name, keywords in wanted.items():
        try:
            potential = ours if keywords else _theirs(model, folder)
            makers[name] = maker(potential, keywords)
        except Unavailable as reason:
            problems[name] = ("unavailable", str(reason))
        except Exception as error:
            problems[name] = ("failed", describe(error))
    return makers, problems


def _theirs(model: Model, folder: Path) -> Any:
    """Return openmm-ml's own ``nequip`` of a checkpoint with the same weights."""
    from openmmml import MLPotential

    return MLPotential(
        "openmm-nequip",  # hands files of the nequip package to openmm-ml's implementation
        modelPath=str(model.checkpoint(folder)),
        lengthScale=NM,
        energyScale=KJ_PER_MOL,
    )


class Trajectory:
    """A trajectory that can be continued, step by step.

    Parameters
    ----------
    system, sample
        What moves and where it starts.
    platform
        Of OpenMM.
    """

    def __init__(self, system: openmm.System, sample: Sample, platform: str):
        system.addForce(sample.bonds())
        integrator = openmm.LangevinMiddleIntegrator(
            _TEMPERATURE * unit.kelvin, 1 / unit.picosecond, TIMESTEP * unit.femtosecond
        )
        integrator.setRandomNumberSeed(1)
        chosen = openmm.Platform.getPlatformByName(platform)
        # as `simulate` has it
        properties = {"Precision": "mixed"} if "Precision" in chosen.getPropertyNames() else {}
        self.context = openmm.Context(system, integrator, chosen, properties)
        self.context.setPositions(sample.frame.positions * NM)
        self.context.setVelocitiesToTemperature(_TEMPERATURE * unit.kelvin, 1)
        self.asynchronous = platform not in ("CPU", "Reference")

    def step(self, steps: int = 1) -> None:
        """Advance, and wait until that is done."""
        self.context.getIntegrator().step(steps)
        if self.asynchronous:
            self.context.getState(velocities=True)

    def forces(self) -> np.ndarray:
        """Return forces, kJ/mol/nm, shape ``[N, 3]``."""
        return self.context.getState(forces=True).getForces(asNumpy=True)._value


def _forecast_from_small(
    model: Model,
    makers: dict[str, Callable[[Sample], openmm.System]],
    platform: str,
    forecast: Forecast,
) -> None:
    sample = model.sample(_SMALL)
    edges = model.graph(sample).edge_index.shape[1]
    for name, make in makers.items():
        try:
            run = Trajectory(make(sample), sample, platform)
            run.step(2)
            forecast.note(name, edges, stopwatch(run.step))
        except Exception:
            continue  # reported with the cases themselves


def _measure_case(
    model: Model,
    atoms: int,
    wanted: dict[str, dict[str, str]],
    makers: dict[str, Callable[[Sample], openmm.System]],
    problems: dict[str, tuple[str, str]],
    repeats: int,
    platform: str,
    forecast: Forecast,
    results: Results,
) -> None:
    sample = model.sample(atoms)
    edges = model.graph(sample).edge_index.shape[1]
    steps: dict[str, int] = {}
    calls: dict[str, Callable[[], object]] = {}
    rows: dict[str, Row] = {}
    expected: np.ndarray | None = None
    for name in wanted:
        row = Row("md", model.name, len(sample.frame), name, edges)
        rows[name] = row
        if name in problems:
            row.status, row.reason = problems[name]
            continue
        if reason := forecast.objection(name, edges, repeats + 3):
            row.status, row.reason = "skipped", reason
            continue
        try:
            run = Trajectory(makers[name](sample), sample, platform)
            forces = run.forces()
            row.details["first_step_s"] = stopwatch(run.step)
            run.step()  # TorchScript optimises in the first two or three evaluations
            once = stopwatch(run.step)
        except Exception as error:
            row.status, row.reason = "failed", describe(error)
            continue
        expected = forces if expected is None else expected
        difference = float(np.abs(forces - expected).max() / np.abs(expected).max())
        row.details["relative_difference"] = {"forces": difference}
        if not difference <= TOLERANCE:
            row.status = "disagrees"
            row.reason = f"forces differ from the first engine's by {difference:.1e} (relative)"
            continue
        forecast.note(name, edges, once)
        if reason := forecast.objection(name, edges, repeats):
            row.status, row.reason = "skipped", reason
            continue
        steps[name] = calls_per_repeat(once, _SHORTEST)
        calls[name] = _stepper(run, steps[name])
    # the steps of one repeat are taken in one call of OpenMM
    seconds = alternate(calls, repeats, dict.fromkeys(calls, 1))
    for name, row in rows.items():
        if name in seconds:
            row.seconds = [value / steps[name] for value in seconds[name]]
            row.details |= {
                "steps_per_repeat": steps[name],
                "ns_per_day": TIMESTEP * 1e-6 * 86400 / float(np.median(row.seconds)),
            }
        results.add(row)


def _stepper(run: Trajectory, steps: int) -> Callable[[], object]:
    return lambda: run.step(steps)
