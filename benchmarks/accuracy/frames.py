"""The frames of a run: which are for training, validation and testing."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from tasks import Case, digest

from openmm_nequip.data.fingerprint import geometry_hashes
from openmm_nequip.errors import InputError
from openmm_nequip.modelfile import write_atomically
from openmm_nequip.training.config import TrainConfig
from openmm_nequip.training.sets import Reader


def with_frames(case: Case, config: TrainConfig, folder: Path) -> TrainConfig:
    """Settle which frames are for training, validation and testing, and write the split there.

    Test frames come from the test file, or are the same whatever the seed and the number of
    training frames. Training sets of one seed contain each other; validation frames are the same.

    Parameters
    ----------
    case
        The run.
    config
        From `configuration`.
    folder
        Gets ``splits/<run>.json`` (and, where rMD17 is there as published, the files of a split).

    Returns
    -------
    TrainConfig
        With `data.split_file` instead of the numbers of frames.

    Raises
    ------
    InputError
        The data is missing or has too few frames.
    """
    data = config.data
    if case.split is not None:
        data = data.model_copy(update=rmd17_files(case, folder))
    r_max = config.model.r_max or 5.0
    reader = Reader(data, r_max, folder / "cache", lambda text: None)  # the run says it
    frames = reader.read(data.file)
    counts = [data.n_train, data.n_val, None if data.test_file else data.n_test]
    split = draw(geometry_hashes(frames), *(int(n or 0) for n in counts), seed=case.seed)
    path = folder.resolve() / "splits" / f"{case.name}-{digest(config)}.json"
    write_atomically(path, (json.dumps(split) + "\n").encode())
    drawn = {"split_file": str(path), "n_train": None, "n_val": None, "n_test": None}
    return config.model_copy(update={"data": data.model_copy(update=drawn)})


def draw(
    hashes: list[bytes], n_train: int, n_val: int, n_test: int, seed: int
) -> dict[str, list[int]]:
    """Draw the frames of each set; of equal configurations only the first is used.

    Raises
    ------
    InputError
        There are too few frames.
    """
    first: dict[bytes, int] = {}
    for index, value in enumerate(hashes):
        first.setdefault(value, index)
    order = np.random.default_rng(0).permutation(list(first.values()))
    test, rest = order[:n_test], np.random.default_rng(seed).permutation(order[n_test:])
    if n_train + n_val > len(rest):
        raise InputError(
            f"{n_train} training frames and {n_val} for validation are asked for, but there are "
            f"{len(rest)} beside the {n_test} test frames"
        )
    sets = {"train": rest[:n_train], "val": rest[len(rest) - n_val :], "test": test}
    return {name: sorted(indices.tolist()) for name, indices in sets.items()}


def rmd17_files(case: Case, folder: Path) -> dict[str, str]:
    """Return the training and the test file of a split, cut from the published files if need be.

    Raises
    ------
    InputError
        Neither these files nor the published ones are there.
    """
    data = Path(os.environ["OPENMM_NEQUIP_DATA"]) / "rmd17"
    names = {s: f"rmd17_{case.molecule}_{s}_{case.split}.npz" for s in ("train", "test")}
    if all((data / name).exists() for name in names.values()):
        return {"file": str(data / names["train"]), "test_file": str(data / names["test"])}
    whole = data / "npz_data" / f"rmd17_{case.molecule}.npz"
    indices = {s: data / "splits" / f"index_{s}_{case.split}.csv" for s in names}
    for needed in (whole, *indices.values()):
        if not needed.exists():
            raise InputError(
                f"{data} has neither {names['train']} and {names['test']} nor "
                f"{needed.relative_to(data)} of the published data set"
            )
    cut = folder / "data"
    cut.mkdir(parents=True, exist_ok=True)
    with np.load(whole) as arrays:
        per_frame = {key: arrays[key] for key in ("coords", "energies", "forces")}
        charges = arrays["nuclear_charges"]
    for name, file in names.items():
        chosen = np.loadtxt(indices[name], dtype=int)
        values: dict[str, Any] = {key: array[chosen] for key, array in per_frame.items()}
        temporary = cut / f"{file}.tmp.npz"
        np.savez(temporary, nuclear_charges=charges, **values)
        shutil.move(temporary, cut / file)
    return {"file": str(cut / names["train"]), "test_file": str(cut / names["test"])}
