"""HDF5 files of many molecules: the layouts of ANI and COMP6, and of SPICE.

Each group is a molecule: its elements, ``[conformations, atoms, 3]`` coordinates and labels.
ANI's layout does not say its units. SPICE's notes them with every dataset, has gradients in place
of forces, and its files of bare conformations give the elements as a mapped SMILES only.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from ...errors import InputError
from ..optional import import_h5py
from .labels import label_keys, refuse_cells
from .record import Convention, Keys, Record, Source
from .units import file_unit

_POSITIONS = ("coordinates", "conformations", "positions", "coord")
_NUMBERS = ("species", "atomic_numbers", "numbers")
_MAPPED_ATOM = re.compile(r"\[\d*([A-Za-z][a-z]?)[^\]:]*:(\d+)\]")


def read(path: Path, keys: Keys) -> Source:
    """Open a file; its units come from the attributes ``units`` of its datasets.

    Raises
    ------
    InputError
        h5py is missing, or the file has no group with coordinates.
    """
    h5py = import_h5py()
    try:
        with h5py.File(path, "r") as file:
            group = next(_molecules(file), None)
            if group is None:
                raise InputError(
                    f"{path} has no group with coordinates ({', '.join(_POSITIONS)}); is it in "
                    "the ANI or SPICE layout?"
                )
            convention = _convention(group, keys, path)
    except OSError as error:
        raise InputError(f"{path} is not a readable HDF5 file: {error}") from None
    return Source("hdf5", convention, _records(path, keys, convention))


def _molecules(group: Any) -> Iterator[Any]:
    """Yield every group that holds coordinates, in the order of the names."""
    if any(name in group for name in _POSITIONS):
        yield group
        return
    for name in group:
        if hasattr(group[name], "keys"):
            yield from _molecules(group[name])


def _convention(group: Any, keys: Keys, path: Path) -> Convention:
    names = label_keys(group, keys, f"{path}, {group.name}")
    length = _units(group[_first(group, _POSITIONS)])
    energy = _units(group[names["energy"]]) if "energy" in names else None
    force_name = names.get("forces", names.get("gradient"))
    force = _units(group[force_name]) if force_name else None
    if length is None and energy is None and force is None:
        return Convention(
            reason="the file does not tell; ANI and COMP6 publish Hartree and Å, and the forces "
            "of some of their files need a check of sign and unit"
        )
    return Convention(energy, length, force, "file attribute", "units noted in the file")


def _units(dataset: Any) -> str | None:
    value = dataset.attrs.get("units")
    return file_unit(value.decode() if isinstance(value, bytes) else value)


def _first(group: Any, names: tuple[str, ...]) -> str:
    return next(name for name in names if name in group)


def _records(path: Path, keys: Keys, convention: Convention) -> Iterator[Record]:
    with import_h5py().File(path, "r") as file:
        for group in _molecules(file):
            if _convention(group, keys, path) != convention:
                raise InputError(f"{path}: {group.name} is in other units than the groups before")
            yield from _group_records(group, keys, path)


def _group_records(group: Any, keys: Keys, path: Path) -> Iterator[Record]:
    where = f"{path}, {group.name}"
    refuse_cells(group, where)
    names = label_keys(group, keys, where)
    positions = _rows(group, _first(group, _POSITIONS), where)
    labels = {label: np.asarray(group[name][()]) for label, name in names.items()}
    if positions.ndim == 2:  # of a single conformation
        positions = positions[None]
        labels = {label: values[None] for label, values in labels.items()}
    try:
        numbers = _numbers(group)
        if numbers.ndim > 1 and len(numbers) == 1:
            numbers = numbers[0]
        if numbers.ndim > 1 and len(numbers) != len(positions):
            raise InputError(
                f"elements of {len(numbers)} conformations, positions of {len(positions)}"
            )
    except InputError as error:
        yield from [Record(problem=f"{group.name}: {error}")] * len(positions)
        return
    for label, values in labels.items():
        if values.shape[:1] != positions.shape[:1]:
            found = values.shape[0] if values.ndim else 1
            problem = f"{group.name}: {found} {label} for {len(positions)} conformations"
            yield from [Record(problem=problem)] * len(positions)
            return
    for k in range(len(positions)):
        of_frame = numbers if numbers.ndim == 1 else numbers[k]
        real = of_frame > 0  # files with molecules of several sizes are padded
        record_labels = {label: values[k] for label, values in labels.items()}
        for label in ("forces", "gradient"):
            if label in record_labels and len(record_labels[label]) == len(real):
                record_labels[label] = record_labels[label][real]
        yield Record(
            numbers=of_frame[real],
            positions=positions[k][real] if len(positions[k]) == len(real) else positions[k],
            labels=record_labels,
            found=tuple(group),
        )


def _rows(group: Any, name: str, where: str) -> np.ndarray:
    """Read a dataset that has rows."""
    values = np.asarray(group[name][()])
    if values.ndim == 0:
        raise InputError(f"{where}: '{name}' is one number, not positions of atoms")
    return values


def _numbers(group: Any) -> np.ndarray:
    for name in _NUMBERS:
        if name in group:
            values = np.atleast_1d(group[name][()])
            if values.dtype.kind in "iuf" and np.all(values == np.round(values)):
                return values.astype(np.int64)
            symbols = [s.decode() if isinstance(s, bytes) else str(s) for s in values.ravel()]
            unknown = [s for s in symbols if s and s not in atomic_numbers]
            if unknown:
                raise InputError(f"'{unknown[0]}' is not a chemical symbol")
            numbers = [atomic_numbers[s] if s else 0 for s in symbols]
            return np.array(numbers, dtype=np.int64).reshape(values.shape)
    if "smiles" in group:
        return _from_smiles(np.ravel(group["smiles"][()])[0])
    raise InputError(f"no elements: none of {', '.join(_NUMBERS)}, smiles")


def _from_smiles(smiles: bytes | str) -> np.ndarray:
    """Read the elements off a SMILES in which every atom has its number, as in ``[C:2]``."""
    text = smiles.decode() if isinstance(smiles, bytes) else smiles
    by_index = {int(index): symbol.capitalize() for symbol, index in _MAPPED_ATOM.findall(text)}
    if sorted(by_index) != list(range(1, len(by_index) + 1)) or not by_index:
        raise InputError(f"its SMILES does not number every atom: {text[:60]}")
    return np.array([atomic_numbers[by_index[k + 1]] for k in range(len(by_index))])
