"""A molecular dynamics run, from its start or its last checkpoint to its end."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Protocol

import numpy as np
import openmm
from openmm import app, unit

from ..errors import InputError
from ..modelfile import write_atomically
from ..units import KJ_PER_MOL_NM, NM
from .checkpoint import Checkpoint
from .config import SimulationConfig
from .domain import DomainCheck, domain_and_cutoff
from .folder import describe, find_checkpoint, fingerprints, locked, write_structure
from .preparation import (
    build_simulation,
    degrees_of_freedom,
    minimise,
    particle_masses,
    set_velocities,
)
from .reporters import (
    Reading,
    StateLog,
    TrajectoryWriter,
    WarningLog,
    check_format,
    read,
    to_hdf5,
)
from .structure import Structure

_CHUNK_SECONDS = 0.5  # how long a Ctrl-C may have to wait
_WARM_UP = 5  # evaluations
_DOMAIN_SHARE = 0.02  # of the time, for looking whether the run is in the potential's domain
_HOTTEST = 10  # a temperature this many times the wanted one (and above 5000 K) is a blow-up


class Progress(NamedTuple):
    """Where a run is: steps done and wanted, time in ps, readings, speed in ns/day."""

    step: int
    total: int
    time: float
    reading: Reading
    speed: float


class Observer(Protocol):
    """Whoever wants to know what a run does."""

    def message(self, text: str) -> None:
        """Receive one line of text."""

    def progress(self, progress: Progress) -> None:
        """Receive the state of the run, at each row of its log."""


@dataclass(frozen=True)
class Result:
    """How a run ended: if it is not finished, it was stopped by a signal and can go on."""

    finished: bool
    step: int
    total: int
    speed: float


class Stop:
    """Whether somebody wants the run to stop: Ctrl-C, or a batch system's SIGTERM."""

    requested = False

    @contextmanager
    def listening(self) -> Iterator["Stop"]:
        """Turn the first signal into a request; a second one acts as usual."""
        if threading.current_thread() is not threading.main_thread():
            yield self  # only the main thread gets signals
            return
        usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def restore() -> None:
            for number, handler in usual.items():
                signal.signal(number, handler)

        def request(number: int, frame: Any) -> None:
            self.requested = True
            restore()

        for number in usual:
            signal.signal(number, request)
        try:
            yield self
        finally:
            restore()


def run(config: SimulationConfig, folder: Path, structure: Structure, observer: Observer) -> Result:
    """Run a simulation in its folder, or go on with it from its last checkpoint.

    The folder gets the configuration, versions, ``topology.pdb``, the trajectory, ``state.csv``,
    checkpoints and, at the end, ``final.pdb``; and ``warnings.csv`` where the run has left what
    occurred in the training of its potential.

    Raises
    ------
    InputError
        The folder holds a finished or a different run; an input is wrong; the simulation blew up
        (the last good state is then in the folder).
    """
    check_format(config.trajectory)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder), Stop().listening() as stop:
        inputs = fingerprints(config, structure)
        checkpoint = find_checkpoint(config, folder, inputs)
        simulation = build_simulation(config, structure)
        _warm_up(simulation.context)
        this = _Run(config, folder, simulation, inputs, observer, stop)
        if checkpoint is None:
            describe(config, folder, structure, simulation)
            this.start()
        else:
            this.go_on(checkpoint)
        return this.to_the_end()


def _warm_up(context: openmm.Context) -> None:
    """Evaluate the forces until TorchScript has optimised the network.

    Its first evaluations round differently, and a run that goes on should not notice.
    """
    for _ in range(_WARM_UP):
        context.getState(forces=True)


class _Run:
    def __init__(
        self,
        config: SimulationConfig,
        folder: Path,
        simulation: app.Simulation,
        inputs: dict[str, str],
        observer: Observer,
        stop: Stop,
    ):
        self.config, self.folder, self.simulation = config, folder, simulation
        self.inputs, self.observer, self.stop = inputs, observer, stop
        self.context = simulation.context
        self.topology = simulation.topology
        self.periodic = simulation.topology.getPeriodicBoxVectors() is not None
        self.dof = degrees_of_freedom(simulation.system)
        self.mass = float(particle_masses(simulation.system).sum())
        self.limit = max(5000.0, _HOTTEST * config.temperature)
        self.step = self.first_step = 0
        self.seconds_before = 0.0  # spent by earlier processes
        self.began = self.saved = time.monotonic()
        self.good: openmm.State | None = None
        self.domain = DomainCheck(*domain_and_cutoff(config.potential), self.topology)
        self.next_domain_check = self.began

    def start(self) -> None:
        """Begin at step 0: minimise, draw velocities, write the first row and frame."""
        if self.config.minimise:
            before, after = minimise(self.simulation, lambda: self.stop.requested)
            if self.stop.requested:  # half-way: not a state to begin from
                raise KeyboardInterrupt
            self.observer.message(f"minimised: potential energy {after - before:+.2f} kJ/mol")
        set_velocities(self.context, self.config.temperature, self.config.seed)
        self._open(None)
        self._report()
        self._save()

    def go_on(self, checkpoint: Checkpoint) -> None:
        """Continue where `checkpoint` was taken."""
        if not checkpoint.restore(self.folder / "checkpoint", self.context):
            self.observer.message(
                "the checkpoint is of another platform or version of OpenMM: going on from its "
                "positions and velocities with new random numbers"
            )
        self.step = self.first_step = checkpoint.step
        self.seconds_before = checkpoint.seconds
        self._open(checkpoint)
        self.observer.message(f"going on from step {self.step:,}")

    def to_the_end(self) -> Result:
        """Run until the last step or until somebody asks to stop."""
        config = self.config
        intervals = [config.log_steps, config.trajectory_steps, config.total_steps]
        if config.checkpoint_steps is not None:
            intervals.append(config.checkpoint_steps)
        self.began = self.saved = time.monotonic()
        while self.step < config.total_steps and not self.stop.requested:
            self._advance(min(self.step - self.step % n + n for n in intervals))
            self._report()
            if self._checkpoint_is_due():
                self._save()
        finished = self.step >= config.total_steps
        self._save()
        self.trajectory.close()
        if finished:
            self._finish()
        return Result(finished, self.step, config.total_steps, self._speed())

    def _open(self, checkpoint: Checkpoint | None) -> None:
        log, trajectory = (checkpoint.log, checkpoint.trajectory) if checkpoint else (None, None)
        self.log = StateLog(self.folder / "state.csv", self.mass, self.periodic, log)
        self.warnings = WarningLog(
            self.folder / "warnings.csv", checkpoint.step if checkpoint else None
        )
        self.domain.forget(self.warnings.kinds)
        suffix = "xtc" if self.config.trajectory == "xtc" else "dcd"
        self.trajectory = TrajectoryWriter(
            self.folder / f"trajectory.{suffix}",
            self.topology,
            self.config.timestep / 1000,
            self.config.trajectory_steps,
            trajectory,
        )

    def _advance(self, target: int) -> None:
        """Step to `target` in pieces, so that a request to stop is soon seen."""
        pace = 1
        while self.step < target and not self.stop.requested:
            count = min(pace, target - self.step)
            start = time.monotonic()
            try:
                self.simulation.integrator.step(count)
            except openmm.OpenMMException as error:
                self._broke_down(error)
            self.step += count
            seconds = max(time.monotonic() - start, 1e-9)
            pace = max(1, min(2 * count, int(_CHUNK_SECONDS * count / seconds)))

    def _report(self) -> None:
        """Check the state and write what is due at this step."""
        is_logged = self.step % self.config.log_steps == 0
        is_checked = is_logged and time.monotonic() >= self.next_domain_check
        forces = is_checked and self.domain.needs_forces
        try:
            state = self.context.getState(
                positions=True, velocities=True, energy=True, forces=forces
            )
        except openmm.OpenMMException as error:
            self._broke_down(error)
        reading = read(state, self.dof, self.periodic)
        positions = state.getPositions(asNumpy=True)._value
        if not (np.isfinite(positions).all() and np.isfinite(reading.potential + reading.kinetic)):
            self._broke_down("coordinates or energies are not finite")
        picoseconds = self.step * self.config.timestep / 1000
        too_hot = reading.temperature > self.limit
        if is_checked or too_hot:  # to have left the domain is what explains it
            self._check_domain(state, picoseconds, forces)
        if too_hot:
            self._broke_down(f"the temperature is {reading.temperature:.3g} K")
        self.good = state
        if is_logged:
            self.log.append(self.step, picoseconds, reading, self._speed())
        if self.step % self.config.trajectory_steps == 0:
            self.trajectory.append(state)
        self.observer.progress(
            Progress(self.step, self.config.total_steps, picoseconds, reading, self._speed())
        )

    def _check_domain(self, state: openmm.State, picoseconds: float, forces: bool) -> None:
        start = time.monotonic()
        found = self.domain(
            state.getPositions(asNumpy=True)._value / NM,
            state.getPeriodicBoxVectors(asNumpy=True)._value / NM if self.periodic else None,
            state.getForces(asNumpy=True)._value / KJ_PER_MOL_NM if forces else None,
        )
        for kind, message in found:
            self.warnings.append(self.step, picoseconds, kind, message)
            self.observer.message(f"warning, step {self.step:,}: {message}")
        now = time.monotonic()
        self.next_domain_check = now + (now - start) / _DOMAIN_SHARE

    def _checkpoint_is_due(self) -> bool:
        if self.config.checkpoint_steps is not None:
            return self.step % self.config.checkpoint_steps == 0
        assert self.config.checkpoint_seconds is not None
        return time.monotonic() - self.saved >= self.config.checkpoint_seconds

    def _save(self, finished: bool = False) -> None:
        Checkpoint(
            step=self.step,
            log=self.log.length(),
            trajectory=self.trajectory.length(),
            seconds=self.seconds_before + time.monotonic() - self.began,
            inputs=self.inputs,
            finished=finished,
        ).save(self.folder / "checkpoint", self.context)
        self.saved = time.monotonic()

    def _finish(self) -> None:
        positions = self.context.getState(positions=True).getPositions(asNumpy=True)._value
        write_structure(self.folder / "final.pdb", self.topology, positions)
        if self.config.trajectory == "h5":
            spacing = self.config.trajectory_steps * self.config.timestep / 1000
            to_hdf5(self.trajectory.path, self.folder / "topology.pdb", spacing)
        self._save(finished=True)
        if self.config.trajectory == "h5":
            self.trajectory.path.unlink()

    def _speed(self) -> float:
        """Return ns/day since this process began to step."""
        seconds = max(time.monotonic() - self.began, 1e-9)
        return (self.step - self.first_step) * self.config.timestep * 1e-6 / seconds * 86400

    def _broke_down(self, reason: object) -> NoReturn:
        """Save the last good state and say so.

        Raises
        ------
        InputError
            Always.
        """
        reason = " ".join(str(reason).split())
        saved = "there is no good state to save: check the structure"
        if self.good is not None:
            positions = self.good.getPositions(asNumpy=True)._value
            write_structure(self.folder / "last_good.pdb", self.topology, positions)
            xml = openmm.XmlSerializer.serialize(self.good)
            write_atomically(self.folder / "last_good.xml", xml.encode())
            when = self.good.getTime().value_in_unit(unit.picosecond)
            saved = (
                f"the last good state ({when:.4f} ps) is in {self.folder}/last_good.pdb and .xml; "
                "look there for atoms too close, try a smaller timestep or 'minimise: true', or "
                "train the potential for such configurations"
            )
        raise InputError(f"the simulation blew up after step {self.step:,}: {reason}; {saved}")
