"""What a simulation is: the keys of ``simulate``'s YAML file."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from ..config import Config

_FEMTOSECONDS = {"fs": 1.0, "ps": 1e3, "ns": 1e6, "us": 1e9, "µs": 1e9, "μs": 1e9}
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}


def _quantity(text: str, units: dict[str, float]) -> float:
    match = re.fullmatch(r"\s*([-+.\deE]+?)\s*([A-Za-zµμ]+)\s*", text)
    try:
        value, unit = float(match[1]), match[2]  # type: ignore[index]
        factor = units[unit]
    except (TypeError, ValueError, KeyError):
        known = ", ".join(unit for unit in units if unit.isascii())
        raise ValueError(f"give a number and one of the units {known}, like '10 ps'") from None
    if value <= 0:
        raise ValueError("must be greater than zero")
    return value * factor


def _timestep(value: Any) -> Any:
    return _quantity(value, _FEMTOSECONDS) if isinstance(value, str) else value


def _text(value: Any) -> Any:
    """Leave it to the check of the unit to refuse a bare number."""
    return str(value) if isinstance(value, int | float) else value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


Interval = Annotated[int, Field(gt=0)] | Annotated[str, BeforeValidator(_text)]


class SimulationConfig(Config):
    """One molecular dynamics run.

    Times are written with their unit (``10 ps``, ``50 fs``); an interval may also be a number
    of steps.

    Attributes
    ----------
    structure
        A file (PDB or mmCIF, or whatever ASE reads) or the name of a bundled example.
    potential
        A model file or the name of a bundled potential; the bundled default if not given.
    ensemble
        'nve' (Verlet), 'nvt' (LangevinMiddle) or 'npt' (LangevinMiddle and a Monte Carlo
        barostat; to it every atom is a molecule of its own).
    temperature
        K; of the thermostat, and of the initial velocities in every ensemble.
    pressure
        bar.
    timestep
        fs.
    time, steps
        Length of the run: give one of the two.
    friction
        1/ps.
    barostat_interval
        Steps between two attempts to change the volume.
    minimise
        Go to the nearest minimum of the energy first. The kinetic energy then given to the atoms
        is shared with the vibrations: without a thermostat the temperature falls to about half.
    periodic
        Whether to use the structure's box; by default wherever it has one.
    seed
        Of the velocities, the thermostat and the barostat.
    platform, precision, device, force, engine
        OpenMM platform ('CPU', 'CUDA', ...) and the options of ``MLPotential.createSystem``. The
        engine is 'auto' (fused wherever it works), 'fused' or 'reference'.
    num_threads
        CPU threads of the network; left out: OMP_NUM_THREADS, else one below 64 atoms (there
        more cost more than they bring, and very much so on a busy machine) and all above.
    log_interval, trajectory_interval
        Between two rows of the state log, and two frames of the trajectory.
    checkpoint_interval
        Simulated time, steps, or time on the clock (``2 min``).
    trajectory
        Format: 'dcd', 'xtc' (compressed, to 0.01 Å) or 'h5' (MDTraj's, written at the end).
    output
        Run folder; ``runs/<name of the configuration file>`` if not given.
    """

    structure: str
    potential: str | None = None
    ensemble: Annotated[Literal["nve", "nvt", "npt"], BeforeValidator(_lower)] = "nvt"
    temperature: float = Field(300.0, ge=0)
    pressure: float = 1.0
    timestep: Annotated[float, BeforeValidator(_timestep), Field(gt=0)] = 0.5
    time: Annotated[str | None, BeforeValidator(_text)] = None
    steps: int | None = Field(None, gt=0)
    friction: float = Field(1.0, gt=0)
    barostat_interval: int = Field(25, gt=0)
    minimise: bool = True
    periodic: bool | None = None
    seed: int = Field(1, ge=1, lt=2**31)  # 0 would mean a random seed to OpenMM
    platform: str | None = None
    precision: Literal["single", "double"] | None = None
    device: str | None = None
    num_threads: int | None = Field(None, gt=0)
    force: Literal["auto", "torch", "python-torch", "python"] = "auto"
    engine: Literal["auto", "fused", "reference"] = "auto"
    log_interval: Interval = "10 fs"
    trajectory_interval: Interval = "50 fs"
    checkpoint_interval: Interval = "2 min"
    trajectory: Annotated[Literal["dcd", "xtc", "h5"], BeforeValidator(_lower)] = "dcd"
    output: str | None = None

    @field_validator("time", "log_interval", "trajectory_interval")
    @classmethod
    def _is_time(cls, value: str | int | None) -> str | int | None:
        if isinstance(value, str):
            _quantity(value, _FEMTOSECONDS)
        return value

    @field_validator("checkpoint_interval")
    @classmethod
    def _is_any_time(cls, value: str | int) -> str | int:
        if isinstance(value, str):
            _quantity(value, _FEMTOSECONDS | _SECONDS)
        return value

    @model_validator(mode="after")
    def _has_length(self) -> "SimulationConfig":
        if (self.time is None) == (self.steps is None):
            raise ValueError(
                "give the length of the run, as either 'time: 10 ps' or 'steps: 20000'"
            )
        return self

    def _to_steps(self, duration: str | int) -> int:
        if isinstance(duration, int):
            return duration
        return max(1, round(_quantity(duration, _FEMTOSECONDS) / self.timestep))

    @property
    def total_steps(self) -> int:
        """Length of the run in steps."""
        return self._to_steps(self.time or self.steps or 0)

    @property
    def log_steps(self) -> int:
        """Steps between two rows of the state log."""
        return self._to_steps(self.log_interval)

    @property
    def trajectory_steps(self) -> int:
        """Steps between two frames."""
        return self._to_steps(self.trajectory_interval)

    @property
    def checkpoint_steps(self) -> int | None:
        """Steps between two checkpoints; `None` if they go by the clock."""
        if self.checkpoint_seconds is None:
            return self._to_steps(self.checkpoint_interval)
        return None

    @property
    def checkpoint_seconds(self) -> float | None:
        """Seconds between two checkpoints; `None` if they go by steps."""
        text = self.checkpoint_interval
        if isinstance(text, str) and text.split()[-1].lstrip("0123456789.eE+-") in _SECONDS:
            return _quantity(text, _SECONDS)
        return None
