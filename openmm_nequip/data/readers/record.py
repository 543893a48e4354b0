"""What a format's reader hands over: frames as the file has them, and what the format says."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

#: What a file may hold of a frame's labels, in the file's own sign and units.
LABELS = ("energy", "forces", "gradient", "stress", "virial")

#: Keys that the user gives for some of the labels.
Keys = Mapping[str, str]


@dataclass(frozen=True)
class Record:
    """One frame in the units of its file, not yet checked.

    Attributes
    ----------
    numbers, positions, cell, pbc
        As in `Frame`; a cell may be there although nothing is periodic.
    labels
        Values by label: any of `LABELS`. Stress and virial have shape ``[3, 3]``.
    found
        Names that the file has for the frame, for the message about a missing label.
    problem
        Why the frame must not be used; the other fields may then be empty.
    """

    numbers: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    positions: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    cell: np.ndarray | None = None
    pbc: tuple[bool, bool, bool] = (False, False, False)
    labels: Mapping[str, Any] = field(default_factory=dict)
    found: tuple[str, ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class Convention:
    """The units of a file, as far as its format or its own attributes tell.

    Attributes
    ----------
    energy, length, force
        Unit names; `None` where unknown.
    origin
        ``"format convention"`` or ``"file attribute"``.
    reason
        In words, such as ``"extended XYZ is in eV and Å"``.
    fixed
        The units are certain, so that other declared ones are a mistake.
    """

    energy: str | None = None
    length: str | None = None
    force: str | None = None
    origin: str = "format convention"
    reason: str = ""
    fixed: bool = False


@dataclass(frozen=True)
class Source:
    """An opened file: the units it is in and its records, which are read when iterated over."""

    format: str
    convention: Convention
    records: Iterable[Record]


#: A format's reader: path and keys in, source out.
Reader = Callable[[Path, Keys], Source]
