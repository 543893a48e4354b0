"""In which units a file is, and how that is known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...errors import InputError
from ...units import energy_factor, length_factor
from .record import Convention

#: Spellings found in the attributes of files.
_SPELLINGS = {
    "angstroms": "Å",
    "bohrs": "bohr",
    "hartrees": "Hartree",
    "nanometer": "nm",
    "nanometers": "nm",
    "nanometre": "nm",
    "nanometres": "nm",
    "electronvolt": "eV",
    "electronvolts": "eV",
    "kilojoule/mole": "kJ/mol",
    "kilocalorie/mole": "kcal/mol",
}


@dataclass(frozen=True)
class Unit:
    """One unit: its name, what it is in the package's units, and who says so."""

    name: str
    factor: float
    origin: str

    def __str__(self) -> str:
        return f"{self.name} ({self.origin})"


@dataclass(frozen=True)
class Units:
    """Units of a file.

    Attributes
    ----------
    length, energy, force
        `energy` and `force` are `None` where the file is unlabelled and nothing was declared.
    reason
        What the format or the file says, in words.
    """

    length: Unit
    energy: Unit | None
    force: Unit | None
    reason: str = ""

    def __str__(self) -> str:
        parts = [
            f"{name} in {unit}"
            for name, unit in (
                ("energies", self.energy),
                ("lengths", self.length),
                ("forces", self.force),
            )
            if unit is not None
        ]
        return ", ".join(parts) + (f"; {self.reason}" if self.reason else "")


def resolve_units(
    convention: Convention,
    where: str,
    energy_unit: str | None,
    length_unit: str | None,
    force_unit: str | None,
) -> Units:
    """Join what the user declares with what the format or the file says; the user wins.

    Raises
    ------
    InputError
        The length unit is unknown, or the declared units contradict a format with fixed ones.
    """
    length = _unit(length_unit, convention.length, convention.origin, length_factor)
    energy = _unit(energy_unit, convention.energy, convention.origin, energy_factor)
    force = _unit(force_unit, convention.force, convention.origin, _force_factor)
    if length is None:
        missing = ["length_unit", "energy_unit"] if energy is None else ["length_unit"]
        raise unknown_units(where, convention, missing)
    if force is None and energy is not None:
        declared = "declared" in (energy.origin, length.origin)
        force = Unit(
            f"{energy.name}/{length.name}",
            energy.factor / length.factor,
            "declared" if declared else energy.origin,
        )
    if convention.fixed:
        for unit in (length, energy, force):
            if unit is not None and abs(unit.factor - 1) > 1e-12:
                raise InputError(
                    f"{where}: {convention.reason}, but '{unit.name}' was declared; leave it out"
                )
    return Units(length, energy, force, convention.reason)


def unknown_units(where: str, convention: Convention, missing: Sequence[str]) -> InputError:
    """Return the error for a file whose units cannot be known; `missing` are options to give."""
    because = f" ({convention.reason})" if convention.reason else ""
    examples = {"energy_unit": "energy_unit='kcal/mol'", "length_unit": "length_unit='Å'"}
    return InputError(
        f"{where}: the units of the file are not known{because}; give {' and '.join(missing)}, "
        f"for example {', '.join(examples[option] for option in missing)}"
    )


def file_unit(text: str | None) -> str | None:
    """Return our name of a unit that a file spells in its own way."""
    if text is None:
        return None
    compact = text.strip().replace(" / ", "/")
    parts = compact.rsplit("/", 1)
    if len(parts) == 2 and not parts[1].lower().startswith("mol"):
        return f"{file_unit(parts[0])}/{file_unit(parts[1])}"
    return _SPELLINGS.get(compact.lower(), compact)


def _unit(
    declared: str | None, known: str | None, origin: str, factor: Callable[[str], float]
) -> Unit | None:
    if declared is not None:
        return Unit(declared, factor(declared), "declared")
    if known is not None:
        return Unit(known, factor(known), origin)
    return None


def _force_factor(unit: str) -> float:
    energy, separator, length = unit.rpartition("/")
    if not separator:
        raise InputError(f"unknown force unit '{unit}': write it as energy/length, as in eV/Å")
    return energy_factor(energy) / length_factor(length)
