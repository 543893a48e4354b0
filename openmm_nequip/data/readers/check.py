"""From a record to a frame in eV and Å, or the reason why it must not be used."""

from collections.abc import Sequence

import numpy as np
from ase.data import chemical_symbols

from ...errors import InputError
from ..frame import Frame
from ..neighbors import neighbor_list
from .record import Record
from .units import Units

MIN_DISTANCE = 0.3  # Å; closer atoms are an error in the data, H2 has 0.74 Å
_SEARCH = 2.0  # Å; a cell list is slow for much smaller cutoffs
_ASYMMETRY = 1e-3  # of the largest component; more is not a stress, unless it is noise:
_STRESS_NOISE = 1e-4  # eV/Å³, 16 MPa


class BadRecordError(Exception):
    """A record that cannot become a frame; the message is the reason."""


def to_frame(record: Record, units: Units, require: Sequence[str], source: str) -> Frame:
    """Check a record and convert it to the package's units.

    A cell in which nothing is periodic is dropped, and with it the stress.

    Raises
    ------
    BadRecordError
        The record must not be used.
    """
    if record.problem:
        raise BadRecordError(record.problem)
    numbers, positions = _atoms(record, units)
    n = len(numbers)
    cell = _cell(record, units)
    energy = _array(record, "energy", 1)
    forces = _array(record, "forces", n, 3)
    if forces is None and (gradient := _array(record, "gradient", n, 3)) is not None:
        forces = -gradient
    if forces is not None and units.force is not None:
        forces = forces * units.force.factor
    frame = Frame(
        numbers=numbers,
        positions=positions,
        cell=cell,
        pbc=record.pbc if cell is not None else (False, False, False),
        energy=None if energy is None or units.energy is None else _scale(energy, units),
        forces=forces,
        stress=None if cell is None else _stress(record, units, cell),
        source=source,
    )
    for label in require:
        if getattr(frame, label) is None and not (n == 1 and label != "energy"):
            found = f"; it has {', '.join(record.found)}" if record.found else ""
            raise BadRecordError(f"no {label}{found}")
    _check_distances(frame)
    return frame


def _atoms(record: Record, units: Units) -> tuple[np.ndarray, np.ndarray]:
    numbers = np.asarray(record.numbers)
    positions = np.asarray(record.positions, dtype=np.float64) * units.length.factor
    if len(numbers) == 0:
        raise BadRecordError("no atoms")
    if positions.shape != (len(numbers), 3):
        raise BadRecordError(
            f"positions have shape {list(positions.shape)}, expected {[len(numbers), 3]}"
        )
    wrong = numbers[(numbers < 1) | (numbers >= len(chemical_symbols))]
    if wrong.size:
        raise BadRecordError(f"{wrong[0]} is not an atomic number")
    if not np.isfinite(positions).all():
        raise BadRecordError("a position is NaN or infinite")
    return numbers.astype(np.int64), positions


def _cell(record: Record, units: Units) -> np.ndarray | None:
    if not any(record.pbc):
        return None
    if record.cell is None:
        raise BadRecordError("periodic without a cell")
    cell = np.asarray(record.cell, dtype=np.float64).reshape(3, 3) * units.length.factor
    if not np.isfinite(cell).all() or abs(np.linalg.det(cell)) < 1e-6:
        raise BadRecordError("the cell has no volume")
    return cell


def _array(record: Record, label: str, *shape: int) -> np.ndarray | None:
    value = record.labels.get(label)
    if value is None:
        return None
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise BadRecordError(f"{label} is not a number: {value!r}") from None
    if array.shape != shape and not (shape == (1,) and array.size == 1):
        raise BadRecordError(f"{label} has shape {list(array.shape)}, expected {list(shape)}")
    if not np.isfinite(array).all():
        raise BadRecordError(f"{label} is NaN or infinite")
    return array


def _scale(energy: np.ndarray, units: Units) -> float:
    assert units.energy is not None
    return float(energy.item() * units.energy.factor)


def _stress(record: Record, units: Units, cell: np.ndarray) -> np.ndarray | None:
    stress = _array(record, "stress", 3, 3)
    virial = _array(record, "virial", 3, 3)
    if units.energy is None or (stress is None and virial is None):
        return None
    if stress is not None:
        stress = stress * (units.energy.factor / units.length.factor**3)
    else:
        assert virial is not None
        stress = -virial * units.energy.factor / abs(np.linalg.det(cell))
    if abs(stress - stress.T).max() > max(_ASYMMETRY * abs(stress).max(), _STRESS_NOISE):
        raise BadRecordError("the stress is not symmetric")
    symmetric: np.ndarray = (stress + stress.T) / 2
    return symmetric


def _check_distances(frame: Frame) -> None:
    try:
        (i, j), shifts = neighbor_list(frame.positions, frame.cell, frame.pbc, _SEARCH)
    except InputError as error:  # of atoms that have left a slab
        raise BadRecordError(str(error)) from None
    vectors = frame.positions[j] - frame.positions[i]
    if frame.cell is not None:
        vectors = vectors + shifts @ frame.cell
    distances = np.linalg.norm(vectors, axis=1)
    if distances.min(initial=_SEARCH) < MIN_DISTANCE:
        closest = distances.argmin()
        raise BadRecordError(
            f"atoms {i[closest]} and {j[closest]} are {distances[closest]:.2f} Å apart "
            "(are the length units right?)"
        )
