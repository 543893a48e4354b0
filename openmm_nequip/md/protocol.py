"""Molecular dynamics from a configuration: new runs, those that go on, replicas, windows."""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import openmm

from ..errors import InputError
from ..locks import lock
from .checkpoint import Checkpoint
from .config import SimulationConfig
from .folder import (
    describe,
    find_checkpoint,
    fingerprints,
    is_finished,
    record_config,
    record_versions,
)
from .interrupt import Stop
from .loop import Run
from .preparation import build_simulation
from .progress import Observer, Progress, Result, RunLog
from .reporters import check_format
from .structure import Structure

__all__ = ["Observer", "Progress", "Result", "run", "run_windows", "window_folder"]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_WARM_UP = 5  # evaluations


def run(config: SimulationConfig, folder: Path, structure: Structure, observer: Observer) -> Result:
    """Run a simulation in its folder, or go on with it from its last checkpoint.

    A finished run goes on where a longer one is asked for.

    The folder gets the configuration, versions, ``topology.pdb``, the trajectory, ``state.csv``,
    ``log.txt``, checkpoints and, at the end, ``final.pdb``; and ``warnings.csv`` where the run has
    left what occurred in the training of its potential. Mixed runs also have ``region.json``.
    Replicas run one after the other, each in a folder of its own in this one; those that are
    complete are left alone.

    Raises
    ------
    InputError
        The folder holds a finished or a different run; an input is wrong; the simulation blew up
        (the last good state is then in the folder); the disk is full.
    """
    check_format(config.trajectory)
    if config.replicas == 1:
        return _run_one(config, folder, structure, observer, Stop())
    if (folder / "config.yaml").exists():
        raise InputError(f"'{folder}' holds a run without replicas: give another output=")
    runs = [
        (
            f"replica {k + 1} of {config.replicas}, seed {config.seed + k}",
            config.model_copy(update={"seed": config.seed + k, "replicas": 1}),
            folder / f"replica-{k + 1}",
        )
        for k in range(config.replicas)
    ]
    result = _run_several(runs, structure, observer)
    if result is None:
        raise InputError(
            f"'{folder}' holds {config.replicas} finished replicas: ask for more or longer ones, "
            "give another output= or remove the folder"
        )
    return result


def run_windows(
    config: SimulationConfig,
    lambdas: Sequence[float],
    folder: Path,
    structure: Structure,
    observer: Observer,
) -> bool:
    """Run a mixed simulation at each λ, in a folder of its own (`window_folder`) in this one.

    Windows that are finished are left alone; those that were stopped go on.

    Returns
    -------
    bool
        Whether all are finished; they are not if a signal asked to stop.

    Raises
    ------
    InputError
        The configuration has no force field or no thermostat, or asks for a λ or for replicas; and
        as for `run`.
    """
    if config.force_field is None:
        raise InputError("a free energy from force field to potential needs the key 'force_field'")
    if config.ensemble == "nve" or config.temperature == 0:
        raise InputError("free energies are those of a temperature: set 'ensemble' to nvt or npt, "
                         "and 'temperature' to more than 0")  # fmt: skip
    if config.lambda_interpolate is not None or config.replicas > 1:
        raise InputError("windows have their own λ and seeds: leave out lambda_interpolate and "
                         "replicas")  # fmt: skip
    check_format(config.trajectory)
    runs = [
        (
            f"window {k + 1} of {len(lambdas)}, λ = {value:g}",
            # the seed follows from λ, so that windows can be added between others
            config.model_copy(
                update={"seed": config.seed + round(10_000 * value), "lambda_interpolate": value}
            ),
            window_folder(folder, value),
        )
        for k, value in enumerate(lambdas)
    ]
    result = _run_several(runs, structure, observer)
    return result is None or result.finished


def window_folder(folder: Path, value: float) -> Path:
    """Return the run folder of the window at a λ."""
    return folder / f"lambda-{value:.4f}"


def _run_several(
    runs: Sequence[tuple[str, SimulationConfig, Path]], structure: Structure, observer: Observer
) -> Result | None:
    """Run what is not finished; return the result of the last one, `None` if there was nothing."""
    result, stop = None, Stop()
    for title, config, place in runs:
        if is_finished(config, place, fingerprints(config, structure)):
            continue
        if stop.requested:  # while the one before came to its end
            assert result is not None
            return replace(result, finished=False)
        observer.message(title)
        result = _run_one(config, place, structure, observer, stop)
        if not result.finished:
            break
    return result


def _run_one(
    config: SimulationConfig, folder: Path, structure: Structure, observer: Observer, stop: Stop
) -> Result:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with lock(folder, "running"), _tidy(folder), stop.listening():
            inputs = fingerprints(config, structure)
            checkpoint = find_checkpoint(config, folder, inputs)
            simulation = build_simulation(config, structure)
            _warm_up(simulation.context)
            log = RunLog(folder / "log.txt", observer)
            this = Run(config, folder, structure, simulation, inputs, log, stop)
            if checkpoint is None:
                describe(config, folder, structure, this.region)
            else:
                record_config(config, folder)  # it may be longer now, or on another platform
            step = None if checkpoint is None else checkpoint.step
            made_with = record_versions(config, folder, simulation, step)
            made_with["seed"] = f"{config.seed}"
            log.note(", ".join(f"{name} {value}" for name, value in made_with.items()))
            try:
                if checkpoint is None:
                    this.start()
                else:
                    this.go_on(checkpoint)
                result = this.to_the_end()
            except InputError as error:
                log.note(f"error: {error}")
                raise
            ending = "finished" if result.finished else "stopped"
            log.note(f"{ending} at step {result.step:,} of {result.total:,}")
            return result
    except KeyboardInterrupt:  # at once: what was done since the last checkpoint is lost
        checkpoint = Checkpoint.load(folder / "checkpoint")
        if checkpoint is None:
            raise
        finished = checkpoint.completes(config.total_steps)
        return Result(finished, checkpoint.step, config.total_steps, speed=0.0)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise InputError(
            f"the disk is full ({error.strerror}): cannot write in '{folder}'; "
            f"{_saved_so_far(folder)}"
        ) from error


@contextmanager
def _tidy(folder: Path) -> Iterator[None]:
    """Remove the folder of a run that was refused before it wrote anything."""
    try:
        yield
    except InputError:
        if [path.name for path in folder.iterdir()] == [".lock"]:
            (folder / ".lock").unlink()
            folder.rmdir()
        raise


def _saved_so_far(folder: Path) -> str:
    checkpoint = Checkpoint.load(folder / "checkpoint")
    if checkpoint is None:
        return "nothing was saved yet: make room and start again"
    return (
        f"the run is saved up to step {checkpoint.step:,}: make room, and the same command goes on "
        "from there"
    )


def _warm_up(context: openmm.Context) -> None:
    """Evaluate the forces until TorchScript has optimised the network.

    Its first evaluations round differently, and a run that goes on should not notice.
    """
    for _ in range(_WARM_UP):
        context.getState(forces=True)
