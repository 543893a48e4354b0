"""Generate the data set of `organic-small`: conformations labelled by the ANI-2x ensemble.

    export OPENMM_NEQUIP_DATA=<folder with ani2x/ and spice_conformations/>
    python benchmarks/organic/generate.py runs/organic --workers 2

Molecules and conformations follow from the seed. Every piece of work is a file of its own, written
when it is finished; the same command goes on where it was stopped, and in the end joins them to
``train.h5``, ``validation.h5`` and ``test.h5``. Molecules are held out by scaffold.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import conformations as c
import h5py
import molecules as m
import numpy as np
import typer
from ase import Atoms
from ase.data import atomic_numbers
from dask.distributed import Client, LocalCluster, as_completed
from rdkit import Chem
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Table
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from teacher import ELEMENTS, Teacher

from openmm_nequip.data.readers import read_frames
from openmm_nequip.md.structure import bonded_pairs

SEED = 2026
#: Frames are left out where the members disagree by more (eV, over the root of the number of atoms)
MAX_SPREAD = 0.010
#: ... but for barriers of torsions, on which they disagree and which have to be known all the same
MAX_SPREAD_TURNED = 0.020
#: ... and where a force is larger (eV/Å).
MAX_FORCE = 10.0
_BATCH = 64
_NUMBERS = {atomic_numbers[symbol] for symbol in ELEMENTS}


class Work(NamedTuple):
    """One piece of work: which frames of what to make.

    Attributes
    ----------
    kind
        Name of the function that makes them.
    name
        Unique; the random numbers follow from it.
    subjects
        SMILES, or where in a file to look.
    frames
        How many to make of each.
    max_spread
        How far the members may disagree, eV over the root of the number of atoms.
    """

    kind: str
    name: str
    subjects: tuple[Any, ...]
    frames: int
    max_spread: float = MAX_SPREAD


class Frame(NamedTuple):
    """A structure, and the molecule (SMILES) or cluster it is of."""

    title: str
    structure: c.Structure


def _embedded(smiles: str, rng: np.random.Generator, conformers: int) -> c.Molecule | None:
    """Return a molecule, if RDKit can embed it and MMFF94 knows it."""
    try:
        return c.Molecule(smiles, rng, conformers)
    except ValueError:
        return None


def of_molecules(work: Work, rng: np.random.Generator) -> Iterator[Frame]:
    """Normal modes, dynamics, torsions and stretched bonds of each molecule."""
    for smiles in work.subjects:
        molecule = _embedded(smiles, rng, conformers=3)
        if molecule is None:
            continue
        shares = rng.multinomial(work.frames, [0.3, 0.4, 0.15, 0.15])
        makers: list[Callable[[int, int], list[np.ndarray]]] = [
            lambda k, n: c.bend_and_stretch(molecule, k, rng.uniform(100, 800), n, rng),  # noqa: B023
            lambda k, n: c.dynamics(molecule, k, rng.uniform(200, 700), n, rng),  # noqa: B023
            lambda k, n: c.torsions(molecule, k, n, rng),  # noqa: B023
            lambda k, n: c.stretched(molecule, k, n, rng),  # noqa: B023
        ]
        for share, make in zip(shares, makers, strict=True):
            conformers = rng.integers(len(molecule.minima), size=share)
            for k, count in Counter(conformers.tolist()).items():
                for positions in make(k, count):
                    yield Frame(smiles, c.Structure(molecule.numbers, positions))


def of_clusters(work: Work, rng: np.random.Generator) -> Iterator[Frame]:
    """Dimers, and molecules with some water, at random distances and temperatures."""
    pool = [_moving(smiles, rng) for smiles in work.subjects]
    shapes = [shape for shape in pool if shape]
    water = _moving("O", rng)
    while len(shapes) < 2:
        shapes.append(water)
    for _ in range(work.frames):
        chosen = [shapes[k] for k in rng.choice(len(shapes), 2, replace=False)]
        if rng.random() < 0.25:
            chosen = [chosen[0], *[water] * int(rng.integers(1, 5))]
        parts = [shape[rng.integers(len(shape))] for shape in chosen]
        spread = 0.5 if rng.random() < 0.6 else 3.0
        yield Frame(work.name, c.together(parts, rng, closeness=-0.2, spread=spread))


def _moving(smiles: str, rng: np.random.Generator) -> list[c.Structure]:
    """Return conformations at about room temperature, if MMFF94 and the teacher know it well."""
    molecule = _embedded(smiles, rng, conformers=1)
    if molecule is None:
        return []
    frames = c.dynamics(molecule, 0, rng.uniform(200, 500), 12, rng)
    labels = _teacher().label([molecule.numbers] * len(frames), frames)
    return [
        c.Structure(molecule.numbers, positions)
        for positions, label in zip(frames, labels, strict=True)
        if label.spread < 0.5 * MAX_SPREAD
    ]


def of_torsions(work: Work, rng: np.random.Generator) -> Iterator[Frame]:
    """Rotatable bonds of each molecule, turned by any angle."""
    for smiles in work.subjects:
        molecule = _embedded(smiles, rng, conformers=1)
        if molecule is None:
            continue
        for positions in c.torsions(molecule, 0, work.frames, rng):
            yield Frame(smiles, c.Structure(molecule.numbers, positions))


def of_complexes(work: Work, rng: np.random.Generator) -> Iterator[Frame]:
    """Relaxed dimers, pushed together, pulled apart, and at a temperature."""
    pool = [_known(smiles, rng) for smiles in work.subjects]
    molecules = [molecule for molecule in pool if molecule]
    for k, molecule in enumerate(molecules):
        partner = molecules[k if rng.random() < 0.3 else rng.integers(len(molecules))]
        try:
            pair = c.Complex(molecule, partner, rng)
        except ValueError:
            continue
        frames = pair.apart(work.frames // 2, rng)
        frames += c.dynamics(pair, 0, rng.uniform(50, 400), work.frames // 2, rng)
        for positions in frames:
            yield Frame(work.name, c.Structure(pair.numbers, positions))


def _known(smiles: str, rng: np.random.Generator) -> c.Molecule | None:
    """Return a molecule, if MMFF94 knows it and the teacher knows it well."""
    molecule = _embedded(smiles, rng, conformers=2)
    if molecule is None:
        return None
    (label,) = _teacher().label([molecule.numbers], [molecule.minima[0]])
    return molecule if label.spread < 0.5 * MAX_SPREAD else None


def of_spice(work: Work, rng: np.random.Generator) -> Iterator[Frame]:
    """Conformations of SPICE, whole or cut to a few neighbouring molecules."""
    file, group, cut = work.subjects
    frames = _spice(file)[group]
    for k in rng.permutation(len(frames))[: work.frames]:
        structure = frames[k]
        if cut:
            parts = _molecules_of(structure)
            centre = int(np.argmax([len(p) for p in parts]))
            if len(parts[centre]) == 3:
                centre = int(rng.integers(len(parts)))
            count = int(rng.integers(2, cut + 1))
            structure = c.nearest_molecules(structure, parts, centre, count)
        yield Frame(f"{group}, {len(structure.numbers)} atoms", structure)


@cache
def _spice(file: str) -> dict[str, list[c.Structure]]:
    """Return the conformations of each group of a file."""
    folder = Path(os.environ["OPENMM_NEQUIP_DATA"]) / "spice_conformations"
    frames = [c.Structure(f.numbers, f.positions) for f in read_frames(folder / file, require=())]
    with h5py.File(folder / file) as content:  # the reader goes through the groups in this order
        counts = {group: len(content[group]["conformations"]) for group in content}
    ends = np.cumsum(list(counts.values()))
    return {g: frames[end - counts[g] : end] for g, end in zip(counts, ends, strict=True)}


def _molecules_of(structure: c.Structure) -> list[np.ndarray]:
    """Return the atoms of each molecule: those connected by bonds."""
    size = len(structure.numbers)
    first, second = bonded_pairs(Atoms(*structure)).T
    bonds = coo_array((np.ones(len(first)), (first, second)), shape=(size, size))
    count, label = connected_components(bonds, directed=False)
    return [np.flatnonzero(label == k) for k in range(count)]


KINDS = {
    "molecules": of_molecules, "torsions": of_torsions, "clusters": of_clusters,
    "complexes": of_complexes, "spice": of_spice,
}  # fmt: skip


def plan(scale: float) -> list[Work]:
    """Return all pieces of work; `scale` multiplies the numbers of molecules and frames."""
    rng = np.random.default_rng(SEED)
    small = m.read(m.SMALL)
    substituted = m.substituted(rng, round(3000 * scale))
    recombined = [s for s in m.recombined(rng, round(1500 * scale)) if s not in set(substituted)]
    peptides = m.peptides(rng, 100)
    sulfur = m.substituted(rng, round(250 * scale), m.SULFUR)
    sets = [
        ("molecules", "small", small, 60, MAX_SPREAD),
        ("molecules", "substituted", substituted, 14, MAX_SPREAD),
        ("molecules", "recombined", recombined, 12, MAX_SPREAD),
        ("molecules", "drugs", m.read(m.DRUGS), 15, MAX_SPREAD),
        ("molecules", "peptides", peptides, 20, MAX_SPREAD),
        ("molecules", "sulfur", sulfur, 16, MAX_SPREAD),
        ("torsions", "torsions", small + substituted[: round(1000 * scale)], 6, MAX_SPREAD),
        ("torsions", "turned", m.read(m.TURNED), 60, MAX_SPREAD_TURNED),
        ("torsions", "turned-peptides", peptides, 12, MAX_SPREAD_TURNED),
    ]
    works = []
    for kind, name, smiles, frames, spread in sets:
        for part in ("train", "validation", "test"):
            chosen = [s for s in smiles if m.split(s) == part]
            for k in range(0, len(chosen), 20):
                subjects = tuple(chosen[k : k + 20])
                works.append(Work(kind, f"{part}/{name}-{k // 20:04d}", subjects, frames, spread))
    partners = [s for s in small if Chem.MolFromSmiles(s).GetNumHeavyAtoms() <= 9]
    partners += [s for s in substituted if Chem.MolFromSmiles(s).GetNumHeavyAtoms() <= 8][:300]
    for kind, count, frames in (("clusters", 600, 40), ("complexes", 350, 16)):
        for k in range(round(count * scale)):
            part = "test" if k % 25 == 0 else "validation" if k % 25 == 1 else "train"
            known = [s for s in partners if m.split(s) in ("train", part)]
            subjects = tuple(str(s) for s in rng.choice(known, 8, replace=False))
            works.append(Work(kind, f"{part}/{kind}-{k:04d}", subjects, frames))
    return works + _spice_plan(scale)


def _spice_plan(scale: float) -> list[Work]:
    works = []
    folder = Path(os.environ.get("OPENMM_NEQUIP_DATA", "")) / "spice_conformations"
    for file, frames, cut in (
        ("des-monomers.hdf5", 25, 0),
        ("amino-acid-ligand-test.hdf5", 3, 0),
        ("solvated-amino-acids.hdf5", 25, 6),
        ("water.hdf5", 1000, 12),
    ):
        with h5py.File(folder / file) as content:
            names = sorted(content)
        for k, name in enumerate(names[: max(1, round(len(names) * scale))]):
            part = "test" if k % 25 == 3 else "validation" if k % 25 == 7 else "train"
            if file.startswith("des"):  # its names are SMILES
                part = m.split(name)
            work = f"{part}/{file.removesuffix('.hdf5')}-{k:04d}"
            works.append(Work("spice", work, (file, name, cut), frames))
    return works


def molecules(parts: tuple[str, ...]) -> set[str]:
    """Return the molecules (SMILES) that sets of the whole plan have alone or with others."""
    found: set[str] = set()
    for work in plan(1.0):
        if work.name.split("/")[0] not in parts:
            continue
        if work.kind != "spice":
            found.update(work.subjects)
        elif work.subjects[0].startswith("des"):  # the others have no names that tell
            found.add(work.subjects[1])
    return {Chem.CanonSmiles(smiles) for smiles in found}


@cache
def _teacher() -> Teacher:
    import torch

    torch.set_num_threads(1)
    return Teacher()


def run(work: Work, folder: str) -> dict[str, int]:
    """Make, label and store the frames of one piece of work; return how many were left out."""
    rng = np.random.default_rng([SEED, int(sha256(work.name.encode()).hexdigest()[:12], 16)])
    counts: Counter[str] = Counter()
    frames = []
    for frame in KINDS[work.kind](work, rng):
        if not set(frame.structure.numbers.tolist()) <= _NUMBERS:
            counts["elements"] += 1
        elif not np.isfinite(frame.structure.positions).all() or c.overlaps(frame.structure):
            counts["overlaps"] += 1
        else:
            frames.append(frame)
    frames.sort(key=lambda frame: len(frame.structure.numbers))
    kept: dict[tuple[str, bytes], list[tuple[np.ndarray, Any]]] = {}
    for start in range(0, len(frames), _BATCH):
        batch = frames[start : start + _BATCH]
        labels = _teacher().label(
            [f.structure.numbers for f in batch], [f.structure.positions for f in batch]
        )
        for frame, label in zip(batch, labels, strict=True):
            if label.spread > work.max_spread:
                counts["teachers disagree"] += 1
            elif np.abs(label.forces).max() > MAX_FORCE:
                counts["large forces"] += 1
            else:
                counts["kept"] += 1
                key = frame.title, frame.structure.numbers.astype(np.int64).tobytes()
                kept.setdefault(key, []).append((frame.structure.positions, label))
    path = Path(folder) / f"{work.name}.h5"
    temporary = path.with_suffix(".tmp")
    with h5py.File(temporary, "w") as file:
        for k, ((title, numbers), members) in enumerate(kept.items()):
            group = file.create_group(f"{k:04d}")
            group.attrs["molecule"] = title
            group["atomic_numbers"] = np.frombuffer(numbers, np.int64)
            _store(group, "coordinates", [r for r, _ in members], "angstrom")
            _store(group, "energies", [label.energy for _, label in members], "eV")
            _store(group, "forces", [label.forces for _, label in members], "eV/angstrom")
            group["spread"] = np.array([label.spread for _, label in members])
        file.attrs["counts"] = json.dumps(counts)
    temporary.replace(path)
    return dict(counts)


def _store(group: h5py.Group, name: str, values: list[Any], units: str) -> None:
    group[name] = np.array(values)
    group[name].attrs["units"] = units


def join(folder: Path, works: list[Work]) -> Table:
    """Put the pieces into one file for each set; return a table of what is in them."""
    table = Table("set", "kind", "molecules", "frames", "left out")
    for part in ("train", "validation", "test"):
        temporary = folder / f"{part}.tmp"
        totals: dict[str, Counter[str]] = {}
        with h5py.File(temporary, "w") as file:
            file.attrs["level"] = "ANI-2x ensemble (wB97X/6-31G(d) model)"
            for work in works:
                name = work.name.removeprefix(f"{part}/")
                if name == work.name:
                    continue
                with h5py.File(folder / "pieces" / f"{work.name}.h5") as piece:
                    total = totals.setdefault(name.rsplit("-", 1)[0], Counter())
                    total.update(json.loads(piece.attrs["counts"]))
                    total["molecules"] += len(piece)
                    if len(piece):
                        piece.copy(piece, file, name)
        temporary.replace(folder / f"{part}.h5")
        for kind, total in totals.items():
            left = sum(total.values()) - total["kept"] - total["molecules"]
            table.add_row(part, kind, f"{total['molecules']:,}", f"{total['kept']:,}", f"{left:,}")
    return table


def main(
    folder: Annotated[Path, typer.Argument(help="Folder of the data set.")],
    workers: Annotated[int, typer.Option(help="Processes.")] = 2,
    scale: Annotated[float, typer.Option(help="Size; 1 makes about 118,000 frames.")] = 1.0,
) -> None:
    """Generate, label and join."""
    works = plan(scale)
    pieces = folder / "pieces"
    for part in ("train", "validation", "test"):
        (pieces / part).mkdir(parents=True, exist_ok=True)
    missing = [work for work in works if not (pieces / f"{work.name}.h5").exists()]
    # large pieces last would leave workers without anything to do
    missing.sort(key=lambda work: -work.frames)
    console = Console()
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
        Progress(*columns, console=console) as progress,
    ):
        here = str(Path(__file__).parent)
        client.run(lambda: __import__("sys").path.insert(0, here))
        task = progress.add_task("pieces", total=len(works), completed=len(works) - len(missing))
        for future in as_completed(
            [client.submit(run, w, str(pieces), pure=False) for w in missing]
        ):
            future.result()
            progress.advance(task)
            if not console.is_terminal and progress.tasks[0].completed % 50 == 0:
                console.print(f"{progress.tasks[0].completed:.0f} of {len(works)} pieces")
    console.print(join(folder, works))


if __name__ == "__main__":
    typer.run(main)
