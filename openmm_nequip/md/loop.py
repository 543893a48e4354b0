"""The steps of a run, and what is done between them."""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NoReturn

import numpy as np
import openmm
from openmm import app, unit

from ..errors import InputError
from ..units import KJ_PER_MOL_NM, NM
from .checkpoint import Checkpoint
from .checks import (
    cut_bonds,
    long_bonds,
    long_time_step,
    overlapping_atoms,
    strong_forces,
    torn_bonds,
)
from .config import SimulationConfig
from .domain import DomainCheck, domain_and_cutoff
from .failures import LIKELY_CAUSES, keep_frames, suspects
from .folder import structure_path, write_structure
from .interrupt import Stop
from .mixed import at_lambda, energy_derivative
from .preparation import (
    degrees_of_freedom,
    minimise,
    ml_group,
    ml_region,
    on_the_gpu,
    particle_masses,
    set_velocities,
)
from .progress import Observer, Progress, Result
from .reporters import (
    Reading,
    StateLog,
    TrajectoryWriter,
    WarningLog,
    density,
    read,
    temperature_of,
    to_hdf5,
)
from .structure import Structure

_CHUNK_SECONDS = 0.5  # how long a Ctrl-C may have to wait
_DOMAIN_SHARE = 0.02  # of the time, for looking whether the run is in the potential's domain
_HOTTEST = 10  # a temperature this many times the wanted one (and above 5000 K) is a blow-up


class Run:
    """A run in its folder, which nobody else writes into.

    Parameters
    ----------
    config, folder, structure, simulation
        What is run, and where.
    inputs
        Fingerprints of what the configuration names.
    observer
        Is told how it goes.
    stop
        Asked whether to go on.
    """

    def __init__(
        self,
        config: SimulationConfig,
        folder: Path,
        structure: Structure,
        simulation: app.Simulation,
        inputs: dict[str, str],
        observer: Observer,
        stop: Stop,
    ):
        self.config, self.folder, self.simulation = config, folder, simulation
        self.inputs, self.observer, self.stop = inputs, observer, stop
        self.context, self.stages = simulation.context, config.stages
        self.topology = structure.topology
        self.periodic = simulation.topology.getPeriodicBoxVectors() is not None
        self.dof = degrees_of_freedom(simulation.system)
        self.masses = particle_masses(simulation.system)
        self.mass = float(self.masses.sum())
        self.limit = max(5000.0, _HOTTEST * config.temperature)
        self.step = self.first_step = self.stages.first_step
        self.seconds_before = 0.0  # spent by earlier processes
        self.began = self.saved = time.monotonic()
        self.good: openmm.State | None = None
        self.region = ml_region(config, structure)
        described = self.region
        if described is not None:  # and link atoms, behind those of the structure
            behind = range(self.topology.getNumAtoms(), simulation.topology.getNumAtoms())
            described = [*described, *behind]
        self.domain = DomainCheck(
            *domain_and_cutoff(config.potential), simulation.topology, described
        )
        self.next_domain_check = self.began

    def start(self) -> None:
        """Begin at the first step: check, minimise, draw velocities, write the first row."""
        system, topology = self.simulation.system, self.simulation.topology
        state = self.context.getState(positions=True)
        positions = state.getPositions(asNumpy=True)._value
        if link_atoms := topology.getNumAtoms() - self.topology.getNumAtoms():
            bonds = f"{link_atoms} bond{'s' * (link_atoms > 1)}"
            self.observer.message(f"the ML region cuts {bonds}, capped by hydrogen")
        self._complain(
            [
                *cut_bonds(system, topology, self.region),
                *long_time_step(system, topology, self.config.timestep, self.region),
                *overlapping_atoms(system, topology, positions, self._box(state)),
                *long_bonds(topology, positions, self._box(state)),
            ]
        )
        if self.config.minimise:
            try:
                before, after = minimise(self.simulation, lambda: self.stop.requested)
            except openmm.OpenMMException as error:
                self._broke_down(error)
            if self.stop.requested:  # half-way: not a state to begin from
                raise KeyboardInterrupt
            self.observer.message(f"minimised: {after - before:+.2f} kJ/mol of potential energy")
            state = self.context.getState(positions=True)
            found = state.getPositions(asNumpy=True)._value
            torn = torn_bonds(system, topology, positions, found, self._box(state), self.region)
            for problem in torn:  # meant, perhaps
                self.observer.message(f"warning: {problem}")
        self._complain(strong_forces(self.context, topology))
        self.context.setTime(self.step * self.config.timestep / 1000)
        self.stages.apply(self.simulation.integrator, system, self.step)
        set_velocities(self.context, self.stages.temperature_at(self.step), self.config.seed)
        self._open(None)
        self._report()
        self._save()

    def _complain(self, problems: Sequence[str]) -> None:
        """Refuse a mixed run that has problems; warn of them where all is the potential's.

        Raises
        ------
        InputError
            All problems, in one line.
        """
        if problems and self.region is not None:
            raise InputError("; ".join(problems))
        for problem in problems:
            self.observer.message(f"warning: {problem}")

    def go_on(self, checkpoint: Checkpoint) -> None:
        """Continue where `checkpoint` was taken."""
        with on_the_gpu(self.config):
            complete = checkpoint.restore(self.folder / "checkpoint", self.context)
        if not complete:
            self.observer.message(
                "the checkpoint is of another platform or version of OpenMM: going on from its "
                "positions and velocities with new random numbers"
            )
        self.step = self.first_step = checkpoint.step
        self.seconds_before = checkpoint.seconds
        self.good = self.context.getState(positions=True, velocities=True)
        self._open(checkpoint)
        self.observer.message(f"going on from step {self.step:,}")

    def to_the_end(self) -> Result:
        """Run until the last step or until somebody asks to stop."""
        config = self.config
        self.began = self.saved = time.monotonic()
        while self.step < config.total_steps and not self.stop.requested:
            self.stages.apply(self.simulation.integrator, self.simulation.system, self.step)
            self._advance(self._next_stop())
            self._report()
            if self._checkpoint_is_due():
                self._save()
        finished = self.step >= config.total_steps
        self._save()
        self.trajectory.close()
        if self.ml_trajectory is not None:
            self.ml_trajectory.close()
        if finished:
            self._finish()
        return Result(finished, self.step, config.total_steps, self._speed())

    def _next_stop(self) -> int:
        """Return the next step at which there is something to do."""
        config = self.config
        intervals = [
            config.log_steps, config.trajectory_steps, config.ml_trajectory_steps,
            config.checkpoint_steps,
        ]  # fmt: skip
        stops = [self.step - self.step % n + n for n in intervals if n is not None]
        change = self.stages.next_change(self.step)
        return min([*stops, config.total_steps] + ([] if change is None else [change]))

    def _open(self, checkpoint: Checkpoint | None) -> None:
        config, folder = self.config, self.folder
        self.log = StateLog(
            folder / "state.csv",
            self.mass,
            self.periodic,
            checkpoint.log if checkpoint else None,
            mixed=self.region is not None,
            interpolated=config.lambda_interpolate is not None,
        )
        self.warnings = WarningLog(folder / "warnings.csv", checkpoint.step if checkpoint else None)
        self.domain.forget(self.warnings.kinds)
        suffix = "xtc" if config.trajectory == "xtc" else "dcd"
        self.trajectory = TrajectoryWriter(
            folder / f"trajectory.{suffix}",
            self.topology,
            config.timestep / 1000,
            config.trajectory_steps,
            checkpoint.trajectory if checkpoint else None,
        )
        self.ml_trajectory: TrajectoryWriter | None = None
        if config.ml_trajectory_steps is not None:
            self.ml_trajectory = TrajectoryWriter(
                folder / "region.dcd",
                self.topology,
                config.timestep / 1000,
                config.ml_trajectory_steps,
                checkpoint.region if checkpoint else None,
                self.region,
            )

    def _advance(self, target: int) -> None:
        """Step to `target` in pieces, so that a request to stop is soon seen.

        The first piece is always done: what was reported at this step must not be again.
        """
        pace = 1
        while self.step < target:
            count = min(pace, target - self.step)
            start = time.monotonic()
            try:
                self.simulation.integrator.step(count)
            except openmm.OpenMMException as error:
                self._broke_down(error)
            self.step += count
            seconds = max(time.monotonic() - start, 1e-9)
            pace = max(1, min(2 * count, int(_CHUNK_SECONDS * count / seconds)))
            if self.stop.requested or self._time_for_checkpoint():
                return

    def _report(self) -> None:
        """Check the state and write what is due at this step."""
        is_logged = self.step % self.config.log_steps == 0
        is_checked = is_logged and time.monotonic() >= self.next_domain_check
        try:
            state = self.context.getState(positions=True, velocities=True, energy=True)
            reading, forces = self._read(state, is_checked and self.domain.needs_forces)
        except openmm.OpenMMException as error:
            self._broke_down(error)
        positions = state.getPositions(asNumpy=True)._value
        if not (np.isfinite(positions).all() and np.isfinite(reading.potential + reading.kinetic)):
            self._broke_down("coordinates or energies are not finite")
        picoseconds = self.step * self.config.timestep / 1000
        temperature, where = self._hottest(state, reading)
        too_hot = temperature > self.limit
        if is_checked or too_hot:  # to have left the domain is what explains it
            self._check_domain(state, picoseconds, forces)
        if too_hot:
            self._broke_down(f"the temperature{where} is {temperature:.3g} K")
        self.good = state
        if is_logged:
            self.log.append(self.step, picoseconds, reading, self._speed())
        if self.step >= 0 and self.step % self.config.trajectory_steps == 0:
            self.trajectory.append(state)
        every = self.config.ml_trajectory_steps
        if self.ml_trajectory is not None and every and self.step >= 0 and self.step % every == 0:
            self.ml_trajectory.append(state)
        self.observer.progress(
            Progress(
                step=self.step,
                total=self.config.total_steps,
                time=picoseconds,
                reading=reading,
                speed=self._speed(),
                left=self._left(),
                first_step=self.stages.first_step,
                stage=self.stages.name(self.step),
                density=None if reading.volume is None else density(self.mass, reading.volume),
            )
        )

    def _read(self, state: openmm.State, with_forces: bool) -> tuple[Reading, np.ndarray | None]:
        """Return the readings and, if wanted, the potential's forces, kJ/mol/nm."""
        reading = read(state, self.dof, self.periodic)
        interpolated = self.config.lambda_interpolate is not None
        own = None
        if self.region is not None or with_forces:
            groups = -1 if self.region is None else 1 << ml_group(self.simulation.system)
            # λ scales the potential: as it is trained, it is at 1
            with at_lambda(self.context, 1.0) if interpolated else nullcontext():
                own = self.context.getState(energy=True, forces=with_forces, groups=groups)
        if self.region is not None and own is not None:
            energy = own.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
            reading = reading._replace(ml_potential=energy)
        if interpolated:
            reading = reading._replace(derivative=energy_derivative(self.context))
        return reading, own.getForces(asNumpy=True)._value if own and with_forces else None

    def _hottest(self, state: openmm.State, reading: Reading) -> tuple[float, str]:
        """Return the temperature, K, that tells of a blow-up, and of what it is.

        A few atoms that fly apart do not show in the temperature of all.
        """
        if self.region is None:
            return reading.temperature, ""
        velocities = state.getVelocities(asNumpy=True)._value[self.region]
        kinetic = 0.5 * float(self.masses[self.region] @ (velocities**2).sum(axis=1))
        own = temperature_of(kinetic, 3 * len(self.region))
        if own > reading.temperature:
            return own, " of the ML region"
        return reading.temperature, ""

    def _check_domain(
        self, state: openmm.State, picoseconds: float, forces: np.ndarray | None
    ) -> None:
        start = time.monotonic()
        box = self._box(state)
        found = self.domain(
            state.getPositions(asNumpy=True)._value / NM,
            None if box is None else box / NM,
            None if forces is None else forces / KJ_PER_MOL_NM,
        )
        for kind, message in found:
            self.warnings.append(self.step, picoseconds, kind, message)
            self.observer.message(f"warning, step {self.step:,}: {message}")
        now = time.monotonic()
        self.next_domain_check = now + (now - start) / _DOMAIN_SHARE

    def _box(self, state: openmm.State) -> np.ndarray | None:
        """Return the lattice vectors as rows, nm."""
        return state.getPeriodicBoxVectors(asNumpy=True)._value if self.periodic else None

    def _checkpoint_is_due(self) -> bool:
        steps = self.config.checkpoint_steps
        return self._time_for_checkpoint() if steps is None else self.step % steps == 0

    def _time_for_checkpoint(self) -> bool:
        seconds = self.config.checkpoint_seconds
        return seconds is not None and time.monotonic() - self.saved >= seconds

    def _save(self, finished: bool = False) -> None:
        Checkpoint(
            step=self.step,
            log=self.log.length(),
            trajectory=self.trajectory.length(),
            seconds=self.seconds_before + time.monotonic() - self.began,
            inputs=self.inputs,
            finished=finished,
            region=None if self.ml_trajectory is None else self.ml_trajectory.length(),
        ).save(self.folder / "checkpoint", self.context)
        self.saved = time.monotonic()

    def _finish(self) -> None:
        state = self.context.getState(positions=True)
        write_structure(
            structure_path(self.folder, "final", self.topology),
            self.topology,
            state.getPositions(asNumpy=True)._value,
            self._box(state),
        )
        if self.config.trajectory == "h5":
            spacing = self.config.trajectory_steps * self.config.timestep / 1000
            topology = structure_path(self.folder, "topology", self.topology)
            to_hdf5(self.trajectory.path, topology, spacing)
        self._save(finished=True)
        if self.config.trajectory == "h5":
            self.trajectory.path.unlink()

    def _speed(self) -> float:
        """Return ns/day since this process began to step."""
        seconds = max(time.monotonic() - self.began, 1e-9)
        return (self.step - self.first_step) * self.config.timestep * 1e-6 / seconds * 86400

    def _left(self) -> float | None:
        """Return how many seconds it takes to the end at this speed, once that is known."""
        done = self.step - self.first_step
        if not done:
            return None
        return (self.config.total_steps - self.step) * (time.monotonic() - self.began) / done

    def _broke_down(self, reason: object) -> NoReturn:
        """Keep what there is to look at, and say so.

        Raises
        ------
        InputError
            Always, unless it is an interrupt that comes out of OpenMM as its own exception.
        """
        if self.stop.insisted:
            raise KeyboardInterrupt
        state = self.context.getState(positions=True)
        positions, box = state.getPositions(asNumpy=True)._value, self._box(state)
        atoms = suspects(self.simulation, positions, box)
        kept = keep_frames(self.folder, self.topology, self.good, positions, box)
        raise InputError(
            f"the simulation blew up after step {self.step:,}: {' '.join(str(reason).split())}"
            f"{f' ({atoms})' if atoms else ''}; {kept}. {LIKELY_CAUSES}"
        )
