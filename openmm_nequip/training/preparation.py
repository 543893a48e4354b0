"""From the configuration to data sets, statistics and a potential to train."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from ase.data import chemical_symbols

from .. import modelfile
from ..architectures import Architecture
from ..architectures.nequip import PRESETS
from ..config import parse_config
from ..data.dataset import FrameDataset
from ..data.fingerprint import fingerprint
from ..data.frame import Frame
from ..data.readers import read_frames
from ..data.splits import Selection, Split, check_duplicates, split_frames
from ..data.statistics import Statistics, compute_statistics
from ..errors import InputError
from ..potential import Potential
from .config import DataConfig, TrainConfig

_MIN_VALIDATION = 50
_MAX_VALIDATION = 1000


@dataclass
class Sets:
    """The frames of a run.

    Attributes
    ----------
    train, val, test
        Frames of each set; the test set may be empty.
    splits
        How each file was split, by the name under which the split is recorded.
    """

    train: Sequence[Frame]
    val: Sequence[Frame]
    test: Sequence[Frame]
    splits: dict[str, Split]

    @property
    def sizes(self) -> dict[str, int]:
        """Number of frames of each set."""
        return {"train": len(self.train), "val": len(self.val), "test": len(self.test)}

    @property
    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of each set."""
        return {
            name: fingerprint(frames)
            for name, frames in (("train", self.train), ("val", self.val), ("test", self.test))
            if len(frames)
        }

    def elements(self) -> list[str]:
        """Chemical symbols of all frames, by atomic number."""
        sets = (self.train, self.val, self.test)
        numbers = {int(z) for frames in sets for frame in frames for z in set(frame.numbers)}
        return [chemical_symbols[z] for z in sorted(numbers)]


def read_data(
    config: DataConfig, paths: str | list[str], say: Callable[[str], None]
) -> list[Frame]:
    """Read files of the `data` section; `say` gets what was read and in which units."""
    frames: list[Frame] = []
    for path in [paths] if isinstance(paths, str) else paths:
        found = read_frames(
            _expand(path),
            format=config.format,
            energy_unit=config.energy_unit,
            length_unit=config.length_unit,
            force_unit=config.force_unit,
            keys=config.keys,
            require=config.require,
            on_bad=config.on_bad_frames,
        )
        say(found.summary())
        frames += found
    return frames


def _expand(path: str) -> str:
    """Fill in ``~`` and environment variables, so that a recipe need not name a machine's paths."""
    expanded = os.path.expandvars(os.path.expanduser(path))
    if "$" in expanded:
        raise InputError(f"data file '{path}': the environment variable in it is not set")
    return expanded


def load_sets(config: DataConfig, seed: int, say: Callable[[str], None]) -> Sets:
    """Read the files and divide them into training, validation and test frames.

    Raises
    ------
    InputError
        A file cannot be read, a set is larger than the file, or sets share frames.
    """
    main = read_data(config, config.file, say)
    if config.split_file is not None:
        train, val, test = _from_split_file(config)
    else:
        train, val, test = _selections(config, len(main))
    split = split_frames(main, train, val, test, seed=seed, on_duplicates=config.on_duplicates)
    frames = {name: [main[i] for i in getattr(split, name)] for name in ("train", "val", "test")}
    splits = {"split": split}
    for name, path, count in (
        ("val", config.val_file, config.n_val),
        ("test", config.test_file, config.n_test),
    ):
        if path is not None:
            own = read_data(config, path, say)
            part = split_frames(own, "rest" if count is None else count, seed=seed)
            frames[name] = [own[i] for i in part.train]
            splits[f"split_{name}_file"] = part
    if config.val_file is not None or config.test_file is not None:
        check_duplicates(frames, config.on_duplicates)
    if not frames["val"]:
        raise InputError(
            "there are no validation frames: give data.n_val or data.val_file (or fewer "
            "training frames, data.n_train)"
        )
    return Sets(frames["train"], frames["val"], frames["test"], splits)


def _from_split_file(config: DataConfig) -> tuple[Selection, Selection, Selection]:
    for key in ("n_train", "n_val", "n_test"):
        if getattr(config, key) is not None:
            raise InputError(f"give either data.split_file or data.{key}, not both")
    path = config.split_file
    assert path is not None
    return (
        path,
        None if config.val_file is not None else path,
        None if config.test_file is not None else path,
    )


def _selections(config: DataConfig, total: int) -> tuple[Selection, Selection, Selection]:
    """Fill in the sizes that the configuration leaves open."""
    test = None if config.test_file is not None else config.n_test
    val: Selection = None if config.val_file is not None else config.n_val
    train: Selection = config.n_train
    if val is None and config.val_file is None:
        used = _number(train, total)
        left = total - used - _number(test, total)
        wanted = max(_MIN_VALIDATION, round(0.1 * (used or left)))
        wanted = min(wanted, _MAX_VALIDATION)
        val = min(wanted, left if used else max(1, round(0.1 * left)))
    return ("rest" if train is None else train), val, test


def _number(selection: Selection, total: int) -> int:
    if isinstance(selection, float):
        return round(selection * total)
    return selection if isinstance(selection, int) else 0


def resolve_model(config: TrainConfig, sets: Sets) -> tuple[Architecture, Statistics]:
    """Fill in what the `model` section leaves to the data.

    Returns
    -------
    architecture, statistics
        The complete configuration of the network, and the figures that went into it.
    """
    given = config.model.model_dump(exclude_unset=True)
    size = given.pop("size", None)
    given = {key: value for key, value in given.items() if value is not None}
    chosen = {**PRESETS.get(size, {}), **given} if size else given
    in_data = sets.elements()
    elements = chosen.get("elements") or chosen.get("type_names") or in_data
    missing = [symbol for symbol in in_data if symbol not in elements]
    if missing:
        raise InputError(f"model.type_names lacks {', '.join(missing)}, which the data contains")
    if len(set(elements)) < len(elements):
        raise InputError(
            "training needs one atom type for each element: model.elements repeats one"
        )
    r_max = chosen.get("r_max", Architecture.model_fields["r_max"].default)
    names = list(chosen.get("type_names") or elements)
    statistics = compute_statistics(
        sets.train,
        elements,
        r_max,
        per_edge_type_cutoff=_by_element(chosen.get("per_edge_type_cutoff"), names, elements),
        reference_energies=_references(config.data, elements, in_data),
    )
    scales = {
        name: statistics.force_rms_per_type.get(element) or statistics.force_rms or 1.0
        for name, element in zip(names, elements, strict=True)
    }
    shifts = {
        name: statistics.reference_energies[element]
        for name, element in zip(names, elements, strict=True)
    }
    automatic = {
        "type_names": names,
        "elements": list(elements),
        "avg_num_neighbors": statistics.avg_num_neighbors or 1.0,
        "per_type_energy_scales": scales,
        "per_type_energy_shifts": shifts,
    }
    return parse_config(Architecture, {**automatic, **chosen}, "model section"), statistics


def _by_element(cutoffs: Any, names: Sequence[str], elements: Sequence[str]) -> Any:
    if cutoffs is None:
        return None
    symbol = dict(zip(names, elements, strict=True))
    return {
        symbol.get(centre, centre): _by_element(value, names, elements)
        if isinstance(value, dict)
        else value
        for centre, value in cutoffs.items()
    }


def _references(config: DataConfig, elements: Sequence[str], in_data: Sequence[str]) -> Any:
    request = config.reference_energies
    if isinstance(request, dict):
        return {**{e: 0.0 for e in elements if e not in in_data}, **request}
    return {"auto": "auto", "isolated_atoms": "isolated", "least_squares": "least-squares"}[request]


def fine_tuned(
    config: TrainConfig, sets: Sets, potential: Potential
) -> tuple[Architecture, Statistics]:
    """Return the architecture of a potential that is trained further, checked against the data.

    Raises
    ------
    InputError
        The data has new elements, or the `model` section asks for another network.
    """
    architecture = potential.config
    if len(set(potential.elements)) < len(potential.elements):
        raise InputError("cannot fine-tune a potential with several atom types for one element")
    missing = [symbol for symbol in sets.elements() if symbol not in potential.elements]
    if missing:
        raise InputError(
            f"cannot fine-tune {config.training.fine_tune_from} on {', '.join(missing)}: it knows "
            f"{', '.join(potential.elements)} only; train a new potential on all elements"
        )
    for key, value in config.model.model_dump(exclude_unset=True).items():
        if value is not None and getattr(architecture, key, value) != value:
            raise InputError(
                f"model.{key} cannot change in fine-tuning: the file has "
                f"{getattr(architecture, key)}; remove the key"
            )
    statistics = compute_statistics(
        sets.train,
        potential.elements,
        potential.r_max,
        reference_energies=_references(config.data, potential.elements, sets.elements()),
    )
    return architecture, statistics


def build_potential(config: TrainConfig, sets: Sets) -> tuple[Potential, Statistics]:
    """Build the potential to train: new with random weights, or one to be fine-tuned."""
    training = config.training
    if training.fine_tune_from is None:
        architecture, statistics = resolve_model(config, sets)
        torch.manual_seed(config.seed)
        potential = Potential(architecture)
        references = statistics.reference_energies
    else:
        potential = modelfile.load_file(modelfile.find_model(training.fine_tune_from))
        architecture, statistics = fine_tuned(config, sets, potential)
        if training.fine_tune_shifts == "estimate":
            potential = _with_new_shifts(potential, sets)
        references = potential.metadata.get("reference_energies", {})
        potential.metadata = {}
    potential.metadata["reference_energies"] = references
    return potential, statistics


def _with_new_shifts(potential: Potential, sets: Sets) -> Potential:
    """Move the shifts so that the untrained energies fit the data on average."""
    residuals = []
    potential.eval()
    for frame in sets.train:
        if frame.energy is not None:
            output = potential(potential.graph(frame), forces=False)
            residuals.append((frame, float(frame.energy - output.energy)))
    if not residuals:
        raise InputError("fine_tune_shifts: estimate needs energies in the training data")
    statistics = compute_statistics(
        [replace(frame, energy=residual) for frame, residual in residuals],
        potential.elements,
        potential.r_max,
        reference_energies="least-squares",
    )
    change = {
        name: statistics.reference_energies[element]
        for name, element in zip(potential.type_names, potential.elements, strict=True)
    }
    network = potential.network
    with torch.no_grad():
        network.shifts += potential.config.per_type(change)
    shifts = dict(zip(potential.type_names, network.shifts.tolist(), strict=True))
    potential.config = potential.config.model_copy(update={"per_type_energy_shifts": shifts})
    return potential


def make_dataset(frames: Sequence[Frame], potential: Potential) -> FrameDataset:
    """Return frames as a dataset for `potential`."""
    return FrameDataset(frames, potential.elements, potential.r_max)


def has_labels(frames: Sequence[Frame], label: str) -> bool:
    """Return whether any frame has ``'energy'``, ``'forces'`` or ``'stress'``."""
    return any(getattr(frame, label) is not None for frame in frames)
