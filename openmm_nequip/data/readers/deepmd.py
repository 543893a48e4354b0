"""Folders of DeePMD-kit: ``type.raw``, ``type_map.raw`` and ``set.*/*.npy``, in eV and Å."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers

from ...errors import InputError
from .record import Convention, Keys, Record, Source

_FILES = {"energy": "energy", "forces": "force", "virial": "virial"}


def systems(folder: Path) -> list[Path]:
    """Return the systems at or below a folder, sorted."""
    return sorted(
        found.parent for found in folder.rglob("type.raw") if any(found.parent.glob("set.*"))
    )


def read(path: Path, keys: Keys) -> Source:
    """Open a folder: one system or several below it, one after the other.

    Raises
    ------
    InputError
        There is no system, or it does not tell its elements.
    """
    found = systems(path)
    if not found:
        raise InputError(f"{path} has no DeePMD system (type.raw and set.*)")
    for system in found:
        _elements(system)
    names = {**_FILES, **keys}
    convention = Convention("eV", "Å", reason="DeePMD folders are in eV and Å unless declared")
    records = (record for system in found for record in _system_records(system, names))
    return Source("deepmd", convention, records)


def _elements(system: Path) -> np.ndarray:
    """Return the atomic number of each type."""
    file = system / "type_map.raw"
    if not file.is_file():
        raise InputError(
            f"{system} lacks type_map.raw, so its elements are not known; write it: one chemical "
            "symbol per type, in the order of the type numbers"
        )
    symbols = file.read_text(errors="replace").split()
    unknown = [symbol for symbol in symbols if symbol not in atomic_numbers]
    if unknown:
        raise InputError(f"{file}: '{unknown[0]}' is not a chemical symbol")
    return np.array([atomic_numbers[symbol] for symbol in symbols], dtype=np.int64)


def _system_records(system: Path, names: dict[str, str]) -> Iterator[Record]:
    elements = _elements(system)
    try:
        types = _whole(np.loadtxt(system / "type.raw", ndmin=1))
    except ValueError as error:
        raise InputError(
            f"{system}/type.raw must have the number of a type for each atom, counted from 0 in "
            f"the order of type_map.raw: {error}"
        ) from None
    if types.min(initial=0) < 0:
        raise InputError(f"{system}/type.raw has the type {types.min()}; types count from 0")
    periodic = not (system / "nopbc").exists()
    for folder in sorted(system.glob("set.*")):
        yield from _set_records(folder, elements, types, periodic, names)


def _set_records(
    folder: Path, elements: np.ndarray, types: np.ndarray, periodic: bool, names: dict[str, str]
) -> Iterator[Record]:
    positions = _load(folder, "coord")
    if positions is None:
        raise InputError(f"{folder} has no coord.npy")
    box = _load(folder, "box") if periodic else None
    mixed = _load(folder, "real_atom_types")  # types per frame, -1 where there is no atom
    labels = {label: _load(folder, name) for label, name in names.items()}
    if positions.ndim == 1:  # one frame, written as a row
        positions = positions[None]
        box, mixed, *rows = (_as_row(values) for values in (box, mixed, *labels.values()))
        labels = dict(zip(labels, rows, strict=True))
    for name, values, width in (("coord", positions, 3), ("box", box, 9)):
        if values is not None and (values.ndim < 2 or values[:1].size % width):
            raise InputError(
                f"{folder}/{name}.npy has shape {list(values.shape)}; it must have one row per "
                f"frame, with {'3 numbers per atom' if name == 'coord' else '9 numbers'}"
            )
    frames = len(positions)
    positions = positions.reshape(frames, positions[:1].size // 3 if frames else 0, 3)
    try:
        all_types = np.broadcast_to(types, (frames, len(types))) if mixed is None else _whole(mixed)
    except ValueError as error:
        raise InputError(f"{folder}/real_atom_types.npy has no types: {error}") from None
    found = tuple(sorted(file.stem for file in folder.glob("*.npy")))
    for name, values in {"box": box, "real_atom_types": mixed, **labels}.items():
        if values is not None and values.shape[:1] != (frames,):
            shape = list(values.shape)
            raise InputError(f"{folder}: {name} has shape {shape}, coord has {frames} frames")
    for k in range(frames):
        real = all_types[k] >= 0
        if all_types[k].max(initial=0) >= len(elements):
            yield Record(problem=f"type {all_types[k].max()} is not in type_map.raw")
            continue
        if len(real) != len(positions[k]):
            yield Record(problem=f"{len(positions[k])} positions for {len(real)} atom types")
            continue
        yield Record(
            numbers=elements[all_types[k][real]],
            positions=positions[k][real],
            cell=None if box is None else box[k].reshape(3, 3),
            pbc=(periodic, periodic, periodic),
            labels={
                label: _shaped(label, values[k], real)
                for label, values in labels.items()
                if values is not None
            },
            found=found,
        )


def _whole(values: np.ndarray) -> np.ndarray:
    """Return numbers of types as integers, however they were written."""
    if values.dtype.kind not in "iuf" or not np.all(values == np.round(values)):
        raise ValueError("they are no whole numbers")
    return values.astype(np.int64)


def _as_row(values: np.ndarray | None) -> np.ndarray | None:
    return None if values is None or values.shape[:1] == (1,) else values[None]


def _load(folder: Path, name: str) -> np.ndarray | None:
    file = folder / f"{name}.npy"
    if not file.is_file():
        return None
    try:
        array: np.ndarray = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{file} is not a readable .npy file: {error}") from None
    return array


def _shaped(label: str, values: np.ndarray, real: np.ndarray) -> np.ndarray:
    if label in ("stress", "virial") and values.size == 9:
        return values.reshape(3, 3)
    if label in ("forces", "gradient") and values.size == 3 * len(real):
        return values.reshape(-1, 3)[real]
    return values
