"""The ML region, or the molecule there is: its shape, bonds, torsions, conformers, surface."""

from functools import partial

import numpy as np

from .conformations import radius_of_gyration, rmsf, torsions
from .conformers import MOST_TORSIONS, Conformers, rotatable
from .folder import Run
from .observables import distances, rmsd
from .plots import (
    draw_clusters,
    draw_counts,
    draw_distributions,
    draw_rmsf,
    draw_series,
    draw_torsions,
)
from .results import Picture, Quantity, Section, average
from .solvation import acceptors, hydrogen_bond_count, polar_hydrogens, sasa

_CONSTRAINED = 1e-3  # Å; the single precision of a trajectory moves a fixed length by less
_SURFACE = 20_000  # atoms times frames whose surface is computed
_BONDED = 2000  # frames whose hydrogen bonds are counted


def molecule(run: Run, conformers: Conformers | None) -> Section:
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
    numbers, bonds = run.numbers[atoms], run.bonds_within(atoms)

    diffuses = box is not None and len(np.unique(run.molecules)) > 1
    if len(atoms) > 2 and not diffuses:
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
        _add_torsions(run, section, steady)
        if conformers is not None:
            _add_conformers(run, section, conformers)
        _add_hydrogen_bonds(run, section, bonds)
        _add_surface(run, section)
    if len(bonds):
        box = None if box is None else box[steady:]
        _add_bonds(section, positions[steady:], numbers, bonds, box)
    return section


def labels(run: Run, atoms: np.ndarray) -> list[str]:
    """Name atoms by element and number, counted from 1 among `atoms`: 'C1', 'O3'."""
    symbols = [run.topology.atom(int(k)).element.symbol for k in atoms]
    return [f"{symbol}{k + 1}" for k, symbol in enumerate(symbols)]


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
    section.pictures.append(
        Picture("rmsf", "Fluctuation of the atoms",
                "Root mean square fluctuation of each atom around its mean position; most of "
                f"all {names[largest]}, {fluctuation[largest]:.3g} Å.",
                partial(draw_rmsf, values=fluctuation, names=names, of="atom"))
    )  # fmt: skip


def _add_torsions(run: Run, section: Section, steady: int) -> None:
    quadruples, periods = rotatable(run)
    names = labels(run, run.focus)
    if len(quadruples) == 0:
        return
    angles = torsions(run.frames[0], quadruples)
    keys = ["-".join(names[k] for k in row) for row in quadruples]
    found = dict(zip(keys, angles[steady:].T, strict=True))
    for name, period in list(zip(keys, periods, strict=True))[:MOST_TORSIONS]:
        if period < 360:
            continue  # trans looks as cis does
        share = average(f"trans share of {name}", np.abs(found[name]) > 120)
        section.quantities.append(share)
    section.pictures.append(
        Picture("torsions", "Torsions",
                f"Distributions of the torsion angles about bonds that can turn, {len(keys)}: "
                + ", ".join(keys[:MOST_TORSIONS]) + ".",
                partial(draw_torsions, angles=found))
    )  # fmt: skip


def _add_conformers(run: Run, section: Section, found: Conformers) -> None:
    steady = run.steady(len(found.labels))
    for k, name in enumerate(found.names[:5]):
        share = average(f"share of conformer {k + 1}", found.labels[steady:] == k, "", name)
        section.quantities.append(share)
    visited = len(np.unique(found.labels))
    section.pictures.append(
        Picture("conformers", "Conformers",
                f"Conformer of each frame against time: {visited} of them, number 1 "
                f"({found.names[0]}) {100 * (found.labels == 0).mean():.0f}% of the time. Frames "
                f"are one conformer if {found.criterion}.",
                partial(draw_clusters, times=found.times, labels=found.labels))
    )  # fmt: skip


def _add_hydrogen_bonds(run: Run, section: Section, bonds: np.ndarray) -> None:
    """Those from one atom of the region or molecule to another, where there can be any."""
    numbers = run.numbers[run.focus]
    donors, takers = polar_hydrogens(numbers, bonds), acceptors(numbers)
    if len(donors) == 0 or len(takers) < 2:
        return
    positions, times = run.frames
    stride = -(-len(positions) // _BONDED)
    count = hydrogen_bond_count(positions[::stride], donors, takers)
    quantity = average("hydrogen bonds inside", count[run.steady(len(count)) :])
    section.quantities.append(quantity)
    if count.any():
        section.pictures.append(
            Picture("hydrogen_bonds_inside", "Hydrogen bonds inside",
                    "Number of hydrogen bonds between atoms of the region or molecule against "
                    f"time; {quantity.number()} on average.",
                    partial(draw_counts, times=times[::stride], counts={"inside": count}))
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
        if spread < _CONSTRAINED and len(lengths) > 1:
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
