"""Whatever ASE reads: extended XYZ, databases, and its other formats, which are in eV and Å."""

import io
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import ase.db
import ase.io
import numpy as np
from ase import Atoms
from ase.io.extxyz import read_xyz
from ase.io.formats import UnknownFileTypeError, filetype, get_ioformat, open_with_compression

from ...errors import InputError
from .labels import USUAL, label_keys, matrix
from .record import Convention, Keys, Record, Source
from .units import file_unit

_LOST = "so nothing after it can be read"


def read_extxyz(path: Path, keys: Keys) -> Source:
    """Open an extended XYZ file; its convention is eV and Å."""
    convention = Convention("eV", "Å", reason="extended XYZ is in eV and Å unless declared")
    return Source("extxyz", convention, _extxyz_records(path, keys))


def read_database(path: Path, keys: Keys) -> Source:
    """Open an ASE database; units that SchNetPack notes in its metadata are used."""
    try:
        metadata = dict(ase.db.connect(path).metadata)
    except Exception as error:  # ASE raises what sqlite3, json, ... raise
        raise InputError(f"{path} is not an ASE database: {_one_line(error)}") from None
    convention = Convention("eV", "Å", reason="ASE databases are in eV and Å unless declared")
    if "_distance_unit" in metadata:
        units = metadata.get("_property_unit_dict", {})
        names = label_keys(dict.fromkeys(units), keys, str(path))
        convention = Convention(
            energy=file_unit(units.get(names.get("energy"))),
            length=file_unit(metadata["_distance_unit"]),
            force=file_unit(units.get(names.get("forces", names.get("gradient")))),
            origin="file attribute",
            reason="units from the metadata of the database",
        )
    return Source("ase-db", convention, _database_records(path, keys))


def guess(path: Path) -> str:
    """Return ASE's name of a file's format, from its name and its content.

    Raises
    ------
    InputError
        ASE does not recognise the file.
    """
    try:
        name: str = get_ioformat(filetype(str(path))).name
    except UnknownFileTypeError:
        raise InputError(f"{path}: its format is not recognised; give it as format") from None
    return name


def read_any(path: Path, keys: Keys, name: str) -> Source:
    """Open a file of any other format that ASE knows."""
    try:
        get_ioformat(name)
    except UnknownFileTypeError:
        raise InputError(f"{path}: format '{name}' is unknown to this package and ASE") from None
    convention = Convention(
        "eV", "Å", reason=f"ASE converts the format '{name}' to eV and Å", fixed=True
    )
    if name.startswith("lammps-dump"):
        _check_elements(path)
        convention = Convention(
            "eV",
            "Å",
            reason="LAMMPS dumps are taken to be in metal units unless others are declared",
        )
    return Source(name, convention, _any_records(path, keys, name))


def _check_elements(path: Path) -> None:
    """Check that a LAMMPS dump tells its elements: types alone would be read as H, He, Li, ..."""
    with io.TextIOWrapper(open_with_compression(path, "rb"), errors="replace") as file:
        columns = next((line for line in file if line.startswith("ITEM: ATOMS")), "").split()
    if not {"element", "mass"} & set(columns):
        raise InputError(
            f"{path} does not tell its elements: write a text dump with them (dump ... custom ... "
            "id element x y z fx fy fz; dump_modify ... element C H O)"
        )


def record_of(atoms: Atoms, keys: Keys, where: str) -> Record:
    """Return the record of ASE atoms with whatever labels they carry."""
    values: dict[str, Any] = {**atoms.info, **atoms.arrays}
    for extra in ("key_value_pairs", "data"):
        if isinstance(values.get(extra), dict):
            values.update(values.pop(extra))
    if atoms.calc is not None:  # raw results: get_forces() would zero those of fixed atoms
        values.update({k: v for k, v in atoms.calc.results.items() if v is not None})
    of_atoms = {*atoms.arrays, "energies"} if atoms.calc is not None else {*atoms.arrays}
    for name in [name for name in values if name.lower() in USUAL["energy"]]:
        if name in of_atoms or np.size(values[name]) > 1:  # ASE's energies are those of the atoms
            del values[name]
    if (atoms.pbc & ~atoms.cell.array.any(axis=1)).any():
        return Record(problem="it is periodic in a direction for which it has no cell vector")
    names = label_keys(values, keys, where)
    labels = {
        label: matrix(values[name]) if label in ("stress", "virial") else values[name]
        for label, name in names.items()
    }
    return Record(
        numbers=atoms.numbers,
        positions=atoms.positions,
        cell=atoms.cell.complete().array if atoms.cell.rank else None,
        pbc=tuple(bool(periodic) for periodic in atoms.pbc),  # type: ignore[arg-type]
        labels=labels,
        found=tuple(k for k in values if k not in ("numbers", "positions")),
    )


def _extxyz_records(path: Path, keys: Keys) -> Iterator[Record]:
    """Split the file by its atom counts, so that one bad frame does not end the reading."""
    # letters of a comment in another encoding than UTF-8 do no harm
    with io.TextIOWrapper(
        open_with_compression(path, "rb"), encoding="utf-8-sig", errors="replace"
    ) as file:
        for index in itertools.count():
            record = _next_extxyz(file, keys, f"{path}, frame {index}")
            if record is None:
                return
            yield record
            if record.problem and record.problem.endswith(_LOST):
                return


def _next_extxyz(file: TextIO, keys: Keys, where: str) -> Record | None:
    count = file.readline()
    while count.isspace():
        count = file.readline()
    if not count:
        return None
    if not count.strip().isdigit():
        text = count.strip()[:40]
        return Record(problem=f"expected the number of atoms, found '{text}', {_LOST}")
    lines = [count, *itertools.islice(file, int(count) + 1)]
    if len(lines) < int(count) + 2:
        return Record(problem=f"the file ends before atom {int(count)} of the frame")
    lines[1] = _TENSOR.sub(_nine_numbers, lines[1])
    try:
        atoms = next(read_xyz(io.StringIO("".join(lines)), 0))
    except Exception as error:  # whatever the text made ASE's parser stumble over
        return Record(problem=f"cannot be parsed: {_one_line(error)}")
    return record_of(atoms, keys, where)


# ASE takes these two with nine numbers only, under any other name also with six.
_TENSOR = re.compile(r'(?<!\w)(stress|virial)="([^"]*)"')


def _nine_numbers(match: re.Match[str]) -> str:
    numbers = match[2].split()
    if len(numbers) != 6:
        return match[0]
    xx, yy, zz, yz, xz, xy = numbers
    return f'{match[1]}="{xx} {xy} {xz} {xy} {yy} {yz} {xz} {yz} {zz}"'


def _database_records(path: Path, keys: Keys) -> Iterator[Record]:
    for index, row in enumerate(ase.db.connect(path).select()):
        atoms = row.toatoms(add_additional_information=True)
        yield record_of(atoms, keys, f"{path}, frame {index}")


def _any_records(path: Path, keys: Keys, format: str) -> Iterator[Record]:
    frames = ase.io.iread(path, index=":", format=format)
    for index in itertools.count():
        try:
            atoms = next(frames)
        except StopIteration:
            return
        except Exception as error:  # ASE's parsers raise anything
            yield Record(problem=f"ASE cannot parse it: {_one_line(error)}, {_LOST}")
            return
        if format.startswith("lammps-dump") and atoms.calc is not None:
            atoms.calc.results.pop("energy", None)  # dumps have none, and ASE makes it zero
        yield record_of(atoms, keys, f"{path}, frame {index}")


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
