"""Structures to simulate: from files and bundled examples to a topology and coordinates."""

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

import ase
import ase.build
import ase.io
import numpy as np
import openmm
from ase.data import covalent_radii
from openmm import app, unit
from openmm.app.internal.unitcell import reducePeriodicBoxVectors

from ..data.neighbors import pair_distances
from ..domain import net_charge
from ..errors import InputError, did_you_mean

#: name of each bundled example and of the molecule in ASE's collection
EXAMPLES = {"ethanol": "CH3CH2OH", "water": "H2O", "methane": "CH4", "benzene": "C6H6"}

_LARGEST_MOLECULE = 500  # a larger connected cluster is a crystal or a network
_WATER_NAMES = ("HOH", "WAT", "SOL", "TIP", "TP3", "SPC", "H2O", "DOD")
_PLACEHOLDER = 0.2  # nm; programs write a box of 1 Å for "no box"


@dataclass(frozen=True)
class Structure:
    """A structure ready for OpenMM.

    Attributes
    ----------
    topology
        Atoms, bonds (where known or guessed) and periodic box.
    positions
        nm, shape ``[N, 3]``.
    box
        Box vectors in OpenMM's reduced form, nm, shape ``[3, 3]``; `None` for no box.
    charge
        Net charge, e, where the file tells it other than by formal charges in the topology.
    mm_system
        System of the conventional force field, for runs in which it describes a part.
    """

    topology: app.Topology
    positions: np.ndarray
    box: np.ndarray | None
    charge: int | None = None
    mm_system: openmm.System | None = None

    def periodic(self, wanted: bool) -> "Structure":
        """Return the structure with its box, or without.

        Raises
        ------
        InputError
            A box is wanted and there is none.
        """
        if wanted and self.box is None:
            raise InputError("'periodic: true', but the structure has no box")
        if wanted:
            return self
        topology = deepcopy(self.topology)
        topology.setPeriodicBoxVectors(None)
        return replace(self, topology=topology, box=None)

    def formula(self, atoms: Sequence[int] | None = None) -> str:
        """Return the sum formula of some atoms, or of all, in Hill's order."""
        members = list(self.topology.atoms())
        chosen = members if atoms is None else [members[k] for k in atoms]
        numbers = [atom.element.atomic_number if atom.element else 0 for atom in chosen]
        return ase.Atoms(numbers).get_chemical_formula("hill")


def is_file(text: str) -> bool:
    """Whether a text names a file; one that is too long for a name, as of a SMILES, does not."""
    try:
        return Path(text).is_file()
    except OSError:
        return False


def find_structure(source: str, folders: Sequence[Path] = (Path(),)) -> Path | None:
    """Return the file that `source` names in the first of the folders that has it.

    Returns `None` for a bundled example. ``file@n`` names frame n, as in ASE.

    Raises
    ------
    InputError
        There is neither such a file nor such an example.
    """
    for folder in folders:
        path = folder / source
        if path.is_file() or path.with_name(path.name.rpartition("@")[0] or " ").is_file():
            return path
    if source in EXAMPLES:
        return None
    raise InputError(
        f"structure '{source}' is neither a file nor a bundled example"
        f"{did_you_mean(source, EXAMPLES)}; examples: {', '.join(EXAMPLES)}"
    )


def load_structure(source: str) -> Structure:
    """Read a structure file, or build a bundled example.

    PDB and mmCIF files are read by OpenMM, all others by ASE (the last frame, or frame ``n`` of
    ``file@n``); ASE structures get one residue for each molecule, from bonds guessed by distance.

    Raises
    ------
    InputError
        The file does not exist, cannot be read or is periodic in some directions only.
    """
    path = find_structure(source)
    if path is None:
        return from_ase(ase.build.molecule(EXAMPLES[source]))
    try:
        if path.suffix.lower() in (".pdb", ".ent"):
            return _read_pdb(path)
        if path.suffix.lower() in (".cif", ".mmcif", ".pdbx") and "_atom_site." in path.read_text():
            return _from_openmm(app.PDBxFile(str(path)))
        atoms = ase.io.read(path)
        if path.suffix.lower() in (".sdf", ".mol"):  # ASE does not read their charges
            atoms.info["charge"] = _molfile_charge(path.read_text(), len(atoms))
            _check_hydrogens(path)
    except InputError:
        raise
    except Exception as error:  # parsers raise whatever they like on a damaged file
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"cannot read structure '{path}', give a PDB, mmCIF or xyz file ({reason})"
        ) from None
    assert isinstance(atoms, ase.Atoms)
    return from_ase(atoms)


def _molfile_charge(text: str, num_atoms: int) -> int:
    """Return the sum of the formal charges in the first record of a V2000 molfile."""
    lines = text.partition("$$$$")[0].splitlines()
    properties = [line.split()[3:] for line in lines if line.startswith("M  CHG")]
    if properties:  # they supersede the codes in the atom block
        return sum(int(charge) for fields in properties for charge in fields[1::2])
    codes = [int((line.split()[5:] or ["0"])[0]) for line in lines[4 : 4 + num_atoms]]
    return sum(4 - code for code in codes if code != 0)  # 4 is a radical


def _check_hydrogens(path: Path) -> None:
    """Refuse a drawing, whose carbon atoms lack most hydrogens; radicals lack few of them."""
    try:
        from rdkit import Chem
    except ImportError:  # without the extra 'mlmm'
        return
    mol = Chem.MolFromMolFile(str(path), removeHs=False)
    if mol is None or not mol.GetNumBonds():
        return
    carbon = [atom for atom in mol.GetAtoms() if atom.GetSymbol() == "C"]
    missing = sum(atom.GetTotalNumHs() for atom in carbon)
    present = sum(atom.GetTotalNumHs(includeNeighbors=True) for atom in carbon) - missing
    single = all(bond.GetBondTypeAsDouble() == 1 for bond in mol.GetBonds())
    left = len(carbon) if single else 0  # of a file without bond orders, or CCl3
    if missing > max(present, left):
        raise InputError(
            f"'{path}' lacks {missing} hydrogen atoms of carbon: 'openmm-nequip prepare {path}' "
            "adds them; if it is meant so, give an xyz file"
        )


_TWO_LETTERS = re.compile(r"(CL|BR|SI|SE|NA|MG|BE|LI|ZN)")


def _read_pdb(path: Path) -> Structure:
    """Read a PDB file; atoms of a residue that share a name, of which OpenMM keeps one, are named.

    A file of one such residue, as other programs write molecules, is read by ASE, with its bonds.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="WARNING: duplicate atom")
        try:
            return _from_openmm(app.PDBFile(str(path)))
        except UserWarning:
            text, residues = _with_names_of_their_own(path.read_text())
    if residues == 1:
        return from_ase(ase.io.read(path, index=0))
    return _from_openmm(app.PDBFile(StringIO(text)))


def _with_names_of_their_own(text: str) -> tuple[str, int]:
    """Number the atoms of residues in which names repeat; return text and number of residues."""
    lines = text.splitlines()
    residues: list[list[int]] = []
    before = ""
    for k, line in enumerate(lines):
        if line.startswith("ENDMDL"):
            break
        if not line.startswith(("ATOM", "HETATM")):
            before = "" if line.startswith("TER") else before
            continue
        if line[17:27] != before:
            residues.append([])
        residues[-1].append(k)
        before = line[17:27]
    for number, rows in enumerate(residues):
        names = [lines[k][12:17] for k in rows]  # with the alternate location
        if len(set(names)) == len(names):
            continue
        if lines[rows[0]][17:20].strip() in _WATER_NAMES:  # many under one number
            _number_molecules(lines, rows, first=number)
        else:
            _number_atoms(lines, rows)
    return "\n".join(line for line in lines if line) + "\n", len(residues)


def _number_molecules(lines: list[str], rows: list[int], first: int) -> None:
    """Give a number of its own to each molecule, which begins where its first name comes again."""
    start, number = lines[rows[0]][12:16], first - 1
    for k in rows:
        number += lines[k][12:16] == start
        lines[k] = f"{lines[k][:22]}{number % 10000:4d}{lines[k][26:]}"


def _number_atoms(lines: list[str], rows: list[int]) -> None:
    """Name atoms C1, C2, ... and keep the first of alternate locations."""
    kept = min({lines[k][16] for k in rows} - {" "}, default=" ")
    count = Counter[str]()
    for k in rows:
        line = f"{lines[k]:<80s}"
        if line[16] not in (" ", kept):
            lines[k] = ""
            continue
        name = line[12:16].strip(" 0123456789").upper()
        symbol = line[76:78].strip() or (_TWO_LETTERS.match(name) or [name[:1]])[0]
        count[symbol] += 1
        label = f"{symbol}{count[symbol]}"
        if len(label) > 4:
            raise InputError(
                f"residue {line[17:27].strip()} has {count[symbol]} atoms of {symbol} whose names "
                "repeat: give each molecule a number of its own, or an xyz file"
            )
        lines[k] = f"{line[:12]}{label:<4s}{line[16:76]}{symbol:>2s}{line[78:]}"


def _from_openmm(file: app.PDBFile | app.PDBxFile) -> Structure:
    positions = np.array(file.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
    vectors = file.topology.getPeriodicBoxVectors()
    structure = Structure(file.topology, positions, None)
    if vectors is None:
        return structure
    box = np.array(vectors.value_in_unit(unit.nanometer))
    if (np.diag(box) < _PLACEHOLDER).any():
        return structure.periodic(False)
    return replace(structure, box=box)


def from_ase(atoms: ase.Atoms) -> Structure:
    """Turn ASE's atoms into a structure, rotated so that the cell is as OpenMM wants it.

    Raises
    ------
    InputError
        There are no atoms, or they are periodic in some directions only.
    """
    if len(atoms) == 0:
        raise InputError("the structure has no atoms")
    if not np.isfinite(atoms.positions).all():
        atom = int(np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))[0])
        raise InputError(f"position of atom {atom} is not finite: {atoms.positions[atom].tolist()}")
    if atoms.pbc.any() and not atoms.pbc.all():
        raise InputError(
            f"the structure is periodic along {int(atoms.pbc.sum())} of 3 directions; OpenMM knows "
            "all or none: add vacuum along the others and set the periodic flags to 'T T T'"
        )
    positions, box = atoms.positions / 10, None
    if atoms.pbc.all():
        cell, rotation = atoms.cell.standard_form()
        positions = positions @ rotation.T
        upright = cell.array / 10 * np.sign(np.diag(cell.array))[:, None]  # the same lattice
        vectors = reducePeriodicBoxVectors([openmm.Vec3(*row) for row in upright])
        box = np.array(vectors.value_in_unit(unit.nanometer))
    topology = _molecules(atoms)
    if box is not None:
        topology.setPeriodicBoxVectors([openmm.Vec3(*row) for row in box])
    return Structure(topology, positions, box, net_charge(atoms))


def bonded_pairs(atoms: ase.Atoms) -> np.ndarray:
    """Guess bonds: pairs nearer than 1.15 times the sum of their covalent radii.

    Returns
    -------
    ndarray of int
        Shape ``[B, 2]``, the lower index first.
    """
    radii = 1.15 * covalent_radii[atoms.numbers]
    i, j, distances = pair_distances(
        atoms.positions,
        atoms.cell.complete().array if atoms.pbc.any() else None,
        atoms.pbc,
        2 * float(radii.max(initial=0.0)),
    )
    bonded = (i < j) & (distances < radii[i] + radii[j])
    return np.unique(np.stack([i[bonded], j[bonded]], axis=1), axis=0)


def _molecules(atoms: ase.Atoms) -> app.Topology:
    """Build the topology: one residue per molecule, or one per atom of a crystal."""
    pairs = bonded_pairs(atoms)
    label = np.arange(len(atoms))
    while True:  # each sweep hands the smallest index along the bonds
        lowest = label.copy()
        np.minimum.at(lowest, pairs[:, 0], label[pairs[:, 1]])
        np.minimum.at(lowest, pairs[:, 1], label[pairs[:, 0]])
        if (lowest == label).all():
            break
        label = lowest
    sizes = np.bincount(label)
    in_crystal = sizes[label] > _LARGEST_MOLECULE
    label = np.where(in_crystal, np.arange(len(atoms)), label)
    is_water = _waters(atoms.numbers, label)

    topology = app.Topology()
    chain = topology.addChain()
    # The order of the atoms is the file's, and a residue's atoms follow each other: a molecule
    # that is scattered over the file becomes several residues, bonded to each other.
    residue, current, count = None, -1, Counter[str]()
    placed = []
    for number, owner in zip(atoms.numbers.tolist(), label.tolist(), strict=True):
        if owner != current:
            residue = topology.addResidue("HOH" if is_water[owner] else "MOL", chain)
            current, count = owner, Counter()
        element = app.Element.getByAtomicNumber(number)
        count[element.symbol] += 1
        name = f"{element.symbol}{count[element.symbol]}"
        if is_water[owner] and number == 8:
            name = "O"  # with H1 and H2 the names of the PDB, from which programs know the bonds
        placed.append(topology.addAtom(name, element, residue))
    for first, second in pairs[~in_crystal[pairs[:, 0]]]:
        topology.addBond(placed[first], placed[second])
    return topology


def _waters(numbers: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Tell for each molecule (known by its first atom) if it is H, H and O, one after the other."""
    hydrogens = np.bincount(label, weights=numbers == 1)
    oxygens = np.bincount(label, weights=numbers == 8)
    last = np.zeros(label.max() + 1, dtype=int)
    np.maximum.at(last, label, np.arange(len(label)))
    together = last - np.arange(len(last)) == 2
    return (hydrogens == 2) & (oxygens == 1) & (np.bincount(label) == 3) & together
