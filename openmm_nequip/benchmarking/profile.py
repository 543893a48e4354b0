"""Where the time of a step goes, in the fused engine on the CPU and around it."""

import time
from typing import Any

import openmm
import torch

from ..md.fused import FusedModule
from ..md.verlet import Neighbors
from .budget import Forecast
from .md import Trajectory
from .models import Model
from .results import Results, Row
from .samples import Sample
from .timing import calls_per_repeat, stopwatch

_SHORTEST = 1.0  # seconds of a repeat
_WARM_UP = 3  # steps


def measure_profile(
    model: Model,
    sizes: list[int],
    repeats: int,
    platform: str,
    forecast: Forecast,
    results: Results,
) -> None:
    """Divide steps of molecular dynamics into their parts, one row for each.

    Parameters
    ----------
    model, sizes
        Potential and numbers of atoms.
    repeats
        How often.
    platform
        Of OpenMM.
    forecast, results
        As for `energy.measure_energy`.
    """
    for atoms in sorted(sizes):
        sample = model.sample(atoms)
        edges = model.graph(sample).edge_index.shape[1]
        case = ("profile", model.name, len(sample.frame))
        if platform not in ("CPU", "Reference"):
            reason = "the parts of a step are timed on the CPU only"
            results.add(Row(*case, "fused", edges, "skipped", reason))
            continue
        if reason := forecast.objection("fused", edges, repeats + _WARM_UP):
            results.add(Row(*case, "fused", edges, "skipped", reason))
            continue
        computation = _Computation(model, sample)
        run = Trajectory(computation.system(), sample, platform)
        run.step(_WARM_UP)
        once = stopwatch(run.step)
        forecast.note("fused", edges, once)
        steps = calls_per_repeat(once, _SHORTEST)
        parts: dict[str, list[float]] = {}
        for _ in range(repeats):
            computation.clear()
            start = time.perf_counter()
            run.step(steps)
            total = time.perf_counter() - start
            for name, seconds in computation.parts(total).items():
                parts.setdefault(name, []).append(seconds / steps)
        for name, seconds_per_step in parts.items():
            results.add(Row(*case, name, edges, seconds=seconds_per_step))


class _Computation:
    """What OpenMM calls: the fused engine with stopwatches in it."""

    def __init__(self, model: Model, sample: Sample):
        self.sample = sample
        types = model.potential.type_indices(sample.frame.numbers).tolist()
        self.periodic = sample.frame.cell is not None
        self.module = FusedModule(model.potential, types, None, self.periodic)
        self.neighbors = _TimedList(self.module.engine.neighbors)
        self.module.engine.neighbors = self.neighbors  # type: ignore[assignment]
        self.seconds = 0.0

    def system(self) -> openmm.System:
        """Return a System whose only force calls this."""
        system = openmm.System()
        for atom in self.sample.topology().atoms():
            system.addParticle(atom.element.mass)
        if self.sample.frame.cell is not None:
            system.setDefaultPeriodicBoxVectors(*self.sample.topology().getPeriodicBoxVectors())
        force = openmm.PythonForce(self)
        force.setUsesPeriodicBoundaryConditions(self.periodic)
        system.addForce(force)
        return system

    def __call__(self, state: openmm.State) -> tuple[float, Any]:
        """Return energy, kJ/mol, and forces, kJ/mol/nm."""
        positions = torch.from_numpy(state.getPositions(asNumpy=True)._value)
        box = None
        if self.periodic:
            box = torch.from_numpy(state.getPeriodicBoxVectors(asNumpy=True)._value)
        start = time.perf_counter()
        energy, forces = self.module.evaluate(positions, box)
        self.seconds += time.perf_counter() - start
        return energy.item(), forces.numpy()

    def clear(self) -> None:
        """Set the stopwatches to zero."""
        self.seconds = self.neighbors.seconds = 0.0
        self._network().clear()

    def parts(self, total: float) -> dict[str, float]:
        """Return seconds by part, of `total` seconds of OpenMM's time."""
        network = dict(self._network())
        known = self.neighbors.seconds + sum(network.values())
        return {
            "neighbour list": self.neighbors.seconds,
            **network,
            "edges to atoms, copies": self.seconds - known,
            "OpenMM": total - self.seconds,
        }

    def _network(self) -> dict[str, float]:
        """Return the clock that the compiled step keeps."""
        potential: Any = self.module.engine.potential
        return potential._step.seconds


class _TimedList:
    """A neighbour list with a stopwatch."""

    def __init__(self, inner: Any):
        self.inner, self.seconds = inner, 0.0

    def update(self, *arguments: Any) -> Neighbors:
        start = time.perf_counter()
        found = self.inner.update(*arguments)
        self.seconds += time.perf_counter() - start
        return found

    def forces(self, gradient: torch.Tensor, edges: Any) -> torch.Tensor:
        return self.inner.forces(gradient, edges)
