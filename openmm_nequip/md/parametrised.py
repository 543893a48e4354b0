"""Systems that AMBER or GROMACS have prepared: their parameters are taken as they are."""

from pathlib import Path

import numpy as np
from openmm import unit

from ..errors import InputError
from .choices import Assembled, Choices
from .inputs import whole_molecules
from .parameter_files import kind, read_coordinates, read_parameters
from .solvation import nonbonded_settings
from .structure import is_file


def is_parametrised(choices: Choices) -> bool:
    """Whether one of the files holds the parameters of its system."""
    return choices.coordinates is not None or (
        is_file(choices.source) and kind(choices.source) is not None
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
    pair = {kind(file): file for file in files}
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
        for parameters, coordinates in (("prmtop", "inpcrd"), ("top", "gro")):
            if set(pair) == {parameters, coordinates}:
                return _assemble(pair[parameters], pair[coordinates], choices.cutoff)
    except InputError:
        raise
    except Exception as error:  # parsers raise whatever they like on a damaged file
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"cannot read {' and '.join(files)} ({reason})") from None
    raise InputError(
        "give parameters and coordinates, like 'x.prmtop x.rst7' or 'x.top x.gro'; found "
        + " and ".join(f"'{file}'" for file in files)
    )


def _assemble(parameters: str, coordinates: str, cutoff: float) -> Assembled:
    positions, box = read_coordinates(coordinates)
    file = read_parameters(parameters, box)
    count = file.topology.getNumAtoms()
    if len(positions) != count:
        raise InputError(
            f"'{parameters}' has {count} atoms and '{coordinates}' {len(positions)}: they do not "
            "belong together"
        )
    vectors = file.topology.getPeriodicBoxVectors()
    if vectors is not None:
        cell = np.array(vectors.value_in_unit(unit.nanometer))
        positions = whole_molecules(file.topology, positions, cell)
    system = file.createSystem(**nonbonded_settings(file.topology, cutoff))
    return Assembled(file.topology, positions, system, record={"force_fields": [parameters]})
