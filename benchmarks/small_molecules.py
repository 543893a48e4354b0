"""Lennard-Jones parameters and charges of `prepare` beside those of antechamber, for FreeSolv.

FreeSolv (github.com/MobleyLab/FreeSolv) holds 642 neutral molecules with GAFF's atom types and
AM1-BCC charges. Unpack its mol2files_gaff.tar.gz and mol2files_sybyl.tar.gz into one folder, then

    python benchmarks/small_molecules.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np
from rdkit import Chem, rdBase

from openmm_nequip.md.ligand import CHARGE_METHODS, GAFF, lennard_jones, partial_charges

DEBYE = 4.80320  # of 1 e Å
# GAFF's other types, by the one among ours that has its parameters
SAME = {
    "c": ["c2", "ca", "cc", "cd", "ce", "cf", "cp", "cq", "cu", "cv", "cz"],
    "c1": ["cg", "ch"],
    "n": ["n1", "n2", "n3", "n4", "na", "nb", "nc", "nd", "ne", "nf", "nh", "no"],
    "p": ["p2", "p3", "p4", "p5", "px", "py"],
    "s": ["s2", "s4", "s6", "sh", "ss", "sx", "sy"],
}
OURS = {kind: kind for kind in GAFF} | {t: kind for kind, all_ in SAME.items() for t in all_}


def main(folder: Path) -> None:
    """Print how many molecules agree, and how far charges and dipoles are apart."""
    agree, differences = 0, {method: [] for method in CHARGE_METHODS}
    dipoles = {method: [] for method in CHARGE_METHODS}
    files = sorted(folder.glob("mol2files_gaff/*.mol2"))
    for path in files:
        rows = [line.split() for line in atoms_of(path.read_text())]
        with rdBase.BlockLogs():
            mol = Chem.MolFromMol2File(str(folder / "mol2files_sybyl" / path.name), removeHs=False)
        theirs = [GAFF[OURS[row[5]]] for row in rows]
        agree += [GAFF[parameter.type] for parameter in lennard_jones(mol)] == theirs
        positions = mol.GetConformer().GetPositions()
        reference = np.array([float(row[8]) for row in rows])
        for method in CHARGE_METHODS:
            charges = partial_charges(mol, method)
            differences[method].append(charges - reference)
            dipoles[method].append(DEBYE * np.array([charges @ positions, reference @ positions]))
    print(f"{agree} of {len(files)} molecules have GAFF's Lennard-Jones parameters")
    for method in CHARGE_METHODS:
        rms = np.sqrt(np.mean(np.concatenate(differences[method]) ** 2))
        own, reference = np.array(dipoles[method]).transpose(1, 0, 2)
        size = (own * reference).sum() / (reference**2).sum()
        error = np.linalg.norm(own - reference, axis=1).mean()
        print(
            f"{method:>9}: charges differ by {rms:.3f} e (rms); dipoles are {size:.2f} of those of "
            f"AM1-BCC along these, and differ by {error:.2f} D (mean)"
        )


def atoms_of(text: str) -> list[str]:
    """Return the lines of the atoms in a mol2 file."""
    return text.partition("@<TRIPOS>ATOM")[2].partition("@<TRIPOS>")[0].strip().splitlines()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
