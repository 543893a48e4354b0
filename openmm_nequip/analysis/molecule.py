"""The ML region, or the molecule there is: its shape, bonds, torsions, conformers, surface."""

from functools import partial

import numpy as np

from .conformations import (
    clusters,
    radius_of_gyration,
    rmsd_matrix,
    rmsf,
    rotatable_bonds,
    torsion_matrix,
    torsions,
)
from .folder import Run
from .observables import distances, rmsd
from .plots import draw_clusters, draw_distributions, draw_rmsf, draw_series, draw_torsions
from .results import Picture, Quantity, Section, average
from .solvation import sasa

CONFORMER = 60.0  # degrees: frames whose torsions differ by less are one conformer
CLUSTER = 1.0  # Å, where torsions are too many
_TORSIONS = 10  # that tell conformers apart; with more of them every frame would be one
_CLUSTERED = 1000  # frames: the distances of all pairs are held
_CONSTRAINED = 1e-3  # Å; the single precision of a trajectory moves a fixed length by less
_SURFACE = 20_000  # atoms times frames whose surface is computed


def molecule(run: Run) -> Section:
    """Observables of the region (of the molecule; of all atoms of a liquid or a crystal)."""
    all_atoms = len(run.focus) == 0
    atoms = np.arange(len(run.numbers)) if all_atoms else run.focus
    section = Section("The ML region" if run.is_mixed else "The molecule")
    if all_atoms or (not run.is_mixed and len(np.unique(run.molecules)) > 1):
        section.title = "All atoms"
    positions, times = run.frames
    steady = run.steady(len(positions))
    vectors = run.trajectory.unitcell_vectors
    box = None if vectors is None or not all_atoms else vectors.astype(float) * 10.0
    numbers, bonds = run.numbers[atoms], _inside(run.bonds, atoms)

    if len(atoms) > 2:
        deviation = rmsd(positions, positions[0])
        mean = average("RMSD from the first frame", deviation[steady:], "Å",
                       f"at most {deviation.max():.3g} Å")  # fmt: skip
        section.quantities.append(mean)
        section.pictures.append(
            Picture("rmsd", "RMSD from the first frame",
                    f"Root mean square deviation from the first frame after superposition, against "
                    f"time; {mean.text()}.",
                    partial(draw_series, time=times, values=deviation, ylabel="RMSD (Å)",
                            colour=4))
        )  # fmt: skip
    if not all_atoms and len(atoms) > 2:
        _add_shape(run, section, steady)
        _add_torsions(run, section, steady, bonds)
        _add_surface(run, section)
    if len(bonds):
        box = None if box is None else box[steady:]
        _add_bonds(section, positions[steady:], numbers, bonds, box)
    return section


def labels(run: Run, atoms: np.ndarray) -> list[str]:
    """Name atoms by element and number, counted from 1 among `atoms`: 'C1', 'O3'."""
    symbols = [run.topology.atom(int(k)).element.symbol for k in atoms]
    return [f"{symbol}{k + 1}" for k, symbol in enumerate(symbols)]


def _inside(bonds: np.ndarray, atoms: np.ndarray) -> np.ndarray:
    """Bonds within sorted `atoms`, by place among them."""
    return np.searchsorted(atoms, bonds[np.isin(bonds, atoms).all(axis=1)]).reshape(-1, 2)


def _add_shape(run: Run, section: Section, steady: int) -> None:
    (positions, times), atoms = run.frames, run.focus
    gyration = radius_of_gyration(positions, run.masses[atoms])
    quantity = average("radius of gyration", gyration[steady:], "Å")
    section.quantities.append(quantity)
    section.pictures.append(
        Picture("radius_of_gyration", "Radius of gyration",
                f"Radius of gyration against time; {quantity.text()}.",
                partial(draw_series, time=times, values=gyration, colour=5,
                        ylabel="radius of gyration (Å)"))
    )  # fmt: skip
    fluctuation, names = rmsf(positions[steady:]), labels(run, atoms)
    largest = int(fluctuation.argmax())
    section.quantities.append(
        Quantity("RMSF of the atoms", float(np.sqrt((fluctuation**2).mean())), unit="Å",
                 remark=f"at most {fluctuation[largest]:.3g} Å, {names[largest]}")
    )  # fmt: skip
    if len(atoms) <= 40:
        section.pictures.append(
            Picture("rmsf", "Fluctuation of the atoms",
                    "Root mean square fluctuation of each atom around its mean position; most of "
                    f"all {names[largest]}, {fluctuation[largest]:.3g} Å.",
                    partial(draw_rmsf, values=fluctuation, names=names))
        )  # fmt: skip


def _add_torsions(run: Run, section: Section, steady: int, bonds: np.ndarray) -> None:
    positions, atoms = run.frames[0], run.focus
    quadruples = rotatable_bonds(run.numbers[atoms], bonds)
    names = labels(run, atoms)
    angles = torsions(positions, quadruples) if len(quadruples) else np.empty((len(positions), 0))
    if len(quadruples):
        keys = ["-".join(names[k] for k in row) for row in quadruples]
        found = dict(zip(keys, angles[steady:].T, strict=True))
        for name in keys[:_TORSIONS]:
            share = average(f"trans share of {name}", np.abs(found[name]) > 120)
            section.quantities.append(share)
        section.pictures.append(
            Picture("torsions", "Torsions",
                    f"Distributions of the torsion angles about bonds that can turn, {len(keys)}: "
                    + ", ".join(keys[:_TORSIONS]) + ".",
                    partial(draw_torsions, angles=found))
        )  # fmt: skip
    _add_conformers(run, section, angles)


def _add_conformers(run: Run, section: Section, angles: np.ndarray) -> None:
    """Conformers by torsions where these are few, else by the RMSD of heavy atoms."""
    stride = -(-len(angles) // _CLUSTERED)
    angles, times = angles[::stride], run.frames[1][::stride]
    if 0 < angles.shape[1] <= _TORSIONS:
        group, centres = clusters(torsion_matrix(angles), CONFORMER)
        how = f"no torsion differs by more than {CONFORMER:.0f}° on average"
        what = [", ".join(f"{angle:.0f}°" for angle in angles[centre]) for centre in centres]
    elif angles.shape[1]:
        heavy = run.numbers[run.focus] > 1
        group, centres = clusters(rmsd_matrix(run.frames[0][::stride, heavy]), CLUSTER)
        how = f"the RMSD of their heavy atoms is less than {CLUSTER:g} Å on average"
        what = [f"frame at {times[centre]:.4g} ps" for centre in centres]
    else:
        return  # rigid
    steady = run.steady(len(group))
    for k in range(min(len(centres), 5)):
        share = average(f"share of conformer {k + 1}", group[steady:] == k, "", what[k])
        section.quantities.append(share)
    section.pictures.append(
        Picture("conformers", "Conformers",
                f"Conformer of each frame against time: {len(centres)} of them, the most frequent "
                f"one {100 * (group == 0).mean():.0f}% of the time. Frames are one conformer if "
                f"{how}.",
                partial(draw_clusters, times=times, labels=group))
    )  # fmt: skip


def _add_surface(run: Run, section: Section) -> None:
    wanted = max(1, min(500, _SURFACE // len(run.solute)))
    stride = -(-len(run.trajectory) // wanted)
    positions = run.trajectory.xyz[::stride].astype(float) * 10.0
    inside = np.searchsorted(run.solute, run.focus)
    area = sasa(run.numbers[run.solute], positions)[:, inside].sum(axis=1)
    quantity = average("solvent-accessible surface", area[run.steady(len(area)) :], "Å²")
    section.quantities.append(quantity)
    section.pictures.append(
        Picture("sasa", "Solvent-accessible surface",
                f"Solvent-accessible surface against time, probe 1.4 Å; {quantity.text()}.",
                partial(draw_series, time=run.times[::stride], values=area,
                        ylabel="surface (Å²)", colour=2))
    )  # fmt: skip


def _add_bonds(
    section: Section,
    positions: np.ndarray,
    numbers: np.ndarray,
    bonds: np.ndarray,
    box: np.ndarray | None,
) -> None:
    from ase.data import chemical_symbols

    symbols = np.array(chemical_symbols)[numbers]
    kinds = np.array(["-".join(sorted(pair)) for pair in symbols[bonds]])
    stride = -(-len(positions) * len(bonds) // 2_000_000)
    found = {}
    for kind in np.unique(kinds):
        frames = positions[::stride]
        cells = None if box is None else box[::stride]
        lengths = distances(frames, bonds[kinds == kind], cells)
        spread = float(lengths.std(axis=0).max())
        name = f"bond length {kind}"
        if spread < _CONSTRAINED:
            mean = Quantity(name, float(lengths.mean()), unit="Å", remark="constrained")
        else:
            mean = average(name, lengths.mean(axis=1), "Å", f"spread {lengths.std():.3f} Å")
            found[str(kind)] = lengths.ravel()
        section.quantities.append(mean)
    if not found:
        return
    section.pictures.append(
        Picture("bonds", "Bond lengths",
                "Distributions of the bond lengths: "
                + ", ".join(f"{kind} {values.mean():.3f} Å" for kind, values in found.items())
                + ".",
                partial(draw_distributions, values=found, xlabel="length (Å)", limits=None))
    )  # fmt: skip
