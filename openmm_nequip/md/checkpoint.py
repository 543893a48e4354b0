"""Checkpoints: everything a run needs to go on after it was stopped or killed."""

from dataclasses import asdict, dataclass, field
from json import JSONDecodeError, dumps, loads
from pathlib import Path

import openmm

from ..errors import InputError
from ..modelfile import write_atomically
from .reporters import Length

_RECORD = "checkpoint.json"
_LARGEST_SEED = 2**31 - 1
_SEEDS_APART = 7919  # for each step, so that runs with neighbouring seeds do not share them


@dataclass(frozen=True)
class Checkpoint:
    """How far a run had come.

    The state itself lies beside the record in two files: OpenMM's binary checkpoint, which
    restores the random numbers too but only on the same platform and version, and a portable
    state. The record names both and is renamed into place last, so it is always complete.

    Attributes
    ----------
    step
        Steps done.
    log, trajectory, region
        Length of the files at that step; whatever is behind it was written later. `region` is
        `None` where there is no trajectory of the ML region.
    seconds
        Time spent on these steps, s.
    inputs
        Fingerprints of structure and potential.
    finished
        Whether the run had come to its end, and wrote what it writes there.
    """

    step: int
    log: Length
    trajectory: Length
    seconds: float
    inputs: dict[str, str] = field(default_factory=dict)
    finished: bool = False
    region: Length | None = None

    def save(self, folder: Path, context: openmm.Context) -> None:
        """Write the checkpoint of a run whose log and trajectory are already on the disk."""
        binary, portable = _files(folder, self.step)
        write_atomically(binary, context.createCheckpoint())
        state = context.getState(positions=True, velocities=True, parameters=True)
        write_atomically(portable, openmm.XmlSerializer.serialize(state).encode())
        write_atomically(folder / _RECORD, (dumps(asdict(self), indent=2) + "\n").encode())
        for old in [*folder.glob("*.chk"), *folder.glob("*.xml")]:
            if old not in (binary, portable):
                old.unlink()

    @classmethod
    def load(cls, folder: Path) -> "Checkpoint | None":
        """Read the record in `folder`; `None` if there is none.

        Raises
        ------
        InputError
            The record is damaged.
        """
        path = folder / _RECORD
        try:
            values = loads(path.read_text())
            log, trajectory = Length(*values.pop("log")), Length(*values.pop("trajectory"))
            region = values.pop("region", None)
            return cls(
                log=log,
                trajectory=trajectory,
                region=None if region is None else Length(*region),
                **values,
            )
        except FileNotFoundError:
            return None
        except (JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
            raise InputError(
                f"checkpoint '{path}' is damaged; remove the run folder and start again"
            ) from None

    def completes(self, steps: int) -> bool:
        """Return whether nothing is left to do of a run of so many steps."""
        return self.finished and self.step == steps

    def restore(self, folder: Path, context: openmm.Context) -> bool:
        """Put the state into `context`.

        Returns
        -------
        bool
            True if all of it, with the random numbers, could be restored; False if only the
            portable state could (another platform, machine or version of OpenMM).

        Raises
        ------
        InputError
            Neither can be read.
        """
        binary, portable = _files(folder, self.step)
        try:
            context.loadCheckpoint(binary.read_bytes())
            return True
        except (openmm.OpenMMException, OSError):
            self._reseed(context)
        try:
            context.setState(openmm.XmlSerializer.deserialize(portable.read_text()))
        except (openmm.OpenMMException, OSError, ValueError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"checkpoint '{portable}' is damaged ({reason}): move the run folder away and "
                "start again; what was written until now stays readable by 'analyze'"
            ) from None
        return False

    def _reseed(self, context: openmm.Context) -> None:
        """Draw other random numbers than at the first step."""
        integrator = context.getIntegrator()
        members = [integrator]
        if isinstance(integrator, openmm.CompoundIntegrator):
            members = [integrator.getIntegrator(k) for k in range(integrator.getNumIntegrators())]
        for random in [*members, *context.getSystem().getForces()]:
            if hasattr(random, "setRandomNumberSeed"):
                seed = random.getRandomNumberSeed() + _SEEDS_APART * self.step
                random.setRandomNumberSeed(1 + seed % _LARGEST_SEED)
        context.reinitialize()


def _files(folder: Path, step: int) -> tuple[Path, Path]:
    return folder / f"{step}.chk", folder / f"{step}.xml"
