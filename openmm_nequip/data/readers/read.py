"""Read a file of any known format: find its reader, settle the units, check every frame."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal, overload

from ...errors import InputError, did_you_mean
from ..frame import Frame
from . import ase_formats, deepmd, hdf5, npz, vasp
from .check import BadRecordError, to_frame
from .record import LABELS, Reader, Record, Source
from .units import Units, resolve_units, unknown_units

OnBad = Literal["error", "skip"]

_READERS: dict[str, Reader] = {
    "extxyz": ase_formats.read_extxyz,
    "xyz": ase_formats.read_extxyz,
    "ase-db": ase_formats.read_database,
    "db": ase_formats.read_database,
    "vasp-outcar": vasp.read_outcar,
    "vasp-out": vasp.read_outcar,  # ASE's names of the same
    "vasp-xml": vasp.read_xml,
    "npz": npz.read,
    "hdf5": hdf5.read,
    "deepmd": deepmd.read,
}
_SUFFIXES = {
    ".xyz": "extxyz",
    ".extxyz": "extxyz",
    ".db": "ase-db",
    ".npz": "npz",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
}


@dataclass(frozen=True)
class BadFrame:
    """A frame that must not be used: its index in the file and why."""

    index: int
    reason: str

    def __str__(self) -> str:
        return f"frame {self.index}: {self.reason}"


@dataclass(frozen=True)
class Frames(Sequence[Frame]):
    """The usable frames of a file; itself a sequence of them.

    Attributes
    ----------
    frames
        In the package's units (eV, Å).
    path, format
        What was read.
    units
        Units of the file and how they are known; print them.
    bad
        Frames that were left out.
    """

    frames: list[Frame]
    path: Path
    format: str
    units: Units
    bad: list[BadFrame] = field(default_factory=list)

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> list[Frame]: ...
    def __getitem__(self, index: int | slice) -> Frame | list[Frame]:
        return self.frames[index]

    def __len__(self) -> int:
        return len(self.frames)

    def summary(self) -> str:
        """Say in a few lines what was read, in which units, and what was left out."""
        return _summary(self, len(self.frames))


class FrameStream(Iterator[Frame]):
    """Frames of a file one by one; `bad` grows while they are read.

    Attributes
    ----------
    path, format, units, bad
        As in `Frames`.
    count
        Number of usable frames so far.
    """

    def __init__(
        self,
        path: Path,
        source: Source,
        units: Units,
        index: slice | None,
        require: Sequence[str],
        on_bad: OnBad,
    ):
        self.path = path
        self.format = source.format
        self.units = units
        self.bad: list[BadFrame] = []
        self.count = 0
        self._source = source
        self._require = require
        self._on_bad = on_bad
        self._records = _select(source, index)

    def __next__(self) -> Frame:
        for k, record in self._records:
            if self.units.energy is None and record.labels:
                raise unknown_units(str(self.path), self._source.convention, ["energy_unit"])
            try:
                frame = to_frame(record, self.units, self._require, f"{self.path}:{k}")
                self.count += 1
                return frame
            except BadRecordError as problem:
                bad = BadFrame(k, str(problem))
                if self._on_bad == "error":
                    raise InputError(
                        f"{self.path}, {bad}; correct it or leave bad frames out "
                        "(on_bad_frames: skip; --skip-bad-frames)"
                    ) from None
                self.bad.append(bad)
        raise StopIteration

    def summary(self) -> str:
        """Say in a few lines what was read so far, as `Frames.summary` does."""
        return _summary(self, self.count)


def iter_frames(
    path: str | Path,
    *,
    format: str | None = None,
    energy_unit: str | None = None,
    length_unit: str | None = None,
    force_unit: str | None = None,
    keys: Mapping[str, str] | None = None,
    index: slice | None = None,
    require: Sequence[str] = ("energy", "forces"),
    on_bad: OnBad = "error",
) -> FrameStream:
    """Read frames one at a time; the parameters are those of `read_frames`."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"data file '{path}' does not exist")
    for kind, allowed, given in (
        ("label in keys", LABELS, keys or ()),
        ("label in require", ("energy", "forces", "stress"), require),
        ("on_bad", ("error", "skip"), (on_bad,)),
    ):
        for word in given:
            if word not in allowed:
                hint = did_you_mean(word, allowed)
                raise InputError(f"{kind}: '{word}' is not one of {', '.join(allowed)}{hint}")
    source = _open(path, format, keys or {})
    units = resolve_units(source.convention, str(path), energy_unit, length_unit, force_unit)
    return FrameStream(path, source, units, index, require, on_bad)


def read_frames(
    path: str | Path,
    *,
    format: str | None = None,
    energy_unit: str | None = None,
    length_unit: str | None = None,
    force_unit: str | None = None,
    keys: Mapping[str, str] | None = None,
    index: slice | None = None,
    require: Sequence[str] = ("energy", "forces"),
    on_bad: OnBad = "error",
) -> Frames:
    """Read the labelled configurations of a file.

    Parameters
    ----------
    path
        A file, or the folder of a DeePMD system.
    format
        ``"extxyz"``, ``"ase-db"``, ``"vasp-outcar"``, ``"vasp-xml"``, ``"npz"`` (sGDML, rMD17),
        ``"hdf5"`` (ANI, COMP6, SPICE), ``"deepmd"``, or any format name of ASE; found from the
        name of the file if not given.
    energy_unit, length_unit, force_unit
        Units of the file (``"eV"``, ``"kcal/mol"``, ``"Hartree"``, ...; ``"Å"``, ``"bohr"``,
        ``"nm"``; forces as energy/length). Needed where neither format nor file tells; the force
        unit follows from the other two unless given.
    keys
        Names in the file for any of ``energy``, ``forces``, ``gradient`` (minus the forces),
        ``stress`` (ASE's sign) and ``virial`` (minus stress times volume), where the usual ones
        do not serve.
    index
        Which frames of the file.
    require
        Labels without which a frame is bad: any of ``energy``, ``forces``, ``stress``. A single
        atom needs no forces.
    on_bad
        ``"error"`` refuses a file with a bad frame; ``"skip"`` leaves such frames out and lists
        them. Bad are: unconverged or machine-learned VASP steps, what cannot be parsed, NaN or
        infinite numbers, wrong shapes, missing labels, atoms closer than 0.3 Å. Whether the runs
        of other programs converged is not looked into.

    Returns
    -------
    Frames
        The frames with the units of the file and the frames left out.

    Raises
    ------
    InputError
        The file is missing, of unknown format or units, or has no usable frame.

    Examples
    --------
    >>> data = read_frames("rmd17_ethanol.npz")  # doctest: +SKIP
    >>> print(data.summary())  # doctest: +SKIP
    """
    stream = iter_frames(
        path,
        format=format,
        energy_unit=energy_unit,
        length_unit=length_unit,
        force_unit=force_unit,
        keys=keys,
        index=index,
        require=require,
        on_bad=on_bad,
    )
    frames = list(stream)
    if not frames:
        why = f": {len(stream.bad)} are bad, the first is {stream.bad[0]}" if stream.bad else ""
        raise InputError(f"{path} has no usable frames{why}")
    return Frames(frames, stream.path, stream.format, stream.units, stream.bad)


def _open(path: Path, format: str | None, keys: Mapping[str, str]) -> Source:
    name = format or _guess_format(path)
    if name in _READERS:
        return _READERS[name](path, keys)
    return ase_formats.read_any(path, keys, name)


def _guess_format(path: Path) -> str:
    """Return a format from the name of a file, or else from what ASE sees in it."""
    if path.is_dir():
        if deepmd.systems(path):
            return "deepmd"
        raise InputError(
            f"{path} is a folder without a DeePMD system (type.raw and set.*); give a file"
        )
    known = _SUFFIXES.get(path.suffix.lower())
    if known is not None:
        return known
    if "OUTCAR" in path.name:
        return "vasp-outcar"
    if "vasprun" in path.name:
        return "vasp-xml"
    return ase_formats.guess(path)


def _select(source: Source, index: slice | None) -> Iterator[tuple[int, Record]]:
    records = enumerate(source.records)
    if index is None:
        return iter(records)
    bounds = (index.start or 0, index.stop or 0, index.step or 1)
    if min(bounds) < 0:  # counted from the end: all records must be seen first
        return iter(list(records)[index])
    return islice(records, index.start, index.stop, index.step)


def _summary(data: Frames | FrameStream, count: int) -> str:
    lines = [f"{data.path}: {count} frames ({data.format}), {data.units}"]
    if data.bad:
        lines.append(f"{len(data.bad)} frames left out:")
        lines += [f"  {bad}" for bad in data.bad[:10]]
        if len(data.bad) > 10:
            lines.append(f"  ... and {len(data.bad) - 10} more")
    return "\n".join(lines)
