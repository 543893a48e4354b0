"""What is looked at where the solute has a peptide in it."""

from functools import partial

import mdtraj
import numpy as np

from .conformations import backbone, radius_of_gyration, ramachandran, rmsf, secondary_structure
from .folder import Run
from .observables import rmsd
from .plots import (
    draw_counts,
    draw_ramachandran,
    draw_rmsf,
    draw_secondary_structure,
    draw_series,
)
from .results import Picture, Section, average
from .solvation import acceptors, hydrogen_bond_count, polar_hydrogens

_FOLDED = 5  # residues: fewer have no secondary structure
_FRAMES = 500  # whose secondary structure is looked at
_BONDED = 100  # frames whose hydrogen bonds are counted


def protein(run: Run) -> Section | None:
    """Observables of a peptide or protein; `None` where there is none."""
    phi_atoms, psi_atoms, names = backbone(run.trajectory.topology)
    if not names:
        return None
    steady = run.trajectory.xyz[run.steady(len(run.trajectory)) :] * 10.0
    phi, psi = ramachandran(steady, phi_atoms, psi_atoms)
    # the first and the last residue have one of the two torsions only
    folded = len(run.trajectory.topology.select("protein and name CA")) >= _FOLDED
    section = Section("Protein" if folded else "Peptide")
    helical = (np.abs(phi + 60) < 40) & (np.abs(psi + 45) < 40)
    section.quantities.append(
        average("residues in the α basin", helical.mean(axis=1), "", "φ −60° ± 40°, ψ −45° ± 40°")
    )
    section.pictures.append(
        Picture("ramachandran", "Ramachandran",
                f"Backbone torsions φ and ψ, {len(names)} residue{'s' * (len(names) > 1)}; "
                f"{100 * helical.mean():.0f}% in the α basin.",
                partial(draw_ramachandran, phi=phi, psi=psi, names=names))
    )  # fmt: skip
    if folded:
        _add_fold(run, section)
    return section


def _add_fold(run: Run, section: Section) -> None:
    trajectory = run.trajectory.atom_slice(run.trajectory.topology.select("protein"))
    alpha = trajectory.topology.select("name CA")
    positions = trajectory.xyz[:, alpha].astype(float) * 10.0
    first = run.steady(len(positions))
    deviation = rmsd(positions, positions[0])
    mean = average("RMSD of Cα", deviation[first:], "Å", f"at most {deviation.max():.3g} Å")
    masses = np.array([atom.element.mass for atom in trajectory.topology.atoms])
    # In pieces: a protein in many frames is large in double precision.
    gyration = np.concatenate(
        [
            radius_of_gyration(trajectory.xyz[k : k + 100].astype(float) * 10.0, masses)
            for k in range(first, len(trajectory), 100)
        ]
    )
    section.quantities += [mean, average("radius of gyration of the protein", gyration, "Å")]
    fluctuation = rmsf(positions[first:])
    residues = [str(trajectory.topology.atom(int(k)).residue.resSeq) for k in alpha]
    codes, times = _codes(trajectory, run)
    section.pictures += [
        Picture("rmsd_protein", "RMSD of Cα",
                f"Deviation of the Cα atoms from the first frame against time; {mean.text()}.",
                partial(draw_series, time=run.times, values=deviation, ylabel="RMSD (Å)")),
        Picture("rmsf_protein", "Fluctuation of Cα",
                f"Root mean square fluctuation of {len(alpha)} Cα atoms, {fluctuation.mean():.3g} "
                "Å on average.",
                partial(draw_rmsf, values=fluctuation, names=residues)),
        Picture("secondary_structure", "Secondary structure",
                "Helix and strand by residue and time, by DSSP.",
                partial(draw_secondary_structure, times=times, codes=codes)),
    ]  # fmt: skip
    steady = codes[run.steady(len(codes)) :]
    for code, name in (("H", "helix"), ("E", "strand")):
        section.quantities.append(average(f"residues in a {name}", (steady == code).mean(axis=1)))
    _add_hydrogen_bonds(run, section)


def _add_hydrogen_bonds(run: Run, section: Section) -> None:
    stride = -(-len(run.trajectory) // _BONDED)
    atoms = run.trajectory.topology.select("protein")
    whole = run.followed[atoms]
    numbers, bonds = run.numbers[whole], run.bonds_within(whole)
    count = hydrogen_bond_count(
        run.trajectory.xyz[::stride, atoms] * 10.0,
        polar_hydrogens(numbers, bonds),
        acceptors(numbers),
    )
    quantity = average("hydrogen bonds within the protein", count[run.steady(len(count)) :])
    section.quantities.append(quantity)
    section.pictures.append(
        Picture("hydrogen_bonds_protein", "Hydrogen bonds within the protein",
                "Number of hydrogen bonds between atoms of the protein against time; "
                f"{quantity.number()} on average.",
                partial(draw_counts, times=run.times[::stride], counts={"within": count}))
    )  # fmt: skip


def _codes(trajectory: mdtraj.Trajectory, run: Run) -> tuple[np.ndarray, np.ndarray]:
    stride = -(-len(trajectory) // _FRAMES)
    codes = secondary_structure(trajectory[::stride])
    return codes[:, (codes != "NA").any(axis=0)], run.times[::stride]
