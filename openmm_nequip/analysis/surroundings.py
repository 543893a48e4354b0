"""The solvent, or the liquid that a run is: structure, hydrogen bonds, diffusion."""

from collections import defaultdict
from functools import partial
from itertools import combinations_with_replacement

import mdtraj
import numpy as np
from ase.data import chemical_symbols

from .folder import Run, formula
from .observables import as_trajectory, box_widths, radial_distribution
from .plots import draw_counts, draw_displacement, draw_rdf
from .results import Picture, Quantity, Section, average
from .solvation import acceptors, hydrogen_bond_count, neighbour_count, polar_hydrogens
from .transport import Diffusion, diffusion_coefficient, unwrap

SHELL = 3.5  # Å, from the heavy atoms of the region to the oxygen of a water next to it
DIFFUSIVE = 1.0  # ps, when a molecule has forgotten its velocity and its cage
BIN = 0.1  # Å, of radial distribution functions
_PAIRS = 100_000  # of a radial distribution function; of more atoms a part is looked at
_MOLECULES = 300  # whose diffusion is followed
_BONDED = 30  # waters whose hydrogen bonds are counted
_LEAST = 20  # molecules of a liquid
_FRAMES = 200  # for what needs all atoms
_FOLLOWED = 20_000  # frames for diffusion

Pairs = dict[str, np.ndarray]
Curves = dict[str, tuple[np.ndarray, np.ndarray]]


def surroundings(run: Run) -> list[Section]:
    """Observables of what is around the region, and of the solvent or liquid itself."""
    if not run.is_periodic:
        return []
    oxygens = run.water[run.numbers[run.water] == 8]
    around = len(run.focus) > 0 and len(oxygens) > 0
    solvent = Section("The solvent" if len(run.focus) else "The liquid")
    near = Section("Around the ML region" if run.is_mixed else "Around the molecule")
    heavy = run.focus[run.numbers[run.focus] > 1]
    to_region = _site_pairs(run, oxygens) if around else {}
    within = _solvent_pairs(run) if len(oxygens) > 1 else _element_pairs(run)
    curves, shell, bonds, of_water = _collect(run, {**to_region, **within}, heavy, oxygens, around)

    if to_region:
        _add_rdf(near, "rdf_region", "Water around it", {k: curves[k] for k in to_region})
    times = np.array(run.chosen(_FRAMES)) * run.spacing
    if around:
        given, taken = (
            average(f"hydrogen bonds to water, {kind}", count)
            for kind, count in zip(("given", "taken"), bonds.T, strict=True)
        )
        near.quantities += [
            average("waters next to it", shell, "", f"oxygen within {SHELL} Å of a heavy atom"),
            given,
            taken,
        ]
        near.pictures.append(
            Picture("hydrogen_bonds", "Hydrogen bonds to water",
                    f"Number of hydrogen bonds to water against time: {given.number()} given and "
                    f"{taken.number()} taken on average.",
                    partial(draw_counts, times=times, counts={"given": bonds[:, 0],
                                                              "taken": bonds[:, 1]}))
        )  # fmt: skip
        near.remarks.append(_sampled(run))
    if within:
        _add_rdf(solvent, "rdf", "Radial distribution", {k: curves[k] for k in within})
        solvent.remarks.append(_sampled(run))
    if len(of_water):
        number = average("hydrogen bonds that a water gives", of_water)
        solvent.quantities.append(number)
        solvent.pictures.append(
            Picture("hydrogen_bonds_water", "Hydrogen bonds of water",
                    "Hydrogen bonds that a water gives to another one against time; "
                    f"{number.number()} on average.",
                    partial(draw_counts, times=times, counts={"given by a water": of_water}))
        )  # fmt: skip
    _add_diffusion(run, solvent, oxygens)
    return [section for section in (near, solvent) if section.quantities or section.pictures]


def _sampled(run: Run) -> str:
    return (
        f"From {len(run.chosen(_FRAMES))} frames; of more than {_PAIRS:,} pairs of atoms a radial "
        "distribution function uses a part, drawn at random."
    )


def _site_pairs(run: Run, oxygens: np.ndarray) -> Pairs:
    """Heavy atoms of the region, by element, with the oxygen of water."""
    heavy = run.focus[run.numbers[run.focus] > 1]
    return {
        f"{chemical_symbols[number]}-O(water)": _pairs(heavy[run.numbers[heavy] == number], oxygens)
        for number in np.unique(run.numbers[heavy])
    }


def _solvent_pairs(run: Run) -> Pairs:
    groups = {s: run.water[run.numbers[run.water] == n] for s, n in (("O", 8), ("H", 1))}
    return _between(run, groups)


def _element_pairs(run: Run) -> Pairs:
    if len(run.focus):
        return {}
    found = {chemical_symbols[n]: np.flatnonzero(run.numbers == n) for n in np.unique(run.numbers)}
    return _between(run, found, within=True)


def _between(run: Run, groups: dict[str, np.ndarray], within: bool = False) -> Pairs:
    """Pairs of different atoms of each two groups; of different molecules, unless `within`."""
    found = {}
    for first, second in combinations_with_replacement(groups, 2):
        pairs = _pairs(groups[first], groups[second])
        if first == second:
            pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        if not within:
            pairs = pairs[run.molecules[pairs[:, 0]] != run.molecules[pairs[:, 1]]]
        if len(pairs):
            found[f"{first}-{second}"] = pairs
    return found


def _pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """All pairs; where they are too many, those of some of the first atoms."""
    if len(first) * len(second) > _PAIRS:
        count = max(1, _PAIRS // len(second))
        first = np.sort(np.random.default_rng(0).choice(first, count, replace=False))
    return np.stack(np.meshgrid(first, second, indexing="ij"), axis=-1).reshape(-1, 2)


def _collect(
    run: Run, pairs: Pairs, heavy: np.ndarray, oxygens: np.ndarray, around: bool
) -> tuple[Curves, np.ndarray, np.ndarray, np.ndarray]:
    """Go once through the frames for everything that needs all atoms."""
    total: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(1))
    weight, r = 0.0, np.zeros(0)
    shell: list[np.ndarray] = []
    bonds: list[np.ndarray] = []
    given: list[np.ndarray] = []
    r_max = 0.5 * box_widths(run.trajectory.unitcell_vectors * 10.0).min()
    wanted = pairs or around or len(oxygens) >= _LEAST
    for positions, box in run.chunks(_FRAMES) if wanted else ():
        # Each piece is normalised with its own mean density: weighted by that, the mean is exact.
        share = float((1 / np.linalg.det(box)).sum())
        weight += share
        for name, members in pairs.items():
            r, g = radial_distribution(positions, members, box, r_max, BIN)
            total[name] = total[name] + share * g
        if around:
            shell.append(neighbour_count(positions, heavy, oxygens, SHELL, box))
            bonds.append(_bonds_to_water(run, positions, heavy, oxygens, box))
        if len(oxygens) >= _LEAST:
            given.append(_bonds_of_water(run, positions, oxygens, box))
    curves = {name: (r, values / weight) for name, values in total.items()}
    joined = [np.concatenate(part) if part else np.empty(0) for part in (shell, bonds, given)]
    return curves, joined[0], joined[1], joined[2]


def _bonds_to_water(
    run: Run, positions: np.ndarray, heavy: np.ndarray, oxygens: np.ndarray, box: np.ndarray
) -> np.ndarray:
    """Hydrogen bonds given to water and taken from it, shape ``[F, 2]``."""
    chunk = as_trajectory(positions, box)
    near = np.unique(np.concatenate(mdtraj.compute_neighbors(chunk, SHELL / 10.0, heavy, oxygens)))
    donors = polar_hydrogens(run.numbers, run.bonds)
    of_region, of_water = np.isin(donors[:, 0], run.focus), np.isin(donors[:, 0], near)
    takers = run.focus[np.isin(run.focus, acceptors(run.numbers))]
    given = hydrogen_bond_count(positions, donors[of_region], near.astype(int), box)
    taken = hydrogen_bond_count(positions, donors[of_water], takers, box)
    return np.stack([given, taken], axis=1)


def _bonds_of_water(
    run: Run, positions: np.ndarray, oxygens: np.ndarray, box: np.ndarray
) -> np.ndarray:
    """Hydrogen bonds that a water gives to another one, mean of some waters, shape ``[F]``."""
    some = np.random.default_rng(0).choice(oxygens, min(_BONDED, len(oxygens)), replace=False)
    donors = polar_hydrogens(run.numbers, run.bonds)
    found = hydrogen_bond_count(positions, donors[np.isin(donors[:, 0], some)], oxygens, box)
    return found / len(some)


def _add_rdf(section: Section, name: str, title: str, curves: Curves) -> None:
    peaks = []
    for pair, (r, g) in curves.items():
        outer = r > 1.3
        k = int(np.where(outer, g, 0).argmax())
        peaks.append(f"{pair} highest at {r[k]:.2f} Å, {g[k]:.2f}")
    section.pictures.append(
        Picture(name, title, f"Radial distribution functions: {'; '.join(peaks)}.",
                partial(draw_rdf, curves=curves))
    )  # fmt: skip


def _add_diffusion(run: Run, section: Section, oxygens: np.ndarray) -> None:
    """Diffusion of the water by its oxygen, or of each kind of molecule by its centre of mass."""
    if len(oxygens) >= _LEAST:
        kinds = {"the water": [oxygens[k : k + 1] for k in range(len(oxygens))]}
    elif len(run.focus) == 0:
        kinds = _kinds(run)
    else:
        return
    for name, molecules in kinds.items():
        chosen = np.random.default_rng(0).choice(
            len(molecules), min(_MOLECULES, len(molecules)), replace=False
        )
        some = [molecules[k] for k in np.sort(chosen)]
        found = _diffusion(run, some, len(molecules))
        if found is None:
            section.remarks.append(
                "The trajectory is too short, or its frames too far apart, for a diffusion "
                f"coefficient of {name}."
            )
            continue
        value = Quantity(f"diffusion coefficient of {name}", 10 * found.value, 10 * found.error,
                         "10⁻⁹ m²/s", remark="not corrected for the size of the box")  # fmt: skip
        section.quantities.append(value)
        suffix = "" if len(kinds) == 1 else f"_{name}"
        section.pictures.append(
            Picture(f"diffusion{suffix}", f"Mean square displacement of {name}",
                    f"Mean square displacement of {len(some)} molecules by lag; {value.text()}.",
                    partial(draw_displacement, lags=found.lags, msd=found.msd,
                            fit=(found.fit_from, found.fit_to), value=found.value))
        )  # fmt: skip


def _kinds(run: Run) -> dict[str, list[np.ndarray]]:
    """Return the atoms of each molecule, by formula, of those that there are many of.

    Nothing for crystals, and for what has no bonds, which may be one.
    """
    order = np.argsort(run.molecules, kind="stable")
    ends = np.cumsum(np.bincount(run.molecules))[:-1]
    kinds: dict[str, list[np.ndarray]] = defaultdict(list)
    for members in np.split(order, ends):
        kinds[formula(run.numbers[members])].append(members)
    if max(len(molecules[0]) for molecules in kinds.values()) == 1:
        return {}
    return {name: found for name, found in sorted(kinds.items()) if len(found) >= _LEAST}


def _diffusion(run: Run, molecules: list[np.ndarray], count: int) -> Diffusion | None:
    """Follow `molecules` of the `count` that there are."""
    atoms = np.sort(np.concatenate(molecules))
    stride = run.stride(len(atoms), _FOLLOWED)
    trajectory = run.load(atoms, stride)
    box = trajectory.unitcell_vectors.astype(float) * 10.0
    followed = unwrap(trajectory.xyz.astype(float) * 10.0, box)[run.steady(len(trajectory)) :]
    positions = np.stack(
        [
            np.average(followed[:, places], axis=1, weights=run.masses[atoms[places]])
            for places in (np.searchsorted(atoms, members) for members in molecules)
        ],
        axis=1,
    )
    # The centre of a part diffuses too: taking it off takes 1/n - 1/N off what is seen.
    lost = 1 / len(molecules) - 1 / count
    positions = (positions - positions.mean(axis=1, keepdims=True)) / np.sqrt(1 - lost)
    try:
        return diffusion_coefficient(positions, stride * run.spacing, DIFFUSIVE)
    except ValueError:
        return None
