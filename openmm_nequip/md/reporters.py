"""What a run writes while it goes: the state log and the trajectory.

Both know how long they are and can be cut back to that length, so that a run that goes on from a
checkpoint neither loses nor repeats a row or a frame.
"""

import csv
import errno
import io
import os
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import openmm
from openmm import app, unit

from ..errors import InputError
from ..modelfile import write_atomically

GAS_CONSTANT = unit.MOLAR_GAS_CONSTANT_R.value_in_unit(unit.kilojoule_per_mole / unit.kelvin)


class Length(NamedTuple):
    """How much of a file there is: rows or frames, and bytes."""

    entries: int
    size: int


class Reading(NamedTuple):
    """What is logged of a state, in OpenMM's units.

    Attributes
    ----------
    potential, kinetic
        kJ/mol.
    temperature
        K.
    volume
        nm³; `None` without a box.
    ml_potential
        Of the ML region by the potential, whatever λ is, kJ/mol; `None` where the region is the
        whole system.
    derivative
        dE/dλ, kJ/mol; `None` without interpolation.
    """

    potential: float
    kinetic: float
    temperature: float
    volume: float | None
    ml_potential: float | None = None
    derivative: float | None = None


def temperature_of(kinetic: float, dof: int) -> float:
    """Return K from a kinetic energy in kJ/mol and its number of degrees of freedom."""
    return 2 * kinetic / (max(dof, 1) * GAS_CONSTANT)


def density(mass: float, volume: float) -> float:
    """Return g/mL from atomic mass units and nm³."""
    return mass * 1.66053906660e-3 / volume


def read(state: openmm.State, dof: int, periodic: bool) -> Reading:
    """Take a `Reading` from a state that holds energies."""
    kinetic = state.getKineticEnergy().value_in_unit(unit.kilojoule_per_mole)
    return Reading(
        potential=state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole),
        kinetic=kinetic,
        temperature=temperature_of(kinetic, dof),
        volume=state.getPeriodicBoxVolume().value_in_unit(unit.nanometer**3) if periodic else None,
    )


def _cut(path: Path, length: Length) -> None:
    size = path.stat().st_size if path.exists() else 0
    if size < length.size:
        raise InputError(
            f"{path} is shorter ({size} bytes) than its checkpoint says ({length.size}): it was "
            "changed since; restore it, or remove the run folder and start again"
        )
    os.truncate(path, length.size)


def _sync(path: Path) -> int:
    """Push a file to the disk and return its size."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size


class StateLog:
    """The state log: CSV with energies in kJ/mol, times in ps and, with a box, volume and density.

    Parameters
    ----------
    path
        File to write.
    mass
        Of the whole system, in atomic mass units; for the density.
    periodic
        Whether there is a box.
    resume
        Length at the checkpoint to go on from; `None` starts the file.
    mixed, interpolated
        Whether there are columns for the energy of the ML region and for dE/dλ.
    """

    def __init__(
        self,
        path: Path,
        mass: float,
        periodic: bool,
        resume: Length | None = None,
        mixed: bool = False,
        interpolated: bool = False,
    ):
        self.path, self._mass, self._periodic = path, mass, periodic
        self._rows = resume.entries if resume else 0
        if resume:
            _cut(path, resume)
            return
        columns = ["step", "time_ps", "potential_kJ_mol", "kinetic_kJ_mol", "total_kJ_mol"]
        columns += ["temperature_K", *(["volume_nm3", "density_g_mL"] if periodic else [])]
        columns += ["ml_potential_kJ_mol"] * mixed + ["dE_dlambda_kJ_mol"] * interpolated
        path.write_text(",".join([*columns, "speed_ns_day"]) + "\n")

    def append(self, step: int, time: float, reading: Reading, speed: float) -> None:
        """Add a row; `time` in ps, `speed` in ns/day."""
        row = [f"{step}", f"{time:.6f}", f"{reading.potential:.6f}", f"{reading.kinetic:.6f}"]
        row += [f"{reading.potential + reading.kinetic:.6f}", f"{reading.temperature:.3f}"]
        if reading.volume is not None:
            row += [f"{reading.volume:.6f}", f"{density(self._mass, reading.volume):.6f}"]
        row += [f"{x:.6f}" for x in (reading.ml_potential, reading.derivative) if x is not None]
        with self.path.open("a") as file:
            file.write(",".join([*row, f"{speed:.4g}"]) + "\n")
        self._rows += 1

    def length(self) -> Length:
        """Return the length of what is safely on the disk."""
        return Length(self._rows, _sync(self.path))


class WarningLog:
    """The warnings of a run, CSV; there is no file as long as there is no warning.

    Parameters
    ----------
    path
        File to write.
    resume
        Step of the checkpoint to go on from: later warnings are dropped. `None` drops all.

    Attributes
    ----------
    kinds : list of str
        What had been warned about before.
    """

    def __init__(self, path: Path, resume: int | None = None):
        self.path = path
        found = [] if resume is None else read_warnings(path)
        self._rows = [row for row in found if int(row["step"]) <= (resume or 0)]
        self.kinds = [row["kind"] for row in self._rows]
        if self._rows:
            self._write()
        else:
            path.unlink(missing_ok=True)

    def append(self, step: int, time: float, kind: str, message: str) -> None:
        """Add a warning; `time` in ps."""
        row = {"step": f"{step}", "time_ps": f"{time:.6f}", "kind": kind, "message": message}
        self._rows.append(row)
        self._write()

    def _write(self) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(self._rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_atomically(self.path, text.getvalue().encode())


def read_warnings(path: Path) -> list[dict[str, str]]:
    """Return the rows of a `WarningLog`; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class TrajectoryWriter:
    """The trajectory as DCD or XTC; coordinates as they are, never wrapped into the box.

    Parameters
    ----------
    path
        File to write; its suffix is the format.
    topology
        Atoms and, where there is one, the box.
    timestep
        ps.
    interval
        Steps between frames.
    resume
        Length at the checkpoint to go on from; `None` starts the file.
    atoms
        Indices of those to write; `None` is all of the topology.
    """

    def __init__(
        self,
        path: Path,
        topology: app.Topology,
        timestep: float,
        interval: int,
        resume: Length | None = None,
        atoms: Sequence[int] | None = None,
    ):
        self.path = path
        self._atoms = np.arange(topology.getNumAtoms()) if atoms is None else np.array(atoms)
        if atoms is not None:
            topology = _part(topology, atoms)
        append = resume is not None and resume.entries > 0
        self._frames = resume.entries if resume else 0
        if append:
            assert resume is not None
            _cut(path, resume)
        else:
            path.unlink(missing_ok=True)
        self._writer: app.XTCFile | app.DCDFile
        if path.suffix == ".xtc":
            self._writer = app.XTCFile(str(path), topology, timestep, 0, interval, append)
            return
        if append:
            with path.open("r+b") as header:  # frames, and step of the last one
                header.seek(8)
                header.write(struct.pack("<i", self._frames))
                header.seek(20)
                header.write(struct.pack("<i", (self._frames - 1) * interval))
        self._file = path.open("r+b" if append else "w+b")
        self._writer = app.DCDFile(self._file, topology, timestep, 0, interval, append)

    def append(self, state: openmm.State) -> None:
        """Add the state's positions as a frame."""
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)[self._atoms]
        before = self.path.stat().st_size if self.path.exists() else 0
        try:
            self._writer.writeModel(positions, periodicBoxVectors=state.getPeriodicBoxVectors())
            written = self.path.stat().st_size > before  # the XTC library may fail in silence
        except RuntimeError:  # or does not say why
            written = False
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        self._frames += 1

    def length(self) -> Length:
        """Return the length of what is safely on the disk."""
        return Length(self._frames, _sync(self.path)) if self._frames else Length(0, 0)

    def close(self) -> None:
        """Close the file."""
        if self.path.suffix == ".dcd":
            self._file.close()


def _part(topology: app.Topology, atoms: Sequence[int]) -> app.Topology:
    """Return some of the atoms, as one residue, and the box."""
    members = list(topology.atoms())
    part = app.Topology()
    residue = part.addResidue("ML", part.addChain())
    for index in atoms:
        part.addAtom(members[index].name, members[index].element, residue)
    part.setPeriodicBoxVectors(topology.getPeriodicBoxVectors())
    return part


def to_hdf5(trajectory: Path, topology: Path, timestep: float) -> Path:
    """Turn a trajectory into MDTraj's HDF5 format, which holds its topology too.

    HDF5 files do not survive a killed writer, so a run writes DCD and ends with this.

    Parameters
    ----------
    trajectory, topology
        DCD file, and PDB or mmCIF file.
    timestep
        ps between frames.
    """
    import mdtraj

    target = trajectory.with_suffix(".h5")
    partial = target.with_suffix(".partial.h5")
    options = {"standard_names": False} if topology.suffix == ".pdb" else {}
    pdb = mdtraj.load_topology(topology, **options)
    with quiet(), mdtraj.formats.HDF5TrajectoryFile(str(partial), "w") as file:
        file.topology = pdb
        start = 0
        for chunk in mdtraj.iterload(str(trajectory), top=pdb, chunk=1000):
            file.write(
                chunk.xyz,
                time=np.arange(start, start + len(chunk)) * timestep,
                cell_lengths=chunk.unitcell_lengths,
                cell_angles=chunk.unitcell_angles,
            )
            start += len(chunk)
    _sync(partial)
    partial.replace(target)
    return target


def check_format(name: str) -> None:
    """Check that a trajectory format can be written here.

    Raises
    ------
    InputError
        The format is 'h5' and PyTables is not installed.
    """
    if name == "h5" and find_spec("tables") is None:
        raise InputError(
            "trajectory format 'h5' needs PyTables: 'pip install tables', or use 'dcd' or 'xtc'"
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what MDTraj's DCD reader prints, in C, on standard output."""
    sys.stdout.flush()
    kept = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
