"""Units: the one place where the package's eV, Å meet everybody else's.

Internally energies are eV, lengths Å, masses atomic mass units; OpenMM uses kJ/mol and nm.
Factors follow CODATA 2018.
"""

import math

from .errors import InputError, did_you_mean

KJ_PER_MOL = 96.48533212  # 1 eV in kJ/mol
NM = 0.1  # 1 Å in nm
KJ_PER_MOL_NM = KJ_PER_MOL / NM  # 1 eV/Å in kJ/mol/nm

#: 1 unit in eV
ENERGY_UNITS = {
    "eV": 1.0,
    "meV": 1e-3,
    "kcal/mol": 4.184 / KJ_PER_MOL,
    "kJ/mol": 1.0 / KJ_PER_MOL,
    "Hartree": 27.211386245988,
    "Ry": 27.211386245988 / 2,
}

#: 1 unit in Å
LENGTH_UNITS = {"Å": 1.0, "Angstrom": 1.0, "nm": 10.0, "bohr": 0.529177210903}

_ALIASES = {
    "ha": "Hartree",
    "eh": "Hartree",
    "au": "Hartree",
    "a": "Å",
    "ang": "Å",
    "a0": "bohr",
    "kcal": "kcal/mol",
    "kj": "kJ/mol",
    "kcal mol-1": "kcal/mol",
    "kj mol-1": "kJ/mol",
}


def _factor(unit: str, table: dict[str, float], kind: str) -> float:
    by_lower = {name.lower(): name for name in table}
    name = by_lower.get(unit.lower()) or _ALIASES.get(unit.lower(), unit)
    if name not in table:
        raise InputError(
            f"unknown {kind} unit '{unit}'{did_you_mean(unit, table)}; known: {', '.join(table)}"
        )
    return table[name]


def energy_factor(unit: str) -> float:
    """Return what one `unit` of energy is in eV."""
    return _factor(unit, ENERGY_UNITS, "energy")


def length_factor(unit: str) -> float:
    """Return what one `unit` of length is in Å."""
    return _factor(unit, LENGTH_UNITS, "length")


def format_seconds(seconds: float) -> str:
    """Return a time as ``1:02:03``."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
