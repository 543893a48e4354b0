"""What a network needs to know about its data: neighbours, force scales, reference energies."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np
from ase.data import chemical_symbols

from ..domain import pair_name
from ..errors import InputError
from .dataset import TypeMap
from .frame import FloatArray, Frame, IntArray
from .neighbors import pair_distances

ReferenceMethod = Literal["auto", "isolated", "least-squares"]
EdgeCutoffs = Mapping[str, float | Mapping[str, float]]

#: Root mean square of force components, eV/Å, and distances of atoms, Å, beyond those of matter in
#: MD of any temperature: a wrong unit is more likely.
_LARGEST_FORCE, _SMALLEST_DISTANCE = 10.0, 0.4
_ALONE = 6.0  # Å to the next image of an atom, at least, for it to count as isolated
_SAME_ENERGY = 1e-3  # eV; two isolated atoms of one element that differ by more are suspicious


@dataclass(frozen=True)
class Statistics:
    """Figures of a training set.

    Attributes
    ----------
    num_frames, num_atoms
        Totals.
    avg_num_neighbors
        Mean number of neighbours of an atom within the cutoff.
    avg_num_neighbors_per_type
        The same for the atoms of each type.
    force_rms
        Root mean square of the force components, eV/Å; `None` without forces.
    force_rms_per_type
        The same for the atoms of each type.
    reference_energies
        Energy per atom of each element, eV: the part of the total that composition explains.
    reference_source
        Where they come from: ``"given"``, ``"isolated atoms"`` or ``"least squares"``; ``"none"``
        where no frame has an energy.
    energy_rms_per_atom
        Root mean square of what the reference energies leave of the energy, eV per atom.
    min_distances
        Smallest distance of each pair of elements, Å; a pair that is never within the cutoff is
        not there.
    num_neighbors_range
        Smallest and largest number of neighbours of an atom of each element within the cutoff;
        isolated atoms do not count.
    max_force
        Largest norm of the force on an atom, eV/Å; `None` without forces.
    notes
        Sentences that the user should see.
    """

    num_frames: int
    num_atoms: int
    avg_num_neighbors: float
    avg_num_neighbors_per_type: dict[str, float]
    force_rms: float | None
    force_rms_per_type: dict[str, float]
    reference_energies: dict[str, float]
    reference_source: str
    energy_rms_per_atom: float | None
    min_distances: dict[str, float]
    num_neighbors_range: dict[str, list[int]]
    max_force: float | None
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        """Return the statistics as JSON."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Statistics":
        """Read what `to_json` wrote."""
        return cls(**json.loads(text))


def compute_statistics(
    frames: Iterable[Frame],
    elements: Sequence[str],
    r_max: float,
    *,
    per_edge_type_cutoff: EdgeCutoffs | None = None,
    reference_energies: ReferenceMethod | Mapping[str, float] = "auto",
    isolated_atoms: Iterable[Frame] = (),
) -> Statistics:
    """Compute the statistics of a training set in one pass over its frames.

    Parameters
    ----------
    frames
        Labelled configurations; they need not be in memory together.
    elements
        Chemical symbols in the order of the potential's types.
    r_max
        Cutoff, Å.
    per_edge_type_cutoff
        Shorter cutoffs, Å, as ``{centre: cutoff}`` or ``{centre: {neighbour: cutoff}}``; pairs
        not named have `r_max`.
    reference_energies
        Energies by element in eV; or ``"isolated"`` to take them from single-atom frames;
        ``"least-squares"`` to fit them to the compositions; ``"auto"`` for the first of these two
        that the data allows.
    isolated_atoms
        Single-atom frames from elsewhere, in addition to those among `frames`; only atoms without
        a cell, or far from their images, count.

    Raises
    ------
    InputError
        There are no frames, an element is missing from `elements` or from the reference energies,
        or isolated atoms of one element differ in energy.
    """
    type_map = TypeMap(elements)
    cutoffs = edge_cutoffs(elements, r_max, per_edge_type_cutoff)
    atoms = np.zeros(len(elements))
    neighbors = np.zeros(len(elements))
    force_squares = np.zeros(len(elements))
    force_atoms = np.zeros(len(elements))
    max_square = 0.0
    closest = np.full((len(elements), len(elements)), np.inf)
    fewest = np.full(len(elements), np.iinfo(np.int64).max)
    most = np.full(len(elements), -1)
    compositions: list[FloatArray] = []
    energies: list[float] = []
    singles: dict[str, Frame] = {}
    conflicts: list[str] = []
    num_frames = 0
    for frame in isolated_atoms:
        _add_single(frame, singles, conflicts, r_max)
    for frame in frames:
        num_frames += 1
        types = type_map(frame.numbers, frame.source)
        composition = _count(types, elements)
        atoms += composition
        i, j, distances = pair_distances(frame.positions, frame.cell, frame.pbc, r_max)
        np.minimum.at(closest, (types[i], types[j]), distances)
        if len(frame) > 1 or len(i):
            of_atoms = np.bincount(i, minlength=len(frame))
            np.minimum.at(fewest, types, of_atoms)
            np.maximum.at(most, types, of_atoms)
        if cutoffs is not None:
            i = i[distances < cutoffs[types[i], types[j]]]
        neighbors += _count(types[i], elements)
        if frame.forces is not None:
            squares = (frame.forces**2).sum(axis=1)
            force_squares += np.bincount(types, squares, minlength=len(elements))
            force_atoms += composition
            max_square = max(max_square, float(squares.max()))
        if frame.energy is not None:
            _add_single(frame, singles, conflicts, r_max)
            compositions.append(composition)
            energies.append(frame.energy)
    if num_frames == 0:
        raise InputError("there are no frames to compute statistics from")

    counts = np.array(compositions).reshape(-1, len(elements))
    references, source, notes = _references(
        reference_energies,
        {symbol: frame.energy for symbol, frame in singles.items() if frame.energy is not None},
        conflicts,
        counts,
        np.array(energies),
        elements,
    )
    energy_rms = None
    if energies:
        residual = np.array(energies) - counts @ np.array([references[e] for e in elements])
        energy_rms = float(np.sqrt(np.mean((residual / counts.sum(axis=1)) ** 2)))
    force_rms = _rms(force_squares.sum(), force_atoms.sum())
    notes += _implausible(force_rms, float(closest.min()))
    per_type = {e: k for k, e in enumerate(elements)}
    return Statistics(
        num_frames=num_frames,
        num_atoms=int(atoms.sum()),
        avg_num_neighbors=float(neighbors.sum() / atoms.sum()),
        avg_num_neighbors_per_type={
            e: float(neighbors[k] / atoms[k]) for e, k in per_type.items() if atoms[k]
        },
        force_rms=force_rms,
        force_rms_per_type={
            e: float(np.sqrt(force_squares[k] / (3 * force_atoms[k])))
            for e, k in per_type.items()
            if force_atoms[k]
        },
        reference_energies=references,
        reference_source=source,
        energy_rms_per_atom=energy_rms,
        min_distances={
            pair_name(elements[a], elements[b]): float(closest[a, b])
            for a, b in np.argwhere(np.triu(np.isfinite(closest)))
        },
        num_neighbors_range={
            e: [int(fewest[k]), int(most[k])] for e, k in per_type.items() if most[k] >= 0
        },
        max_force=float(np.sqrt(max_square)) if force_atoms.any() else None,
        notes=notes,
    )


def _implausible(force_rms: float | None, distance: float) -> list[str]:
    """Return what points to wrong units, a sentence each."""
    found = []
    if force_rms is not None and force_rms > _LARGEST_FORCE:
        found.append(
            f"the forces have a root mean square of {force_rms:.3g} eV/Å, where in MD it is "
            "between 0.1 and 3: check the units (data.energy_unit, data.force_unit)"
        )
    if distance < _SMALLEST_DISTANCE:
        found.append(
            f"two atoms are {distance:.3g} Å apart, nearer than any bond: check the unit of "
            "length (data.length_unit) and the frames"
        )
    return found


def edge_cutoffs(
    elements: Sequence[str], r_max: float, per_edge_type_cutoff: EdgeCutoffs | None
) -> FloatArray | None:
    """Return the cutoff of each (centre, neighbour) pair of types, shape ``[T, T]``, or `None`."""
    if per_edge_type_cutoff is None:
        return None
    cutoffs = np.full((len(elements), len(elements)), float(r_max))
    for i, centre in enumerate(elements):
        given = per_edge_type_cutoff.get(centre, r_max)
        for j, neighbor in enumerate(elements):
            cutoffs[i, j] = given.get(neighbor, r_max) if isinstance(given, Mapping) else given
    return cutoffs


def _count(types: IntArray, elements: Sequence[str]) -> FloatArray:
    return np.bincount(types, minlength=len(elements)).astype(np.float64)


def is_isolated(frame: Frame, r_max: float) -> bool:
    """Return whether a frame is one atom in vacuum, or alone in a large box."""
    if len(frame) != 1:
        return False
    cutoff = max(r_max, _ALONE)
    return not len(pair_distances(frame.positions, frame.cell, frame.pbc, cutoff)[0])


def _add_single(
    frame: Frame, singles: dict[str, Frame], conflicts: list[str], r_max: float
) -> None:
    """Note the energy of an isolated atom."""
    if frame.energy is None or not is_isolated(frame, r_max):
        return
    symbol = chemical_symbols[frame.numbers[0]]
    known = singles.setdefault(symbol, frame).energy
    assert known is not None
    if abs(known - frame.energy) > _SAME_ENERGY:
        conflicts.append(
            f"isolated {symbol} atoms have different energies: {known:.4f} eV and "
            f"{frame.energy:.4f} eV ({frame.source}); keep the right one or give the reference "
            "energies"
        )


def _references(
    request: ReferenceMethod | Mapping[str, float],
    singles: Mapping[str, float],
    conflicts: Sequence[str],
    compositions: FloatArray,
    energies: FloatArray,
    elements: Sequence[str],
) -> tuple[dict[str, float], str, list[str]]:
    if isinstance(request, Mapping):
        missing = [e for e in elements if e not in request]
        if missing:
            raise InputError(f"reference energies lack {', '.join(missing)}; give one per element")
        return {e: float(request[e]) for e in elements}, "given", []
    missing = [e for e in elements if e not in singles]
    if request == "isolated" and missing:
        raise InputError(
            f"no isolated-atom frame for {', '.join(missing)}: add one (a single atom without a "
            f"cell, or more than {_ALONE:g} Å and the cutoff from its images), or have the "
            "reference energies fitted by least squares"
        )
    if request in ("auto", "isolated") and not missing:
        if conflicts:
            raise InputError(conflicts[0])
        return {e: float(singles[e]) for e in elements}, "isolated atoms", []
    if request not in ("auto", "least-squares"):
        raise InputError(
            f"reference_energies: '{request}' is not 'auto', 'isolated', 'least-squares' or "
            "a value for each element"
        )
    if len(energies) == 0:
        return dict.fromkeys(elements, 0.0), "none", ["no energies: reference energies are zero"]
    found, source, notes = least_squares(compositions, energies, elements)
    if request == "auto" and singles:
        notes = [
            f"isolated atoms of {', '.join(singles)} are no reference energies, because there is "
            f"none of {', '.join(missing)}: all were fitted by least squares",
            *notes,
        ]
    return found, source, notes


def least_squares(
    compositions: FloatArray, energies: FloatArray, elements: Sequence[str]
) -> tuple[dict[str, float], str, list[str]]:
    """Fit energy per atom to composition; of several exact fits take that of least norm.

    Parameters
    ----------
    compositions
        Atoms of each element in each frame, shape ``[F, T]``.
    energies
        eV, shape ``[F]``.
    elements
        Chemical symbols, T of them.

    Returns
    -------
    references, source, notes
        eV by element; how they were found; what is to be said of them.
    """
    atoms = compositions.sum(axis=1)
    solution, _, rank, _ = np.linalg.lstsq(
        compositions / atoms[:, None], energies / atoms, rcond=1e-10
    )
    notes = []
    if rank < len(elements):
        notes.append(
            f"the compositions of the data determine {rank} of {len(elements)} reference energies "
            f"({', '.join(elements)}), so the smallest ones that fit were taken: good for these "
            "compositions, meaningless for single atoms or other compositions"
        )
    values = dict(zip(elements, solution.tolist(), strict=True))
    return values, "least squares", notes


def _rms(squares: float, atoms: float) -> float | None:
    return float(np.sqrt(squares / (3 * atoms))) if atoms else None
