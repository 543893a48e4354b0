"""The tasks: which runs each of them consists of, and the configuration of every run."""

import hashlib
import itertools
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openmm_nequip.config import load_config
from openmm_nequip.errors import InputError
from openmm_nequip.modelfile import find_model, read_header
from openmm_nequip.training.config import TrainConfig

CONFIGS = Path(__file__).parent / "configs"
MOLECULES = (
    "aspirin", "azobenzene", "benzene", "ethanol", "malonaldehyde",
    "naphthalene", "paracetamol", "salicylic", "toluene", "uracil",
)  # fmt: skip
STARTS = ("scratch", "fine-tuned")
#: What the configuration of rMD17 with few frames is compared with: one choice is another.
CHANGES = {
    "as it is": [],
    "l_max 2": ["model.l_max=2", "model.num_features=[64,32,16]"],
    "l_max 1": ["model.l_max=1", "model.num_features=[64,32]"],
    "full parity": ["model.parity=true"],
    "half the features": ["model.num_features=[32,16,8,8]"],
    "type embedding of 16": ["model.type_embed_num_features=16"],
    "3 layers": ["model.num_layers=3"],
    "a hidden layer before the energy": ["model.readout_mlp_hidden_layers_depth=1"],
    "r_max 3.5": ["model.r_max=3.5"],
    "r_max 5": ["model.r_max=5.0"],
    "4 Bessel functions": ["model.num_bessels=4"],
    "16 Bessel functions": ["model.num_bessels=16"],
    "envelope of power 3": ["model.polynomial_cutoff_p=3.0"],
    "envelope of power 2": ["model.polynomial_cutoff_p=2.0"],
    "radial network of 32": ["model.radial_mlp_width=32"],
    "exact radial functions": ["model.radial=exact"],
    "Adam at 0.01": ["training.optimizer=adam", "training.learning_rate=0.01"],
    "rate 0.01": ["training.learning_rate=0.01"],
    "rate 0.04": ["training.learning_rate=0.04"],
    "constant rate": ["training.schedule=constant"],
    "weight decay 0.01": ["training.weight_decay=0.01"],
    "no averaging": ["training.ema_decay=0"],
    "mean square loss": ["training.loss=mse"],
    "loss linear from 0.005": ["training.huber_delta=0.005"],
    "energies weigh a tenth": ["training.loss_weights.energy=0.1"],
    "energies weigh 10 times": ["training.loss_weights.energy=10"],
    "10 frames a step": ["training.batch_size=10", "training.max_epochs=600"],
    "half the steps": ["training.max_epochs=150"],
    "twice the steps": ["training.max_epochs=600"],
    "what train does by itself": [
        "model.r_max=5.0", "model.l_max=2", "model.num_features=[64,32,16]",
        "training.max_epochs=800",
    ],
}  # fmt: skip
_FEW = 200  # training frames of rMD17 up to which the configuration for 50 is used
#: Keys of an architecture that follow from the data it was trained on.
_OF_DATA = {
    "type_names", "elements", "avg_num_neighbors", "per_type_energy_scales",
    "per_type_energy_shifts",
}  # fmt: skip
#: Settings that say where and how fast a run goes, not what comes out.
_MACHINE = {
    "training": {
        "engine", "accelerator", "devices", "num_nodes", "strategy", "num_threads",
        "checkpoint_minutes",
    },
    "data": {"file", "test_file", "split_file", "num_workers", "stream_from_disk"},
}  # fmt: skip


#: 3BPA as another molecule to fine-tune on: its frames at 300 K, of which 200 may be for training.
_BPA = [
    "data.file=${OPENMM_NEQUIP_DATA}/3bpa/train_300K.xyz",
    "data.test_file=null",
    "data.n_test=250",
    "description=3-(benzyloxy)pyridin-2-amine in vacuum at 300 K, ωB97X/6-31G(d)",
    "licence=MIT (data and weights)",
    "citation=D. P. Kovács et al., J. Chem. Theory Comput. 17, 7696 (2021)",
]


@dataclass(frozen=True)
class Task:
    """What is trained on a set of reference data.

    Attributes
    ----------
    frames
        Sizes of the training set that are reported.
    molecules
        Of rMD17, or 3BPA; empty for other data.
    l_max
        Rotation orders that are compared; empty where the configuration has the only one.
    starts
        Which of `STARTS` are compared; empty where all begin with new weights.
    changes
        Which of `CHANGES` are compared.
    """

    frames: tuple[int, ...]
    molecules: tuple[str, ...] = ()
    l_max: tuple[int, ...] = ()
    starts: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()


TASKS = {
    "rmd17": Task((50, 950), molecules=MOLECULES),
    "learning-curve": Task((50, 100, 200, 400, 950), molecules=("aspirin",), l_max=(0, 1, 2)),
    "3bpa": Task((400,)),
    "acac": Task((400,)),
    "ethanol-ccsdt": Task((600,)),
    "lips": Task((10, 100, 600)),
    "water": Task((133,)),
    "quartz": Task((100,)),
    "silicon": Task((194,)),
    "fine-tuning": Task((10, 50), ("aspirin", "ethanol", "uracil", "3bpa"), starts=STARTS),
    "choices": Task((50,), ("uracil",), changes=tuple(CHANGES)),
}


@dataclass(frozen=True)
class Case:
    """One training run of a task.

    Attributes
    ----------
    task
        Key of `TASKS`.
    frames
        Number of training frames.
    seed
        Decides the training and validation frames, the initial weights and the order of frames.
    molecule, split
        Of rMD17, and which of its five splits, as in the names of the files: ``'01'``. 3BPA, which
        can be fine-tuned on as well, has no splits.
    l_max
        Highest rotation order, where it differs within the task.
    start
        One of `STARTS`, where a task compares them.
    change
        One of `CHANGES`, where a task compares them.
    """

    task: str
    frames: int
    seed: int
    molecule: str | None = None
    split: str | None = None
    l_max: int | None = None
    start: str | None = None
    change: str | None = None

    @property
    def name(self) -> str:
        """What the run is called, without its settings: ``rmd17-aspirin-50-split01-seed1``."""
        parts = [self.task, self.molecule, str(self.frames)]
        parts.append(None if self.split is None else f"split{self.split}")
        parts.append(None if self.l_max is None else f"l{self.l_max}")
        parts.append(self.start)
        parts.append(None if self.change is None else re.sub(r"[^\w.]+", "-", self.change))
        return "-".join([part for part in parts if part is not None] + [f"seed{self.seed}"])

    @property
    def of_any_seed(self) -> tuple[Any, ...]:
        """What tells the runs of a task apart, but for repetitions."""
        return (self.task, self.molecule, self.frames, self.l_max, self.start, self.change)

    @property
    def config_file(self) -> Path:
        """The YAML file of the task; rMD17 has one for few and one for many frames.

        Fine-tuning has another one for what it is compared with.
        """
        name = self.task
        if name == "rmd17":
            name = "rmd17-50" if self.frames <= _FEW else "rmd17-950"
        elif self.start == "scratch":
            name += "-scratch"
        return CONFIGS / f"{name}.yaml"


def cases(
    task: str,
    frames: list[int] | None = None,
    molecules: list[str] | None = None,
    l_max: list[int] | None = None,
    seeds: list[int] | None = None,
    split: str = "01",
    starts: list[str] | None = None,
    changes: list[str] | None = None,
) -> list[Case]:
    """Return the runs of a task; what is left out is all that the documentation reports.

    Raises
    ------
    InputError
        There is no such task, molecule, start or change, or the task has no choice of it or of
        l_max.
    """
    if task not in TASKS:
        raise InputError(f"there is no task '{task}'; choose from {', '.join(TASKS)}")
    known = TASKS[task]
    for name, given, choices in (
        ("molecule", molecules, known.molecules),
        ("l-max", l_max, known.l_max),
        ("start", starts, known.starts),
        ("change", changes, known.changes),
    ):
        if given and not choices:
            raise InputError(f"task '{task}' has no --{name}")
    if molecules == ["all"]:
        molecules = list(MOLECULES)
    for what, given, choices in (
        ("molecule", molecules, tuple(dict.fromkeys((*MOLECULES, *known.molecules)))),
        ("start", starts, known.starts),
        ("change", changes, known.changes),
    ):
        for value in given or []:
            if value not in choices:
                raise InputError(f"there is no {what} '{value}'; choose from {', '.join(choices)}")
    return [
        Case(task, n, seed, molecule, split if molecule in MOLECULES else None, *how)
        for seed, n, molecule, *how in itertools.product(
            seeds or [1],
            frames or known.frames,
            molecules or known.molecules or (None,),
            l_max or known.l_max or (None,),
            starts or known.starts or (None,),
            changes or known.changes or (None,),
        )
    ]


def configuration(
    case: Case, file: Path | None = None, overrides: list[str] | None = None
) -> TrainConfig:
    """Return the configuration of a run.

    With another number of frames than in the file the number of optimizer steps stays the same.
    What fine-tuning is compared with has the network of the potential that is fine-tuned, and new
    weights.

    Parameters
    ----------
    case
        The run.
    file
        Configuration file to be used instead of the task's own.
    overrides
        ``model.key=value`` and ``training.key=value`` that differ from the file.

    Raises
    ------
    InputError
        The file is wrong or lacks what the benchmark needs, or an override concerns the data.
    """
    overrides = list(overrides or [])
    for override in overrides:
        if not override.startswith(("model.", "training.")):
            raise InputError(
                f"override '{override}': only model.* and training.* can be changed; frames, "
                "molecule and seed have options of their own"
            )
    path = file or case.config_file
    nominal = load_config(TrainConfig, path)
    epochs, frames = nominal.training.max_epochs, nominal.data.n_train
    if epochs is None or not isinstance(frames, int):
        raise InputError(f"{path} must give training.max_epochs and data.n_train as numbers")
    size = nominal.training.batch_size
    epochs = math.ceil(epochs * math.ceil(frames / size) / math.ceil(case.frames / size))
    values = [f"data.n_train={case.frames}", f"training.max_epochs={epochs}"]
    values += [f"seed={case.seed}", f"name={case.name}"]
    if case.l_max is not None:
        values.append(f"model.l_max={case.l_max}")
    if case.split is not None:
        stem = f"${{OPENMM_NEQUIP_DATA}}/rmd17/rmd17_{case.molecule}"
        values.append(f"data.file={stem}_train_{case.split}.npz")
        values.append(f"data.test_file={stem}_test_{case.split}.npz")
        values.append(f"description={case.molecule} in vacuum, MD at 500 K, PBE/def2-SVP (rMD17)")
    elif case.molecule == "3bpa":
        values += _BPA
    values += CHANGES[case.change] if case.change is not None else []
    config = load_config(TrainConfig, path, [*values, *overrides])
    if case.start != "scratch":
        return config
    network = read_header(find_model(str(config.training.fine_tune_from)))["config"]
    values += [f"model.{k}={json.dumps(v)}" for k, v in network.items() if k not in _OF_DATA]
    overrides += ["training.fine_tune_from=null", "training.fine_tune_shifts=keep"]
    return load_config(TrainConfig, path, [*values, *overrides])


def digest(config: TrainConfig) -> str:
    """Return eight hexadecimal digits that stand for the settings of a run.

    Only what was set counts, not the defaults, nor seed, paths and machine. Of a potential that
    is fine-tuned the content counts, whatever its name.

    Raises
    ------
    InputError
        There is no such potential.
    """
    settings = config.model_dump(
        mode="json",
        exclude_unset=True,
        include={"data", "model", "training"},
        exclude=_MACHINE,  # type: ignore[arg-type]
    )
    atoms = settings["data"].get("isolated_atoms_file")
    if atoms is not None:
        settings["data"]["isolated_atoms_file"] = Path(atoms).name
    start = config.training.fine_tune_from
    if start is not None:
        content = find_model(start).read_bytes()
        settings["training"]["fine_tune_from"] = hashlib.sha256(content).hexdigest()
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def settings(config: TrainConfig, model: Path) -> dict[str, Any]:
    """Return the network and the training of a finished run, defaults included.

    Parameters
    ----------
    config
        Of the run.
    model
        Its model file.
    """
    network = read_header(model)["config"]
    training = config.training.model_dump(mode="json", exclude=_MACHINE["training"])
    return {
        "network": {key: value for key, value in network.items() if key not in _OF_DATA},
        "training": training,
    }
