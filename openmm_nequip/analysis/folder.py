"""A run folder as the analysis reads it: in pieces that fit into memory."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import ase
import mdtraj
import numpy as np
from openmm import app
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components

from ..config import load_config
from ..errors import InputError
from ..md.config import SimulationConfig
from ..md.images import along_bonds, shortest
from ..md.reporters import quiet
from .observables import find_bonds

EQUILIBRATION = 0.2  # fraction of a run without an equilibration of its own left out of averages
_MOST_COORDINATES = 3_000_000  # atoms times frames held at a time: 72 MB in double precision
_FRAMES = 20_000  # at most
_MANY = 10  # molecules alike are a solvent
_CLOSED = 0.01  # nm, by which the way along bonds back to an atom may miss it
_CHUNK = 1_000_000  # atoms times frames of a piece of the trajectory


@dataclass(frozen=True)
class Run:
    """A run folder.

    Attributes
    ----------
    folder
        Where it is.
    config
        The run's configuration.
    log
        Columns of the state log by name, shape ``[T]`` each, equilibration (time < 0) included;
        those without any number are left out.
    topology
        mdtraj's.
    selection
        What chose the ML region; '' where there is none.
    region
        Its atoms, shape ``[M]``; empty where the potential is on all atoms.
    """

    folder: Path
    config: SimulationConfig
    log: dict[str, np.ndarray]
    topology: mdtraj.Topology
    selection: str
    region: np.ndarray

    @property
    def is_mixed(self) -> bool:
        """Whether only a part of the system has the potential."""
        return len(self.region) > 0

    @cached_property
    def production(self) -> dict[str, np.ndarray]:
        """The log from time 0 on."""
        counted = self.log["time_ps"] >= 0
        return {name: values[counted] for name, values in self.log.items()}

    def steady(self, count: int) -> int:
        """Return the first of `count` rows or frames of the production that averages use."""
        return 0 if self.config.equilibration_steps else int(EQUILIBRATION * count)

    @cached_property
    def steady_log(self) -> dict[str, np.ndarray]:
        """The part of the log that averages use."""
        first = self.steady(len(self.production["time_ps"]))
        return {name: values[first:] for name, values in self.production.items()}

    @cached_property
    def numbers(self) -> np.ndarray:
        """Atomic numbers, shape ``[N]``; 0 for a virtual site."""
        return np.array([atom.element.atomic_number for atom in self.topology.atoms])

    @cached_property
    def masses(self) -> np.ndarray:
        """Of the elements, atomic mass units, shape ``[N]``."""
        return np.array([atom.element.mass for atom in self.topology.atoms])

    @cached_property
    def bonds(self) -> np.ndarray:
        """Bonds of the topology, or guessed by distance where it has none; shape ``[B, 2]``."""
        known = np.array([(a.index, b.index) for a, b in self.topology.bonds], dtype=int)
        known = known.reshape(-1, 2)
        loose = np.setdiff1d(self._not_solvent, known)
        if len(loose) < 2:
            return known
        first = self.frame(0).atom_slice(self._not_solvent)
        box = None if first.unitcell_vectors is None else first.unitcell_vectors[0] * 10.0
        numbers = self.numbers[self._not_solvent]
        found = self._not_solvent[find_bonds(numbers, first.xyz[0].astype(float) * 10.0, box)]
        return np.unique(np.sort(np.concatenate([known, found]), axis=1), axis=0)

    def bonds_within(self, atoms: np.ndarray) -> np.ndarray:
        """Return the bonds between sorted `atoms`, by place among them; shape ``[B, 2]``."""
        inside = self.bonds[np.isin(self.bonds, atoms).all(axis=1)]
        return np.searchsorted(atoms, inside).reshape(-1, 2)

    @cached_property
    def molecules(self) -> np.ndarray:
        """Number of the molecule of each atom, shape ``[N]``."""
        count = len(self.numbers)
        # The virtual sites of a water have no bonds.
        waters = [
            (residue.atom(0).index, atom.index)
            for residue in self.topology.residues
            if residue.is_water
            for atom in residue.atoms
        ]
        pairs = np.concatenate([self.bonds, np.array(waters, dtype=int).reshape(-1, 2)])
        graph = coo_matrix((np.ones(len(pairs)), pairs.T), (count, count))
        return connected_components(graph, directed=False)[1]

    @cached_property
    def composition(self) -> str:
        """Molecules by number, as 'C2H6O + 300 H2O', or the formula where they are too many."""
        order = np.argsort(self.molecules, kind="stable")
        ends = np.cumsum(np.bincount(self.molecules))[:-1]
        kinds = Counter(tuple(np.sort(part)) for part in np.split(self.numbers[order], ends))
        if len(kinds) > 5:
            return formula(self.numbers)
        named = sorted((count, formula(np.array(kind))) for kind, count in kinds.items())
        return " + ".join(f"{count} {name}" if count > 1 else name for count, name in named)

    @cached_property
    def water(self) -> np.ndarray:
        """Atoms of the water around the region, shape ``[W]``."""
        return np.setdiff1d([atom.index for atom in self.topology.atoms if atom.residue.is_water],
                            self.region).astype(int)  # fmt: skip

    @cached_property
    def _not_solvent(self) -> np.ndarray:
        """Everything but water and single ions, and the region in any case."""
        others = [
            atom.index
            for atom in self.topology.atoms
            if not atom.residue.is_water and (atom.residue.n_atoms > 1 or not self.is_periodic)
        ]
        return np.union1d(np.array(others, dtype=int), self.region).astype(int)

    @cached_property
    def solute(self) -> np.ndarray:
        """What is looked at as a molecule: the region and all but the solvent; else all atoms.

        Solvent is also what there are many molecules of, other than biopolymers. Empty for a
        liquid or a crystal, where no molecule is special.
        """
        found = self._not_solvent
        if self.is_periodic:
            others = [*self._crowd(found), *self._networks()]
            found = found[~np.isin(self.molecules[found], others)]
        if self.is_mixed or (len(found) and len(np.unique(self.molecules[found])) == 1):
            return found
        return np.array([], dtype=int) if self.is_periodic else np.arange(len(self.numbers))

    def _crowd(self, atoms: np.ndarray) -> list[int]:
        """Find among the molecules of `atoms` those that there are many of, as by formula."""
        kinds = defaultdict(list)
        own = set(self.molecules[self.region].tolist())
        order = atoms[np.argsort(self.molecules[atoms], kind="stable")]
        ends = np.flatnonzero(np.diff(self.molecules[order])) + 1
        for members in np.split(order, ends) if len(order) else []:
            label = int(self.molecules[members[0]])
            residue = self.topology.atom(int(members[0])).residue
            if label not in own and not (residue.is_protein or residue.is_nucleic):
                kinds[tuple(np.sort(self.numbers[members]))].append(label)
        return [label for alike in kinds.values() if len(alike) >= _MANY for label in alike]

    def _networks(self) -> list[int]:
        """Find among the molecules those that are bonded to images of themselves, as crystals."""
        own = set(self.molecules[self.region].tolist())
        first = self.frame(0)
        if first.unitcell_vectors is None or not len(self.bonds):
            return []
        i, j = self.bonds.T
        positions = first.xyz[0].astype(float)
        steps = shortest(positions[j] - positions[i], first.unitcell_vectors[0].astype(float))
        whole = along_bonds(positions, self.bonds, steps)
        torn = np.linalg.norm(whole[j] - whole[i] - steps, axis=1) > _CLOSED
        return sorted(set(self.molecules[i[torn]].tolist()) - own)

    @property
    def followed(self) -> np.ndarray:
        """Atoms of `trajectory`: the solute, or all."""
        return self.solute if len(self.solute) else np.arange(len(self.numbers))

    @property
    def focus(self) -> np.ndarray:
        """The region, or the solute where there is none."""
        return self.region if self.is_mixed else self.solute

    @cached_property
    def path(self) -> Path:
        """The trajectory."""
        return trajectory_path(self.folder)

    @cached_property
    def num_frames(self) -> int:
        """Frames in the trajectory."""
        return _length(self.path)

    @cached_property
    def is_periodic(self) -> bool:
        """Whether there is a box."""
        return "volume_nm3" in self.log

    @property
    def spacing(self) -> float:
        """Time between frames, ps."""
        return self.config.trajectory_steps * self.config.timestep / 1000

    def stride(self, atoms: int, frames: int = _FRAMES) -> int:
        """Return every how manieth frame is looked at, for so many atoms and at most `frames`."""
        return self._stride(self.num_frames, atoms, frames)

    @staticmethod
    def _stride(count: int, atoms: int, frames: int) -> int:
        return max(1, -(-count // min(frames, max(1, _MOST_COORDINATES // atoms))))

    def load(self, atoms: np.ndarray | None = None, stride: int = 1) -> mdtraj.Trajectory:
        """Load some or all atoms of every `stride`-th frame.

        Raises
        ------
        InputError
            The trajectory cannot be read.
        """
        with reading(self.path):
            return mdtraj.load(
                str(self.path), atom_indices=atoms, stride=stride, **self.topology_argument
            )

    @cached_property
    def trajectory(self) -> mdtraj.Trajectory:
        """The `followed` atoms in at most 20,000 frames, molecules whole and together."""
        atoms = self.followed
        found = self.load(atoms, self.stride(len(atoms)))
        if self.is_periodic and len(self.solute):
            self._make_whole(found, atoms)
        return found

    @cached_property
    def frames(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the region or molecule, Å, shape ``[F, M, 3]``, and times, ps, ``[F]``.

        From the trajectory of the region alone where there is one: its frames are closer.
        """
        inside = np.searchsorted(self.solute, self.focus) if len(self.solute) else slice(None)
        path, interval = self.folder / "region.dcd", self.config.ml_trajectory_steps
        if not self.is_mixed or interval is None or not path.exists():
            return self.trajectory.xyz[:, inside].astype(float) * 10.0, self.times
        stride = self._stride(_length(path), len(self.region), _FRAMES)
        with reading(path):
            found = mdtraj.load(str(path), stride=stride, top=self.topology.subset(self.region))
        if self.is_periodic:
            self._make_whole(found, self.region)
        spacing = stride * interval * self.config.timestep / 1000
        return found.xyz.astype(float) * 10.0, np.arange(len(found)) * spacing

    def _make_whole(self, trajectory: mdtraj.Trajectory, atoms: np.ndarray) -> None:
        """Put atoms beside those they are bonded to, and molecules beside the largest one.

        Beside: at the image nearest to that atom of it which a molecule is next to in the first
        frame, for the middle of a long molecule may be nearer to another image.
        """
        if len(atoms) < 2:
            return
        trajectory.make_molecules_whole(inplace=True, sorted_bonds=self._outwards(atoms))
        labels = self.molecules[atoms]
        members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        largest, *others = sorted(members, key=len, reverse=True)
        xyz, boxes = trajectory.xyz, trajectory.unitcell_vectors
        for group in others:
            centre = xyz[:, group].mean(axis=1)
            apart = shortest(centre[0] - xyz[0, largest], boxes[0])
            next_to = largest[np.linalg.norm(apart, axis=1).argmin()]
            vectors = centre - xyz[:, next_to]
            xyz[:, group] += (shortest(vectors, boxes) - vectors)[:, None]

    def _outwards(self, atoms: np.ndarray) -> np.ndarray:
        """Return bonds such that along them each atom is reached from one reached before."""
        bonds = self.bonds_within(atoms)
        graph = coo_matrix((np.ones(len(bonds)), bonds.T), (len(atoms),) * 2).tocsr()
        labels = connected_components(graph, directed=False)[1]
        found = []
        for start in np.unique(labels, return_index=True)[1]:
            order, before = breadth_first_order(graph, start, directed=False)
            found += [(before[atom], atom) for atom in order[1:]]
        return np.array(found, dtype=np.int32).reshape(-1, 2)

    @property
    def times(self) -> np.ndarray:
        """Of the frames of `trajectory`, ps."""
        stride = self.stride(len(self.followed))
        return np.arange(len(self.trajectory)) * stride * self.spacing

    def chosen(self, frames: int) -> range:
        """Return about so many frames of the steady part, evenly spaced."""
        first = self.steady(self.num_frames)
        return range(first, self.num_frames, max(1, -(-(self.num_frames - first) // frames)))

    def chunks(self, frames: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the `chosen` frames of a periodic run, a few at a time.

        Positions of all atoms and box vectors, Å, shapes ``[F, N, 3]`` and ``[F, 3, 3]``.
        """
        chosen = self.chosen(frames)
        size = max(1, _CHUNK // len(self.numbers))
        for start in range(0, len(chosen), size):
            with self._opened() as file:  # finding frames in an XTC file takes a while
                found = [self._at(file, k) for k in chosen[start : start + size]]
            positions = np.concatenate([frame.xyz for frame in found]).astype(float)
            box = np.concatenate([frame.unitcell_vectors for frame in found]).astype(float)
            yield positions * 10.0, box * 10.0

    def frame(self, number: int) -> mdtraj.Trajectory:
        """Load all atoms of one frame."""
        with self._opened() as file:
            return self._at(file, number)

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        # Not by mdtraj.iterload, which never ends for XTC files with a stride.
        with reading(self.path), mdtraj.open(str(self.path)) as file:
            yield file

    def _at(self, file: Any, number: int) -> mdtraj.Trajectory:
        file.seek(number)
        return file.read_as_traj(*self.topology_argument.values(), n_frames=1)

    @property
    def topology_argument(self) -> dict[str, mdtraj.Topology]:
        """What mdtraj's readers need beside the path."""
        return {} if self.path.suffix == ".h5" else {"top": self.topology}


def formula(numbers: np.ndarray) -> str:
    """Return the sum formula in Hill's order; virtual sites do not count."""
    return ase.Atoms(numbers[numbers > 0]).get_chemical_formula("hill")


def open_run(folder: str | Path) -> Run:
    """Open a run folder, finished or not.

    Raises
    ------
    InputError
        The folder is not a run folder, there is too little in it yet, or it is damaged.
    """
    folder = Path(folder)
    if not (folder / "config.yaml").exists() or not (folder / "state.csv").exists():
        raise InputError(f"'{folder}' is not a run folder: config.yaml or state.csv is missing")
    config = load_config(SimulationConfig, folder / "config.yaml")
    log = read_log(folder / "state.csv")
    if "time_ps" not in log:
        raise InputError(f"'{folder / 'state.csv'}' is damaged: it has no column time_ps")
    rows = int((log["time_ps"] >= 0).sum())
    if rows < 3:
        raise InputError(f"'{folder / 'state.csv'}' has {rows} rows so far; an analysis needs 3")
    topology, trajectory = load_topology(folder), trajectory_path(folder)
    atoms = _atoms(trajectory)
    if atoms not in (None, topology.n_atoms):
        raise InputError(
            f"'{trajectory}' has {atoms} atoms and the topology beside it {topology.n_atoms}: they "
            "are of different runs"
        )
    region = {"atoms": [], "selection": ""}
    if (folder / "region.json").exists():
        region = json.loads((folder / "region.json").read_text())
    return Run(
        folder,
        config,
        log,
        topology,
        str(region["selection"]),
        np.sort(np.array(region["atoms"], dtype=int)),
    )


def read_log(path: Path) -> dict[str, np.ndarray]:
    """Read a state log; a row that a killed run left unfinished is dropped.

    So are columns without any number, such as the energy of a potential that was not evaluated.
    """
    lines = path.read_text().splitlines(keepends=True)
    header = lines[0].strip().split(",")
    if not lines[-1].endswith("\n"):
        lines.pop()
    if len(lines) < 2:
        return {name: np.empty(0) for name in header}
    filled = [re.sub(r"(?<=,)(?=[,\n])", "nan", line) for line in lines[1:]]
    try:
        columns = np.loadtxt(filled, delimiter=",", ndmin=2).T
        named = dict(zip(header, columns, strict=True))
    except ValueError as error:
        raise InputError(f"'{path}' is damaged: {error}") from None
    return {name: values for name, values in named.items() if not np.isnan(values).all()}


def load_topology(folder: Path) -> mdtraj.Topology:
    """Load the topology of a run folder.

    Raises
    ------
    InputError
        There is none, or it cannot be read.
    """
    for name in ("topology.pdb", "topology.cif"):
        path = folder / name
        if path.exists():
            with reading(path):
                if path.suffix == ".cif":
                    return mdtraj.Topology.from_openmm(app.PDBxFile(str(path)).topology)
                return mdtraj.load_topology(path, standard_names=False)
    raise InputError(f"there is no topology.pdb or topology.cif in '{folder}'")


def trajectory_path(folder: Path) -> Path:
    """Return the trajectory of a run folder.

    Raises
    ------
    InputError
        There is none.
    """
    paths = [folder / f"trajectory.{suffix}" for suffix in ("h5", "xtc", "dcd")]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        raise InputError(f"there is no trajectory in '{folder}'")
    return path


def _atoms(path: Path) -> int | None:
    """Return how many atoms a trajectory has; `None` if it has no frame yet."""
    with reading(path), mdtraj.open(str(path)) as file:
        return file.read(n_frames=1)[0].shape[1] if len(file) else None


def _length(path: Path) -> int:
    with reading(path), mdtraj.open(str(path)) as file:
        return len(file)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what the readers of a damaged file raise into one clear line."""
    try:
        with quiet():
            yield
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"cannot read '{path}': {' '.join(str(error).split())}") from None
