"""Data sets larger than memory: packed frames and their neighbour lists in one HDF5 file."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ..errors import InputError
from .dataset import Targets, TypeMap
from .fingerprint import Fingerprint, geometry_hash
from .frame import Frame
from .graph import Graph
from .neighbors import neighbor_list
from .optional import import_h5py
from .readers import FrameStream

SCHEMA = 1
_BUFFERED_FRAMES = 1000

# One row per frame, atom or edge; few datasets, so that an item costs few reads.
_TABLES: dict[str, tuple[tuple[int, ...], str]] = {
    "frames": ((19,), "f8"),  # energy, stress, cell
    "pbc": ((3,), "u1"),
    "geometry": ((32,), "u1"),  # hash
    "atom_end": ((), "i8"),  # where the frame's rows end
    "edge_end": ((), "i8"),
    "numbers": ((), "u1"),
    "atoms": ((6,), "f8"),  # position, force
    "edges": ((5,), "i4"),  # receiving, sending atom, shift
}


def write_store(
    frames: Iterable[Frame], path: str | Path, elements: Sequence[str] | None, r_max: float
) -> Path:
    """Pack frames and their neighbour lists into one file, in bounded memory.

    The file appears under its name only when it is complete.

    Parameters
    ----------
    frames
        Labelled configurations, for example from `iter_frames`.
    path
        The file to write.
    elements
        Chemical symbols in the order of the potential's types; `None`: those of the frames, by
        atomic number.
    r_max
        Cutoff of the neighbour lists, Å.

    Returns
    -------
    Path
        The path of the store.

    Raises
    ------
    InputError
        The file exists, there are no frames, or a frame has an element that the list lacks.
    """
    h5py = import_h5py()
    path = Path(path)
    if path.exists():
        raise InputError(f"{path} exists already; remove it or choose another name")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with h5py.File(temporary, "w") as file:
            _write(file, frames, None if elements is None else TypeMap(elements), float(r_max))
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.rename(path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
    return path


class StoreDataset(Dataset[tuple[Graph, Targets]]):
    """The frames of a store, read from disk one at a time.

    Every process that reads (a `DataLoader` worker, say) opens the file for itself.

    Parameters
    ----------
    path
        A file made by `write_store`.

    Attributes
    ----------
    elements : list of str
        Chemical symbols in the order of the types.
    r_max : float
        Cutoff of the neighbour lists, Å.
    fingerprint : str
        SHA-256 over the contents of the frames.
    geometry_hashes : array
        SHA-256 of each frame's geometry, shape ``[F, 32]``, uint8.
    summary : str
        What was read, in which units, and what was left out, where the store was written from
        `iter_frames`.

    Raises
    ------
    InputError
        The file is missing, not a store, or of another schema.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._tables: dict[str, Any] = {}  # open datasets, of the process `_owner`
        self._owner = -1
        if not self.path.is_file():
            raise InputError(f"{path} does not exist")
        try:
            with import_h5py().File(self.path, "r") as file:
                attributes = dict(file.attrs)
        except OSError as error:
            raise InputError(f"{path} is not a readable HDF5 file: {error}") from None
        if attributes.get("schema") != SCHEMA:
            raise InputError(
                f"{path} is not a store of frames of this version (schema {SCHEMA}); "
                "write it again with write_store"
            )
        self.elements = [str(symbol) for symbol in attributes["elements"]]
        self.r_max = float(attributes["r_max"])
        self.fingerprint = str(attributes["fingerprint"])
        self.summary = str(attributes["summary"])
        self._type_map = TypeMap(self.elements)
        tables = self._open()
        self._atom_range = np.concatenate([[0], tables["atom_end"][:]])
        self._edge_range = np.concatenate([[0], tables["edge_end"][:]])
        self.close()  # a forked worker must not inherit an open file

    def __len__(self) -> int:
        return len(self._atom_range) - 1

    @property
    def num_atoms(self) -> NDArray[np.int64]:
        """Number of atoms of each frame, shape ``[F]``."""
        return np.diff(self._atom_range)

    def numbers_of(self, indices: Sequence[int]) -> NDArray[np.int64]:
        """Return the atomic numbers that occur in some frames, each once."""
        wanted = np.zeros(len(self), dtype=bool)
        wanted[list(indices)] = True
        numbers = self._open()["numbers"][:][np.repeat(wanted, self.num_atoms)]
        return np.unique(numbers).astype(np.int64)

    @property
    def geometry_hashes(self) -> NDArray[np.uint8]:
        """SHA-256 of each frame's geometry, shape ``[F, 32]``, uint8."""
        hashes: NDArray[np.uint8] = self._open()["geometry"][:]
        return hashes

    def __getitem__(self, index: int) -> tuple[Graph, Targets]:
        index = self._checked(index)
        tables = self._open()
        row = torch.from_numpy(tables["frames"][index])
        atoms = torch.from_numpy(tables["atoms"][self._atoms(index)])
        edges = torch.from_numpy(tables["edges"][self._edges(index)])
        numbers = tables["numbers"][self._atoms(index)]
        graph = Graph(
            positions=atoms[:, :3].contiguous(),
            types=torch.from_numpy(self._type_map(numbers)),
            edge_index=edges[:, :2].T.contiguous().long(),
            shifts=edges[:, 2:].double(),
            cell=row[10:].view(1, 3, 3),
            batch=torch.zeros(len(numbers), dtype=torch.int64),
        )
        targets = Targets(
            energy=row[:1],
            forces=atoms[:, 3:].contiguous(),
            stress=row[1:10].view(1, 3, 3),
            num_atoms=torch.tensor([len(numbers)]),
        )
        return graph, targets

    def frame(self, index: int) -> Frame:
        """Return one frame as it was written."""
        index = self._checked(index)
        tables = self._open()
        row = tables["frames"][index]
        atoms = tables["atoms"][self._atoms(index)]
        pbc = tuple(bool(periodic) for periodic in tables["pbc"][index])
        return Frame(
            numbers=tables["numbers"][self._atoms(index)].astype(np.int64),
            positions=atoms[:, :3].copy(),
            cell=row[10:].reshape(3, 3) if any(pbc) else None,
            pbc=pbc,  # type: ignore[arg-type]
            energy=None if np.isnan(row[0]) else float(row[0]),
            forces=None if np.isnan(atoms[:, 3:]).any() else atoms[:, 3:].copy(),
            stress=None if np.isnan(row[1]) else row[1:10].reshape(3, 3),
            source=f"{self.path}:{index}",
        )

    def frames(self, indices: Iterable[int] | None = None) -> Iterator[Frame]:
        """Yield the frames, or those with the given indices, one at a time."""
        for index in range(len(self)) if indices is None else indices:
            yield self.frame(index)

    def has(self, label: str, indices: Sequence[int]) -> bool:
        """Return whether any of these frames has ``'energy'`` or ``'stress'``."""
        column = self._open()["frames"][:, 0 if label == "energy" else 1]
        return bool(np.isfinite(column[list(indices)]).any())

    def with_elements(self, elements: Sequence[str]) -> "StoreDataset":
        """Return the same frames for a potential with other elements, or in another order."""
        other = copy(self)
        other.close()
        other.elements = list(elements)
        other._type_map = TypeMap(elements)
        return other

    def close(self) -> None:
        """Close the file; reading opens it again."""
        if self._tables:
            self._tables["frames"].file.close()
            self._tables = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tables": {}}

    def _open(self) -> dict[str, Any]:
        if not self._tables or self._owner != os.getpid():
            file = import_h5py().File(self.path, "r")
            self._tables = {name: file[name] for name in _TABLES}
            self._owner = os.getpid()
        return self._tables

    def _checked(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        return index % len(self)

    def _atoms(self, index: int) -> slice:
        return slice(self._atom_range[index], self._atom_range[index + 1])

    def _edges(self, index: int) -> slice:
        return slice(self._edge_range[index], self._edge_range[index + 1])


def _write(file: Any, frames: Iterable[Frame], type_map: TypeMap | None, r_max: float) -> None:
    for name, (shape, dtype) in _TABLES.items():
        rows = max(1, 65536 // (int(np.prod(shape)) * int(dtype[1])))  # chunks of 64 kB
        file.create_dataset(
            name, (0, *shape), dtype, maxshape=(None, *shape), chunks=(rows, *shape)
        )
    running = Fingerprint()
    buffer: dict[str, list[np.ndarray]] = {name: [] for name in _TABLES}
    atom_end = edge_end = 0
    found = set[int]()
    for frame in frames:
        if type_map is not None:
            type_map(frame.numbers, frame.source)
        found.update(frame.numbers.tolist())
        running.update(frame)
        edge_index, shifts = neighbor_list(frame.positions, frame.cell, frame.pbc, r_max)
        atom_end += len(frame)
        edge_end += len(shifts)
        rows_of_frame = {
            "frames": _row(frame)[None],
            "pbc": np.array([frame.pbc]),
            "geometry": np.frombuffer(geometry_hash(frame), np.uint8)[None],
            "atom_end": np.array([atom_end]),
            "edge_end": np.array([edge_end]),
            "numbers": frame.numbers,
            "atoms": np.hstack([frame.positions, _or_nan(frame.forces, frame.positions.shape)]),
            "edges": np.hstack([edge_index.T, shifts]),
        }
        for name, rows_of_table in rows_of_frame.items():
            buffer[name].append(rows_of_table)
        if len(buffer["frames"]) == _BUFFERED_FRAMES:
            _flush(file, buffer)
    _flush(file, buffer)
    if atom_end == 0:
        raise InputError("there are no frames to write")
    file.attrs["schema"] = SCHEMA
    in_frames = [chemical_symbols[z] for z in sorted(found)]
    file.attrs["elements"] = in_frames if type_map is None else type_map.elements
    file.attrs["r_max"] = r_max
    file.attrs["summary"] = frames.summary() if isinstance(frames, FrameStream) else ""
    file.attrs["fingerprint"] = running.hexdigest()


def _flush(file: Any, buffer: dict[str, list[np.ndarray]]) -> None:
    for name, pieces in buffer.items():
        if pieces:
            table = file[name]
            rows = np.concatenate(pieces)
            table.resize(len(table) + len(rows), axis=0)
            table[len(table) - len(rows) :] = rows
            pieces.clear()


def _row(frame: Frame) -> np.ndarray:
    energy = np.nan if frame.energy is None else frame.energy
    cell = np.zeros(9) if frame.cell is None else frame.cell.ravel()
    return np.concatenate([[energy], _or_nan(frame.stress, (3, 3)).ravel(), cell])


def _or_nan(array: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    return np.full(shape, np.nan) if array is None else array
