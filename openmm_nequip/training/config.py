"""The configuration of a training run: every key of the YAML file, its meaning and default."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Optional

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    create_model,
    field_validator,
    model_validator,
)

from ..architectures import Architecture
from ..config import Config, locate, search_folders

_FILES = ("file", "val_file", "test_file", "split_file", "isolated_atoms_file")


class DataConfig(Config):
    """Where the reference calculations are and how they are divided.

    Parameters
    ----------
    file
        Data file, or several, in any format that `openmm_nequip.data` reads. Environment
        variables (``${DATA}/ethanol.npz``) and ``~`` are filled in, here and in the other paths.
    format, keys
        Override what is found out from the file: name of the format; names of the labels in it,
        as in ``keys: {energy: dft_energy}``.
    energy_unit, length_unit, force_unit
        Units of `file`, instead of what format or file tell; as format and keys, those of other
        files too if their names end alike.
    require
        Labels without which a frame is bad.
    n_train, n_val, n_test
        A number of frames or a fraction. Left out: validation gets a tenth (with `n_train` given:
        50 frames at least, if there are as many), training all that remains, the test set
        nothing.
    val_file, test_file
        Separate files for validation and testing.
    split_file
        Indices of the frames of each set (.npz, .json; the ``split.json`` of another run, which
        belongs to the same frames).
    on_duplicates
        What to do with a configuration that is in two sets.
    on_bad_frames
        ``'error'`` refuses unconverged or broken frames, ``'skip'`` leaves them out, with a note.
    reference_energies
        ``'auto'``, ``'isolated_atoms'``, ``'least_squares'`` or eV by element; of new potentials.
    isolated_atoms_file
        Frames of single atoms, for the reference energies; those in the data files count too.
        Without a cell, or in a box that is larger than the cutoff and 6 Å.
    stream_from_disk
        Keep frames on disk instead of in memory; left out: if the data is too large for memory.
    num_workers
        Processes that prepare batches; 0 prepares them in the training process.
    """

    file: str | list[str]
    format: str | None = None
    keys: dict[str, str] | None = None
    energy_unit: str | None = None
    length_unit: str | None = None
    force_unit: str | None = None
    require: tuple[Literal["energy", "forces", "stress"], ...] = ("energy", "forces")
    n_train: NonNegativeInt | NonNegativeFloat | None = None
    n_val: NonNegativeInt | NonNegativeFloat | None = None
    n_test: NonNegativeInt | NonNegativeFloat | None = None
    val_file: str | list[str] | None = None
    test_file: str | list[str] | None = None
    split_file: str | None = None
    on_duplicates: Literal["error", "warn", "ignore"] = "error"
    on_bad_frames: Literal["error", "skip"] = "error"
    reference_energies: Literal["auto", "isolated_atoms", "least_squares"] | dict[str, float] = (
        "auto"
    )
    isolated_atoms_file: str | None = None
    stream_from_disk: bool | None = None
    num_workers: NonNegativeInt = 0

    @field_validator(*_FILES, mode="before")
    @classmethod
    def _expanded(cls, value: Any) -> Any:
        if isinstance(value, list):
            return [cls._expanded(item) for item in value]
        if not isinstance(value, str):
            return value
        expanded = os.path.expanduser(os.path.expandvars(value))
        unset = re.search(r"\$\{?(\w+)", expanded)
        if unset:
            raise ValueError(f"environment variable {unset[1]} is not set")
        return expanded


def _optional_fields() -> dict[str, Any]:
    """Every key of the architecture, with its own type and checks, each optional."""
    return {
        name: (Optional[field.annotation], Field(default=None, **_limits(field)))  # noqa: UP045
        for name, field in Architecture.model_fields.items()
    }


def _limits(field: Any) -> dict[str, Any]:
    names = ("gt", "ge", "lt", "le", "min_length")
    return {n: getattr(limit, n) for limit in field.metadata for n in names if hasattr(limit, n)}


#: The `model` section: a preset and any key of the architecture, which takes precedence. What is
#: left out is that of `preparation.network`, depends on the data, or is the architecture's default.
ModelConfig: Any = create_model(
    "ModelConfig",
    __base__=Config,
    **{"size": (Optional[Literal["S", "M", "L"]], None), **_optional_fields()},  # noqa: UP045
)


class LossWeights(Config):
    """Weights of the mean losses of energy, eV per atom, forces, eV/Å, and stress, eV/Å³.

    Stress errors are numerically small, hence their weight.
    """

    energy: NonNegativeFloat = 1.0
    forces: NonNegativeFloat = 1.0
    stress: NonNegativeFloat = 100.0


class TrainingConfig(Config):
    """How the network is fitted.

    Parameters
    ----------
    batch_size
        Frames per optimizer step, over all processes.
    max_epochs
        Left out: enough epochs for 8000 optimizer steps with 50 training frames, growing with the
        square root of their number; a quarter of that for fine-tuning; at least 10 epochs.
    max_time
        Stop after this much training time, however often interrupted: seconds, ``'90min'``,
        ``'2h'``, ``'1d'`` or ``'hh:mm:ss'``.
    optimizer, learning_rate, weight_decay, amsgrad
        ``'soap'``, Adam along the principal axes of the gradients; ``'adam'`` or ``'adamw'``. The
        rate, if left out, is 0.02 for SOAP, 0.03 when it fine-tunes, 0.01 for the others.
        `amsgrad` is for Adam and AdamW.
    schedule
        ``'cosine'`` to `min_learning_rate` at the end of the run; ``'plateau'``: times
        `schedule_factor` when the validation loss has not improved for more than
        `schedule_patience` validations, the run ends below `min_learning_rate`; ``'step'``: times
        `schedule_factor` every `schedule_step_epochs`; ``'constant'``.
    warmup_epochs
        Linear rise of the learning rate at the start.
    loss, loss_weights, huber_delta
        ``'mse'`` or ``'huber'``; weights of energy per atom, forces and stress; where the Huber
        function becomes linear, in eV and Å.
    ema_decay
        Averaging of the weights; 0 switches it off.
    gradient_clip
        Largest norm of the gradient.
    early_stopping
        End after this many validations without improvement.
    val_interval
        Epochs between validations; left out: about every 100 steps, but not so often that
        validation takes more than a small part of the time.
    checkpoint_minutes
        Checkpoints are written at the end of epochs (as often as costs at most 5 % of the time)
        and after this many minutes within an epoch.
    fine_tune_from
        Start from the weights of this model file or bundled potential.
    fine_tune_shifts
        Whether fine-tuning keeps the energy shifts of that model or estimates them from the data,
        as is needed for another level of theory. Left out: estimated, if the data has energies.
    engine
        ``'fused'``: the compiled kernels; ``'reference'``: plain PyTorch, the same function;
        ``'auto'``: the kernels where they can be compiled (Numba on CPUs, Triton on GPUs).
    accelerator, devices, num_nodes, strategy
        As for Lightning's `Trainer`.
    num_threads
        CPU threads of each process; left out: as many as there are cores, or OMP_NUM_THREADS.
    """

    batch_size: PositiveInt = 5
    max_epochs: PositiveInt | None = None
    max_time: PositiveFloat | None = None
    optimizer: Literal["soap", "adam", "adamw"] = "soap"
    learning_rate: PositiveFloat = 0.02
    weight_decay: NonNegativeFloat = 0.0
    amsgrad: bool = True
    schedule: Literal["cosine", "plateau", "step", "constant"] = "cosine"
    min_learning_rate: NonNegativeFloat = 1e-5
    schedule_factor: float = Field(default=0.5, gt=0.0, lt=1.0)
    schedule_patience: NonNegativeInt = 25
    schedule_step_epochs: PositiveInt = 100
    warmup_epochs: NonNegativeFloat = 0.0
    loss: Literal["mse", "huber"] = "huber"
    loss_weights: LossWeights = LossWeights()
    huber_delta: PositiveFloat = 0.02
    ema_decay: float = Field(default=0.99, ge=0.0, lt=1.0)
    gradient_clip: PositiveFloat | None = None
    early_stopping: PositiveInt | None = None
    val_interval: PositiveInt | None = None
    checkpoint_minutes: PositiveFloat = 5.0
    fine_tune_from: str | None = None
    fine_tune_shifts: Literal["keep", "estimate"] | None = None
    engine: Literal["auto", "fused", "reference"] = "auto"
    accelerator: Literal["auto", "cpu", "gpu", "cuda"] = "auto"
    devices: PositiveInt | Literal["auto"] = 1
    num_nodes: PositiveInt = 1
    strategy: Literal[
        "auto",
        "ddp",
        "ddp_find_unused_parameters_false",
        "ddp_find_unused_parameters_true",
        "single_device",
    ] = "auto"
    num_threads: PositiveInt | None = None

    @model_validator(mode="before")
    @classmethod
    def _rate_of_the_optimizer(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if values.get("optimizer", "soap") != "soap":
            return {"learning_rate": 0.01, **values}
        if values.get("fine_tune_from") is not None:
            return {"learning_rate": 0.03, **values}
        return values

    @field_validator("max_time", mode="before")
    @classmethod
    def _seconds(cls, value: Any) -> Any:
        return parse_duration(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> "TrainingConfig":
        if self.schedule == "plateau" and self.min_learning_rate > self.learning_rate:
            raise ValueError("'min_learning_rate' must not exceed 'learning_rate'")
        if not any(self.loss_weights.model_dump().values()):
            raise ValueError("one of 'loss_weights' must be positive")
        return self


class TrainConfig(Config):
    """A training run; the smallest file has `data.file` and `data.n_train`.

    Parameters
    ----------
    data, model, training
        Sections, see their classes.
    seed
        Determines the split, the initial weights and the order of the frames.
    output
        Run folder; left out: ``runs/<name of the configuration file>``.
    name
        Name of the model file; left out: that of the run folder.
    charge, multiplicity
        Net charge (e) and spin multiplicity of the systems for which the potential is meant. The
        model file says so, and systems that have others are refused; left out: nothing is known,
        or in fine-tuning what the start potential says, unless null is given.
    description, licence, citation
        What the model file says of the potential to people.
    """

    data: DataConfig
    model: ModelConfig = ModelConfig()  # type: ignore[valid-type]
    training: TrainingConfig = TrainingConfig()
    seed: NonNegativeInt = 0
    output: Path | None = None
    name: str | None = Field(default=None, pattern=r"^[\w.+-]+$")
    charge: int | None = None
    multiplicity: PositiveInt | None = None
    description: str = ""
    licence: str = ""
    citation: str = ""


def find_files(config: TrainConfig, beside: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Return the configuration with paths that hold from the working directory.

    Parameters
    ----------
    config
        Of the file and the command line together.
    beside, overrides
        As for `openmm_nequip.config.search_folders`, which says where they are looked for.
    """

    data: dict[str, str | list[str]] = {}
    for key in _FILES:
        names, folders = getattr(config.data, key), search_folders(f"data.{key}", beside, overrides)
        if isinstance(names, list):
            data[key] = [locate(name, folders, Path.exists) for name in names]
        elif names is not None:
            data[key] = locate(names, folders, Path.exists)  # a folder, of DeePMD
    training, start = config.training, config.training.fine_tune_from
    if start is not None:
        start = locate(start, search_folders("training.fine_tune_from", beside, overrides))
        training = training.model_copy(update={"fine_tune_from": start})
    sections = {"data": config.data.model_copy(update=data), "training": training}
    return config.model_copy(update=sections)


def parse_duration(text: str) -> float:
    """Turn ``'90s'``, ``'90min'``, ``'2h'``, ``'1d'`` or ``'hh:mm:ss'`` into seconds.

    Raises
    ------
    ValueError
        The text is none of these.
    """
    text = text.strip()
    if re.fullmatch(r"(\d+:)?\d+:\d\d:\d\d", text):
        parts = [int(part) for part in text.split(":")]
        return float(sum(n * unit for n, unit in zip(parts[::-1], (1, 60, 3600, 86400))))  # noqa: B905
    match = re.fullmatch(r"([\d.]+)\s*(s|min|h|d)?", text)
    if not match:
        raise ValueError(f"'{text}' is not a time such as 90s, 90min, 2h, 1d or 01:30:00")
    return float(match[1]) * {"s": 1, "min": 60, "h": 3600, "d": 86400, None: 1}[match[2]]
