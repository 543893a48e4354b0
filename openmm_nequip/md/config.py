"""What a simulation is: the keys of ``simulate``'s YAML file."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from ..config import Config
from .stages import Stages

_FEMTOSECONDS = {"fs": 1.0, "ps": 1e3, "ns": 1e6, "us": 1e9, "µs": 1e9, "μs": 1e9}
_LONGEST_STEP = 20.0  # fs; no run is right with more
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}


def _quantity(text: str, units: dict[str, float], least: float = 1e-300) -> float:
    match = re.fullmatch(r"\s*([-+.\deE]+?)\s*([A-Za-zµμ]+)\s*", text)
    try:
        value, unit = float(match[1]), match[2]  # type: ignore[index]
        factor = units[unit]
    except (TypeError, ValueError, KeyError):
        known = ", ".join(unit for unit in units if unit.isascii())
        raise ValueError(f"give a number and one of the units {known}, like '10 ps'") from None
    if value < least:
        raise ValueError("must be greater than zero" if least else "must not be negative")
    return value * factor


def _timestep(value: Any) -> Any:
    value = _quantity(value, _FEMTOSECONDS) if isinstance(value, str) else value
    if isinstance(value, int | float) and value > _LONGEST_STEP:
        raise ValueError(f"{value:g} fs is longer than atoms vibrate: 0.5 fs is usual")
    return value


def _text(value: Any) -> Any:
    """Leave it to the check of the unit to refuse a bare number."""
    return str(value) if isinstance(value, int | float) else value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


Interval = Annotated[int, Field(gt=0)] | Annotated[str, BeforeValidator(_text)]
Duration = Annotated[int, Field(ge=0)] | Annotated[str, BeforeValidator(_text)]
_HEATING, _EQUILIBRATION = "5 ps", "20 ps"  # of a system with a force field


class SimulationConfig(Config):
    """One molecular dynamics run, or several that differ in their seed.

    Times are written with their unit (``10 ps``, ``50 fs``); an interval, heating and
    equilibration may also be a number of steps. Paths are looked for as
    `openmm_nequip.md.inputs.find_files` says.

    Attributes
    ----------
    structure
        A file (PDB or mmCIF, or whatever ASE reads) or the name of a bundled example; with a
        force field also AMBER coordinates (inpcrd, rst7) and GROMACS's gro.
    potential
        A model file or the name of a bundled potential; the bundled default if not given.
    force_field
        For ML/MM: files of OpenMM force fields, as a list, or one file: AMBER prmtop, GROMACS
        top, or an OpenMM System in XML.
    ml_region
        Atoms that the potential describes, in MDTraj's selection language (``resname LIG``); left
        out: all of them, and there is no force field.
    lambda_interpolate
        Of the region's energy, how much is the potential's (1) and how much the force field's (0);
        left out: all of it is the potential's. The log then has dE/dλ.
    ensemble
        'nve' (Verlet), 'nvt' (LangevinMiddle) or 'npt' (LangevinMiddle and a Monte Carlo
        barostat; without a force field every atom is a molecule of its own to it).
    temperature
        K; of the thermostat, and of the initial velocities in every ensemble.
    pressure
        bar.
    timestep
        fs.
    heating
        Before the run, the temperature rises to its value in steps; left out: 5 ps where there
        is a force field, none otherwise.
    equilibration
        After that and still before the run, with the barostat; left out: 20 ps where there is a
        force field, none otherwise.
    time, steps
        Length of the run: give one of the two. Step 0 is where equilibration ends.
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
    replicas
        Number of runs, one after another, with the seeds ``seed``, ``seed + 1``, ...
    platform, precision, device, force, engine
        OpenMM platform ('CPU', 'CUDA', ...) and the options of ``MLPotential.createSystem``. The
        engine is 'auto' (fused wherever it works), 'fused' or 'reference'.
    num_threads
        CPU threads of the network; left out: OMP_NUM_THREADS, else one below 64 atoms (there
        more cost more than they bring, and very much so on a busy machine) and all above.
    log_interval, trajectory_interval
        Between two rows of the state log, and two frames of the trajectory.
    ml_trajectory_interval
        Between two frames of the ML region alone; left out: none are written.
    checkpoint_interval
        Simulated time, steps, or time on the clock (``2 min``).
    trajectory
        Format: 'dcd', 'xtc' (compressed, to 0.01 Å) or 'h5' (MDTraj's, written at the end).
    output
        Run folder; ``runs/<name of the configuration file>`` if not given.
    """

    structure: str
    potential: str | None = None
    force_field: str | list[str] | None = None
    ml_region: str | None = None
    lambda_interpolate: float | None = Field(None, ge=0, le=1)
    ensemble: Annotated[Literal["nve", "nvt", "npt"], BeforeValidator(_lower)] = "nvt"
    temperature: float = Field(300.0, ge=0)
    pressure: float = 1.0
    timestep: Annotated[float, BeforeValidator(_timestep), Field(gt=0)] = 0.5
    heating: Duration | None = None
    equilibration: Duration | None = None
    time: Annotated[str | None, BeforeValidator(_text)] = None
    steps: int | None = Field(None, gt=0)
    friction: float = Field(1.0, gt=0)
    barostat_interval: int = Field(25, gt=0)
    minimise: bool = True
    periodic: bool | None = None
    seed: int = Field(1, ge=1, lt=2**31)  # 0 would mean a random seed to OpenMM
    replicas: int = Field(1, gt=0)
    platform: str | None = None
    precision: Literal["single", "double"] | None = None
    device: str | None = None
    num_threads: int | None = Field(None, gt=0)
    force: Literal["auto", "torch", "python-torch", "python"] = "auto"
    engine: Literal["auto", "fused", "reference"] = "auto"
    log_interval: Interval = "10 fs"
    trajectory_interval: Interval = "50 fs"
    ml_trajectory_interval: Interval | None = None
    checkpoint_interval: Interval = "2 min"
    trajectory: Annotated[Literal["dcd", "xtc", "h5"], BeforeValidator(_lower)] = "dcd"
    output: str | None = None

    @field_validator("heating", "equilibration")
    @classmethod
    def _is_duration(cls, value: str | int | None) -> str | int | None:
        if isinstance(value, str):
            _quantity(value, _FEMTOSECONDS, least=0.0)
        return value

    @field_validator("time", "log_interval", "trajectory_interval", "ml_trajectory_interval")
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
        if self.time is not None and _quantity(self.time, _FEMTOSECONDS) < self.timestep:
            raise ValueError(f"'time: {self.time}' is less than a time step, {self.timestep:g} fs")
        return self

    @model_validator(mode="after")
    def _is_mixed_or_not(self) -> "SimulationConfig":
        if self.force_field is not None and self.ml_region is None:
            raise ValueError(
                "'force_field' needs 'ml_region', the atoms that the potential describes, like "
                "'ml_region: resname LIG'; leave it out if they are all"
            )
        if self.force_field is not None:
            return self
        for key in ("ml_region", "lambda_interpolate", "ml_trajectory_interval"):
            if getattr(self, key) is not None:
                raise ValueError(f"'{key}' needs 'force_field', which describes the other atoms")
        return self

    def _to_steps(self, duration: str | int) -> int:
        if isinstance(duration, int):
            return duration
        return max(1, round(_quantity(duration, _FEMTOSECONDS) / self.timestep))

    def _before(self, duration: str | int | None, default: str) -> int:
        if duration is None:
            return self._to_steps(default) if self.force_field else 0
        if isinstance(duration, int):
            return duration
        return round(_quantity(duration, _FEMTOSECONDS, least=0.0) / self.timestep)

    @property
    def stages(self) -> Stages:
        """What happens when."""
        return Stages(
            self.heating_steps, self.equilibration_steps, self.temperature, self.barostat_interval
        )

    @property
    def heating_steps(self) -> int:
        """Steps of heating."""
        return self._before(self.heating, _HEATING)

    @property
    def equilibration_steps(self) -> int:
        """Steps between heating and the run itself."""
        return self._before(self.equilibration, _EQUILIBRATION)

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
    def ml_trajectory_steps(self) -> int | None:
        """Steps between two frames of the ML region; `None` for no such frames."""
        interval = self.ml_trajectory_interval
        return None if interval is None else self._to_steps(interval)

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
