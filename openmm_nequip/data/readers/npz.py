"""NumPy archives of one molecule in many conformations, as sGDML and rMD17 have them."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from zipfile import is_zipfile

import numpy as np

from ...errors import InputError
from .labels import label_keys, refuse_cells
from .record import Convention, Keys, Record, Source
from .units import file_unit

_NUMBERS = ("nuclear_charges", "z", "Z", "atomic_numbers", "numbers")
_POSITIONS = ("coords", "R", "coordinates", "positions")
_RMD17 = frozenset(("nuclear_charges", "coords", "energies", "forces"))


def read(path: Path, keys: Keys) -> Source:
    """Open an archive.

    The units are those of its fields ``e_unit`` and ``r_unit`` (sGDML), or kcal/mol and Å where
    its keys are those of rMD17; they must be declared otherwise.

    Raises
    ------
    InputError
        The file is not such an archive.
    """
    arrays = _load(path)
    numbers = _first(arrays, _NUMBERS, path, "atomic numbers")
    positions = _first(arrays, _POSITIONS, path, "positions")
    if "R" in arrays:  # sGDML's one-letter names
        keys = {"energy": "E", "forces": "F", **keys}
    names = label_keys(arrays, keys, str(path))
    labels = {label: arrays[name] for label, name in names.items()}
    for label, values in labels.items():
        if values.ndim == 0 or len(values) != len(positions):
            raise InputError(
                f"{path}: '{names[label]}' has shape {list(values.shape)} for "
                f"{len(positions)} frames"
            )
    if numbers.ndim == 2 and len(numbers) == 1:
        numbers = numbers[0]
    shapes = {positions.shape[1:2], positions.shape[:2]}
    if positions.ndim != 3 or numbers.shape not in shapes or numbers.dtype.kind not in "iuf":
        raise InputError(
            f"{path}: positions have shape {list(positions.shape)} and atomic numbers "
            f"{list(numbers.shape)} of {numbers.dtype}; expected [frames, atoms, 3] and [atoms], "
            "integers"
        )
    refuse_cells(arrays, str(path))
    cell = arrays["lattice"].T if "lattice" in arrays else None  # sGDML: vectors as columns
    if cell is not None and cell.shape != (3, 3):
        raise InputError(f"{path}: 'lattice' has shape {list(cell.shape)}, expected [3, 3]")
    records = _records(numbers, positions, cell, labels, tuple(arrays))
    return Source("npz", _convention(arrays), records)


def _load(path: Path) -> dict[str, np.ndarray]:
    arrays = {}
    if path.is_file() and not is_zipfile(path):
        raise InputError(f"{path} is not a readable .npz archive")
    try:
        with np.load(path, allow_pickle=False) as archive:
            for name in archive.files:
                with suppress(ValueError):  # Python objects are pickles, which are not read
                    arrays[name] = archive[name]
    except Exception as error:  # zipfile, zlib, NumPy: whatever a damaged file causes
        raise InputError(f"{path} is not a readable .npz archive: {error}") from None
    return arrays


def _first(
    arrays: Mapping[str, np.ndarray], names: tuple[str, ...], path: Path, what: str
) -> np.ndarray:
    for name in names:
        if name in arrays:
            return arrays[name]
    raise InputError(
        f"{path} has no {what}: none of {', '.join(names)} among its keys ({', '.join(arrays)})"
    )


def _convention(arrays: Mapping[str, np.ndarray]) -> Convention:
    if "e_unit" in arrays and "r_unit" in arrays:
        return Convention(
            energy=file_unit(_text(arrays["e_unit"])),
            length=file_unit(_text(arrays["r_unit"])),
            origin="file attribute",
            reason="units from the fields e_unit and r_unit",
        )
    if set(arrays) >= _RMD17:
        return Convention(
            "kcal/mol", "Å", reason="the keys are those of rMD17, which is in kcal/mol and Å"
        )
    return Convention(reason="an .npz archive without the fields e_unit and r_unit")


def _text(array: np.ndarray) -> str:
    value = array.item()
    return value.decode() if isinstance(value, bytes) else str(value)


def _records(
    numbers: np.ndarray,
    positions: np.ndarray,
    cell: np.ndarray | None,
    labels: Mapping[str, np.ndarray],
    found: tuple[str, ...],
) -> Iterator[Record]:
    periodic = cell is not None
    for k, coordinates in enumerate(positions):
        yield Record(
            numbers=numbers if numbers.ndim == 1 else numbers[k],
            positions=coordinates,
            cell=cell,
            pbc=(periodic, periodic, periodic),
            labels={label: values[k] for label, values in labels.items()},
            found=found,
        )
