"""Systems that AMBER or GROMACS have prepared: their parameters are taken as they are."""

from pathlib import Path

import numpy as np
from openmm import app, unit

from ..errors import InputError
from .choices import Assembled, Choices
from .solvation import nonbonded_settings

_AMBER_COORDINATES = (".inpcrd", ".rst7", ".rst", ".restrt", ".crd")


def is_parametrised(choices: Choices) -> bool:
    """Whether one of the files holds the parameters of its system."""
    return choices.coordinates is not None or (
        Path(choices.source).is_file() and _kind(choices.source) is not None
    )


def read_parametrised(choices: Choices) -> Assembled:
    """Read prmtop and inpcrd/rst7, or top and gro, in any order.

    Raises
    ------
    InputError
        The files are not such a pair or cannot be read, or something is asked for that would
        change the system.
    """
    files = [choices.source, *([choices.coordinates] if choices.coordinates else [])]
    for file in files:
        if not Path(file).is_file():
            raise InputError(f"file '{file}' does not exist")
    pair = {_kind(file): file for file in files}
    asked = {
        "ligands": choices.ligands, "charges": choices.charges, "salt": choices.salt,
        "force fields": choices.force_fields, "water": choices.water,
        "box": choices.width, "padding": choices.padding,
    }  # fmt: skip
    for what, value in asked.items():
        if value:
            raise InputError(
                f"'{choices.source}' comes with its parameters, which are taken as they are: leave "
                f"out {what}, and solvate it with the program that has made it"
            )
    try:
        if set(pair) == {"prmtop", "inpcrd"}:
            return _amber(pair["prmtop"], pair["inpcrd"], choices.cutoff)
        if set(pair) == {"top", "gro"}:
            return _gromacs(pair["top"], pair["gro"], choices.cutoff)
    except InputError:
        raise
    except Exception as error:  # parsers raise whatever they like on a damaged file
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"cannot read {' and '.join(files)} ({reason})") from None
    raise InputError(
        "give parameters and coordinates, like 'x.prmtop x.rst7' or 'x.top x.gro'; found "
        + " and ".join(f"'{file}'" for file in files)
    )


def _kind(file: str) -> str | None:
    """Return 'prmtop', 'inpcrd', 'top' or 'gro', and `None` for other files."""
    suffix = Path(file).suffix.lower()
    if suffix in (".prmtop", ".parm7", ".prm7"):
        return "prmtop"
    if suffix in (".top", ".itp"):  # Amber's may be called so too
        with open(file, errors="replace") as opened:
            return "prmtop" if opened.read(8) == "%VERSION" else "top"
    if suffix in _AMBER_COORDINATES:
        return "inpcrd"
    return "gro" if suffix == ".gro" else None


def _amber(parameters: str, coordinates: str, cutoff: float) -> Assembled:
    inpcrd = app.AmberInpcrdFile(coordinates)
    prmtop = app.AmberPrmtopFile(parameters, periodicBoxVectors=inpcrd.boxVectors)
    return _with_system(prmtop, inpcrd.getPositions(), cutoff, [parameters, coordinates])


def _gromacs(parameters: str, coordinates: str, cutoff: float) -> Assembled:
    gro = app.GromacsGroFile(coordinates)
    top = app.GromacsTopFile(parameters, periodicBoxVectors=gro.getPeriodicBoxVectors())
    top.topology.createStandardBonds()  # rigid water has none there
    return _with_system(top, gro.getPositions(), cutoff, [parameters, coordinates])


def _with_system(
    file: app.AmberPrmtopFile | app.GromacsTopFile,
    positions: unit.Quantity,
    cutoff: float,
    files: list[str],
) -> Assembled:
    count = file.topology.getNumAtoms()
    if len(positions) != count:
        raise InputError(
            f"'{files[0]}' has {count} atoms and '{files[1]}' {len(positions)}: they do not belong "
            "together"
        )
    system = file.createSystem(**nonbonded_settings(file.topology, cutoff))
    placed = np.array(positions.value_in_unit(unit.nanometer))
    return Assembled(file.topology, placed, system, record={"force_fields": files[:1]})
