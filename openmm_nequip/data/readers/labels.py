"""Find a frame's labels among the names that programs give them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...errors import InputError
from .record import Keys

_STEMS = {
    "energy": ("energy", "energies", "total_energy", "totenergy", "potential_energy"),
    "forces": ("forces", "force", "total_forces"),
    "gradient": ("gradient", "gradients", "total_gradient"),
    "stress": ("stress",),
    "virial": ("virial", "virials"),
}
_PREFIXES = ("", "ref_", "dft_")
_CELLS = ("cell", "cells", "lattices", "unit_cell", "unit_cells", "box", "boxes", "pbc")

#: Usual names of each label, in lower case.
USUAL = {
    label: frozenset(prefix + stem for prefix in _PREFIXES for stem in stems)
    for label, stems in _STEMS.items()
}


def label_keys(names: Mapping[str, Any], keys: Keys, where: str) -> dict[str, str]:
    """Return the name under which each label is found: the user's, or one of the usual ones.

    Raises
    ------
    InputError
        Several usual names are there with different values, so that the user must choose.
    """
    found = {}
    for label, usual in USUAL.items():
        if label in keys:
            candidates = [keys[label]] if keys[label] in names else []
        elif (label == "gradient" and "forces" in keys) or (
            label == "forces" and "gradient" in keys
        ):
            candidates = []
        else:
            candidates = [name for name in names if name.lower() in usual]
        for other in candidates[1:]:
            if not _equal(names[candidates[0]], names[other]):
                raise InputError(
                    f"{where} has both '{candidates[0]}' and '{other}', which differ; choose one: "
                    f"data.keys.{label}={other} for training, keys={{'{label}': '{other}'}} in "
                    "Python"
                )
        if candidates:
            found[label] = candidates[0]
    if "forces" in found:  # the same thing twice
        found.pop("gradient", None)
    if "stress" in found:
        found.pop("virial", None)
    return found


def refuse_cells(names: Mapping[str, Any], where: str) -> None:
    """Check that there are no cells, in formats that have no usual way to write them.

    Raises
    ------
    InputError
        There are: read as molecules, the frames would lack what is across the borders.
    """
    for name in names:
        if name.lower() in _CELLS and np.any(np.asarray(names[name])):
            raise InputError(
                f"{where} has cells ('{name}'), which are not read from this format: convert "
                "periodic data to extended XYZ or an ASE database"
            )


def matrix(values: Any) -> Any:
    """Turn 6 numbers in Voigt order (xx, yy, zz, yz, xz, xy) or 9 into ``[3, 3]``."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        return values
    if array.size == 9:
        return array.reshape(3, 3)
    if array.size == 6:
        return array.ravel()[[0, 5, 4, 5, 1, 3, 4, 3, 2]].reshape(3, 3)
    return array


def _equal(a: Any, b: Any) -> bool:
    if np.size(a) == np.size(b) == 1:  # a number, and an array of one
        return bool(np.ravel(a)[0] == np.ravel(b)[0])
    try:
        return bool(np.array_equal(a[...], b[...]))
    except TypeError:
        return bool(np.array_equal(a, b))
