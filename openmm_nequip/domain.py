"""What a potential is for: its elements and charge, and what occurred in its training data."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from pydantic import PositiveInt

from .config import Config, parse_config
from .errors import InputError

V = TypeVar("V")


class Domain(Config):
    """The domain of a potential; what is `None` is unknown and never complained about.

    Parameters
    ----------
    elements
        Chemical symbols that occurred in training.
    charge, multiplicity
        Net charge, e, and spin multiplicity of the systems that the potential is meant for.
    min_distances
        Smallest distance, Å, of each pair of elements, named as by `pair_name`. A pair that is
        not there never occurred within the cutoff.
    num_neighbors
        Smallest and largest number of neighbours within the cutoff of an atom of each element.
    max_force
        Largest force on an atom, eV/Å.
    """

    elements: list[str]
    charge: int | None = None
    multiplicity: PositiveInt | None = None
    min_distances: dict[str, float] | None = None
    num_neighbors: dict[str, tuple[int, int]] | None = None
    max_force: float | None = None

    def check(self, numbers: Sequence[int] | np.ndarray, charge: int | None = None) -> None:
        """Check that a system belongs to the domain.

        Parameters
        ----------
        numbers
            Atomic number of each atom.
        charge
            Net charge, e; `None` if it is not known.

        Raises
        ------
        InputError
            An element did not occur in training; the charge is another; or a system with the
            potential's charge cannot have its multiplicity with this number of electrons.
        """
        symbols = [chemical_symbols[z] for z in np.unique(numbers)]
        unknown = [symbol for symbol in symbols if symbol not in self.elements]
        if unknown:
            raise InputError(
                f"the potential was not trained on {', '.join(unknown)}; "
                f"it knows {', '.join(self.elements)}"
            )
        if self.charge is None:
            return
        meant = f"the potential is meant for systems of charge {signed(self.charge)}"
        if charge is not None and charge != self.charge:
            raise InputError(
                f"{meant}, and the atoms have {signed(charge)} in all: choose another "
                "protonation state, another part of the system or another potential"
            )
        electrons = int(np.sum(numbers)) - self.charge
        if self.multiplicity is not None and (electrons + self.multiplicity) % 2 == 0:
            formula = Atoms(numbers).get_chemical_formula("hill")
            raise InputError(
                f"{meant} and multiplicity {self.multiplicity}, which {formula} with "
                f"{electrons} electrons cannot have: look for missing hydrogen atoms, ions and "
                "radicals"
            )

    def extended(self, other: "Domain") -> "Domain":
        """Return what both cover together; the charge and multiplicity of `other` come first.

        What one of them does not know is not known of both.
        """
        forces = self.max_force, other.max_force

        def smaller(a: float, b: float) -> float:
            return min(a, b)

        def wider(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
            return min(a[0], b[0]), max(a[1], b[1])

        return Domain(
            elements=list(dict.fromkeys([*self.elements, *other.elements])),
            charge=self.charge if other.charge is None else other.charge,
            multiplicity=self.multiplicity if other.multiplicity is None else other.multiplicity,
            min_distances=_together(self.min_distances, other.min_distances, smaller),
            num_neighbors=_together(self.num_neighbors, other.num_neighbors, wider),
            max_force=None if None in forces else max(forces),  # type: ignore[type-var]
        )

    def limited(self, elements: Sequence[str]) -> "Domain":
        """Return what is left of it with `elements` alone."""

        def known(values: dict[str, V] | None) -> dict[str, V] | None:
            if values is None:
                return None
            return {key: v for key, v in values.items() if set(key.split("-")) <= set(elements)}

        return self.model_copy(
            update={
                "elements": list(elements),
                "min_distances": known(self.min_distances),
                "num_neighbors": known(self.num_neighbors),
            }
        )


def read_domain(elements: Sequence[str], metadata: Mapping[str, Any]) -> Domain:
    """Return the domain that is recorded in a model file.

    Parameters
    ----------
    elements
        Chemical symbols of the potential's types; the domain where nothing is recorded.
    metadata
        Of the potential.

    Raises
    ------
    InputError
        The record is damaged.
    """
    recorded = metadata.get("domain", {})
    return parse_config(Domain, {"elements": list(elements), **recorded}, "domain of the potential")


def pair_name(first: str, second: str) -> str:
    """Return the name of a pair of elements: ``'C-H'``, alphabetically."""
    return "-".join(sorted((first, second)))


def net_charge(atoms: Atoms) -> int | None:
    """Return the net charge that ASE's atoms carry, e; `None` if they carry none.

    It is ``atoms.info['charge']``, if that is a number, or else the sum of the initial charges.
    """
    total = atoms.info.get("charge")
    if total is None and atoms.has("initial_charges"):
        total = atoms.get_initial_charges().sum()
    if total is None:
        return None
    try:
        return round(float(np.asarray(total).item()))
    except (TypeError, ValueError, OverflowError):  # 'unknown', NaN, several
        return None


def _together(
    first: dict[str, V] | None, second: dict[str, V] | None, of_both: Callable[[V, V], V]
) -> dict[str, V] | None:
    if first is None or second is None:
        return None
    common = {key: of_both(first[key], second[key]) for key in first.keys() & second.keys()}
    return first | second | common


def signed(charge: int) -> str:
    """Return a charge with its sign, but 0 without."""
    return f"{charge:+d}" if charge else "0"
