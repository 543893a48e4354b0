"""One configuration of atoms with what the reference calculation said about it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Frame:
    """A labelled configuration in the package's units.

    Parameters
    ----------
    numbers
        Atomic numbers, shape ``[N]``.
    positions
        Å, shape ``[N, 3]``.
    cell
        Lattice vectors as rows, Å, shape ``[3, 3]``; `None` where no direction is periodic.
    pbc
        Which lattice directions repeat.
    energy
        Total energy, eV.
    forces
        eV/Å, shape ``[N, 3]``.
    stress
        eV/Å³ with ASE's sign (tension is positive), shape ``[3, 3]``.
    source
        Where the frame came from, as ``file:index``.
    """

    numbers: IntArray
    positions: FloatArray
    cell: FloatArray | None = None
    pbc: tuple[bool, bool, bool] = (False, False, False)
    energy: float | None = None
    forces: FloatArray | None = None
    stress: FloatArray | None = None
    source: str = ""

    def __len__(self) -> int:
        return len(self.numbers)
