"""Small molecules: from SMILES, a molfile or bare coordinates to RDKit, and on to OpenMM.

A molecule is an RDKit ``Mol`` with all hydrogens and one conformer, whose atoms have their names
in the property ``name`` and, where they were reordered, the index that they had in ``given``.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase
import numpy as np
from ase.data import covalent_radii
from openmm import app
from rdkit import Chem, rdBase
from rdkit.Chem import rdDetermineBonds, rdDistGeom, rdForceFieldHelpers
from rdkit.Geometry import Point3D

from ..domain import signed
from ..errors import InputError
from ..units import NM
from .structure import Structure, bonded_pairs

_MOST_MATCHES = 2000  # ways to lay one molecule onto another
_SHORTER = {1.5: 0.12, 2.0: 0.2, 3.0: 0.32}  # Å, than a single bond


def from_smiles(text: str, seed: int = 1) -> Chem.Mol:
    """Build a molecule with ETKDG and minimise it with MMFF94.

    Raises
    ------
    InputError
        The text is no SMILES or means more than one molecule, or no geometry is found.
    """
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(text, sanitize=False)
        if mol is None or mol.GetNumAtoms() == 0:
            raise InputError(f"'{text}' is not a SMILES")
        problems = Chem.DetectChemistryProblems(mol)
        if problems:
            raise InputError(f"SMILES '{text}' has a problem: {problems[0].Message()}")
        Chem.SanitizeMol(mol)
        return named(_build(Chem.AddHs(mol), f"SMILES '{text}'", seed))


def from_molfile(path: Path, seed: int = 1) -> Chem.Mol:
    """Read the first molecule of an SDF or MOL file; missing hydrogens are added.

    A flat drawing is built in three dimensions, as `from_smiles` does it.

    Raises
    ------
    InputError
        The file holds no molecule that RDKit understands, or more than one in its first record.
    """
    with rdBase.BlockLogs():
        mol = next(iter(Chem.SDMolSupplier(str(path), removeHs=False)), None)
        if mol is None or mol.GetNumAtoms() == 0:
            raise InputError(
                f"'{path}' does not begin with a molecule that RDKit understands (valences, "
                "aromatic rings): check it in a molecule editor"
            )
        if mol.GetConformer().Is3D():
            return named(_one(Chem.AddHs(mol, addCoords=True), f"'{path}'"))
        return named(_build(Chem.AddHs(mol), f"'{path}'", seed))


def from_coordinates(
    numbers: Sequence[int], positions: np.ndarray, names: Sequence[str], charge: int, where: str
) -> Chem.Mol:
    """Perceive the bonds of a molecule with all its hydrogens.

    Parameters
    ----------
    numbers, names
        Atomic number and name of each atom.
    positions
        Å, shape ``[N, 3]``.
    charge
        Net charge, e.
    where
        What to call it in a message.

    Raises
    ------
    InputError
        No assignment of bonds gives this charge.
    """
    mol = _atoms_only(numbers, positions)
    try:
        with rdBase.BlockLogs():
            rdDetermineBonds.DetermineBonds(mol, charge=charge)
    except (ValueError, RuntimeError):
        raise InputError(
            f"no bonds and bond orders suit the atoms of {where} at charge {signed(charge)}: give "
            "its charge, or its SMILES or SDF file as a ligand"
        ) from None
    return named(_one(mol.GetMol(), where), names)


def onto(
    template: Chem.Mol, numbers: np.ndarray, positions: np.ndarray, names: Sequence[str]
) -> Chem.Mol | None:
    """Return the molecule `template` at the coordinates of some atoms; `None` if they differ.

    Atoms and bonds must agree; bond orders and charges are those of the template. Hydrogens that
    the coordinates lack are added, and those of another protonation state or tautomer are made
    anew; those of carbon, if there are any, must be as many as in the template. The order is that
    of the coordinates; `given_order` tells which atom of the template each one is.

    Parameters
    ----------
    template
        With all hydrogens.
    numbers, positions, names
        As for `from_coordinates`.
    """
    numbers, template = np.asarray(numbers), Chem.Mol(template)
    for atom in template.GetAtoms():
        atom.SetIntProp("given", atom.GetIdx())
    heavy = np.flatnonzero(numbers > 1)
    theirs, ours = _hydrogens_of(template), _hydrogens_of(_bonded(numbers, positions))
    skeleton = Chem.RemoveAllHs(template)
    given = [atom.GetIntProp("given") for atom in skeleton.GetAtoms()]
    matches = _matches(skeleton, numbers[heavy], positions[heavy])
    for match in matches:
        partners = list(zip(given, heavy[match].tolist(), strict=True))
        if all(len(theirs[k]) == len(ours[n]) for k, n in partners):
            for k, n in tuple(partners):
                partners += zip(theirs[k], ours[n], strict=True)
            order = [k for k, _ in sorted(partners, key=lambda pair: pair[1])]
            if len(order) == len(numbers):
                return _at(template, order, positions, names)
    for match in matches:
        carbon = [
            (k, n) for k, n in zip(given, heavy[match].tolist(), strict=True) if numbers[n] == 6
        ]
        if not any(ours[n] for _, n in carbon) or all(
            len(theirs[k]) == len(ours[n]) for k, n in carbon
        ):
            order = np.argsort(match).tolist()
            mol = _at(skeleton, order, positions[heavy], [names[n] for n in heavy.tolist()])
            for atom in list(mol.GetAtoms())[len(heavy) :]:
                parent = atom.GetNeighbors()[0].GetIntProp("given")
                atom.SetIntProp("given", theirs[parent].pop(0))
            return mol
    return None


def _at(
    mol: Chem.Mol, order: Sequence[int], positions: np.ndarray, names: Sequence[str]
) -> Chem.Mol:
    """Return the atoms of a molecule in another order, at coordinates; hydrogens are added."""
    mol = Chem.RenumberAtoms(mol, list(order))
    numbers = [atom.GetAtomicNum() for atom in mol.GetAtoms()]
    mol.RemoveAllConformers()
    mol.AddConformer(_atoms_only(numbers, positions).GetConformer(), assignId=True)
    Chem.AssignStereochemistryFrom3D(mol)
    return named(Chem.AddHs(mol, addCoords=True), names)


def _bonded(numbers: np.ndarray, positions: np.ndarray) -> Chem.Mol:
    """Return atoms with single bonds between those that are near each other."""
    mol = _atoms_only(numbers, positions)
    for i, j in bonded_pairs(ase.Atoms(numbers, positions)).tolist():
        mol.AddBond(i, j, Chem.BondType.SINGLE)
    return mol


def _hydrogens_of(mol: Chem.Mol) -> dict[int, list[int]]:
    """Return the indices of the hydrogens of each atom."""
    return {
        atom.GetIdx(): [n.GetIdx() for n in atom.GetNeighbors() if n.GetAtomicNum() == 1]
        for atom in mol.GetAtoms()
    }


def _matches(template: Chem.Mol, numbers: np.ndarray, positions: np.ndarray) -> list[np.ndarray]:
    """Return the place of each atom of the template, for each way in which it fits, best first.

    The same graph may fit in several ways, with double bonds in other places (phenyl and
    cyclohexyl without hydrogens): best is the one whose bonds have their usual lengths.
    """
    if len(numbers) != template.GetNumAtoms():
        return []
    found, wanted = _bonded(numbers, positions), bare_graph(template)
    if found.GetNumBonds() != wanted.GetNumBonds():
        return []
    matches = found.GetSubstructMatches(wanted, uniquify=False, maxMatches=_MOST_MATCHES)
    ways = np.array(matches, dtype=np.int64).reshape(len(matches), len(numbers))
    return list(ways[np.argsort(strain(template, positions[ways]), kind="stable")])


def strain(mol: Chem.Mol, positions: np.ndarray) -> np.ndarray:
    """Return by how much bonds between heavy atoms differ from their usual lengths, Å².

    Parameters
    ----------
    mol
        The bonds.
    positions
        Å, shape ``[..., N, 3]``.
    """
    total = np.zeros(positions.shape[:-2])
    for bond in mol.GetBonds():
        ends = bond.GetBeginAtom(), bond.GetEndAtom()
        if any(atom.GetAtomicNum() == 1 for atom in ends):
            continue
        usual = sum(covalent_radii[atom.GetAtomicNum()] for atom in ends)
        usual -= _SHORTER.get(bond.GetBondTypeAsDouble(), 0.0)
        first, second = (positions[..., atom.GetIdx(), :] for atom in ends)
        total = total + (np.linalg.norm(first - second, axis=-1) - usual) ** 2
    return total


def given_order(mol: Chem.Mol) -> list[int]:
    """Return the index that each atom has in the SMILES or file of the molecule, shape ``[N]``."""
    return [
        atom.GetIntProp("given") if atom.HasProp("given") else atom.GetIdx()
        for atom in mol.GetAtoms()
    ]


def is_built(mol: Chem.Mol) -> bool:
    """Whether the geometry is made up, from a SMILES or a flat drawing."""
    return bool(mol.HasProp("asked"))


def bare_graph(mol: Chem.Mol) -> Chem.Mol:
    """Return elements and connectivity alone, without bond orders and charges."""
    graph = Chem.RWMol()
    for atom in mol.GetAtoms():
        bare = Chem.Atom(atom.GetAtomicNum())
        bare.SetNoImplicit(True)
        graph.AddAtom(bare)
    for bond in mol.GetBonds():
        graph.AddBond(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), Chem.BondType.SINGLE)
    graph.UpdatePropertyCache(strict=False)
    return graph.GetMol()


def to_structure(mol: Chem.Mol, residue_name: str) -> Structure:
    """Turn a molecule into a structure of one residue, with bonds and formal charges."""
    topology = app.Topology()
    residue = topology.addResidue(residue_name, topology.addChain())
    atoms = [
        topology.addAtom(
            atom.GetProp("name"),
            app.Element.getByAtomicNumber(atom.GetAtomicNum()),
            residue,
            formalCharge=atom.GetFormalCharge(),
        )
        for atom in mol.GetAtoms()
    ]
    for bond in mol.GetBonds():
        topology.addBond(atoms[bond.GetBeginAtomIdx()], atoms[bond.GetEndAtomIdx()])
    return Structure(topology, mol.GetConformer().GetPositions() * NM, None)


def smiles(mol: Chem.Mol) -> str:
    """Return the canonical SMILES, without explicit hydrogens."""
    with rdBase.BlockLogs():
        return Chem.MolToSmiles(Chem.RemoveHs(mol))


def named(mol: Chem.Mol, names: Sequence[str] = ()) -> Chem.Mol:
    """Name the atoms; those beyond the given ones by element and number, each differently."""
    taken, count = set(names), Counter[str]()
    for index, atom in enumerate(mol.GetAtoms()):
        name = names[index] if index < len(names) else ""
        while not name:
            count[atom.GetSymbol()] += 1
            guess = f"{atom.GetSymbol()}{count[atom.GetSymbol()]}"
            name = guess if guess not in taken else ""
        taken.add(name)
        atom.SetProp("name", name)
    return mol


def _one(mol: Chem.Mol, where: str) -> Chem.Mol:
    parts = len(Chem.GetMolFrags(mol))
    if parts > 1:
        raise InputError(
            f"{where} is {parts} molecules: give one; ions and salt come with the water"
        )
    return mol


def _build(mol: Chem.Mol, where: str, seed: int) -> Chem.Mol:
    """Give a molecule with all hydrogens a geometry, and a configuration where it is left open.

    The property ``asked`` holds the SMILES as it was before.
    """
    _one(mol, where)
    mol.SetProp("asked", smiles(mol))
    settings: Any = rdDistGeom.ETKDGv3()  # its stubs have no attributes that can be set
    settings.randomSeed = seed
    if rdDistGeom.EmbedMolecule(mol, settings) < 0:
        settings.useRandomCoords = True
        if rdDistGeom.EmbedMolecule(mol, settings) < 0:
            raise InputError(f"RDKit finds no geometry for {where}: give a file with coordinates")
    if rdForceFieldHelpers.MMFFHasAllMoleculeParams(mol):
        rdForceFieldHelpers.MMFFOptimizeMolecule(mol, maxIters=2000)
    else:
        rdForceFieldHelpers.UFFOptimizeMolecule(mol, maxIters=2000)
    Chem.AssignStereochemistryFrom3D(mol)
    return mol


def _atoms_only(numbers: Sequence[int] | np.ndarray, positions: np.ndarray) -> Chem.RWMol:
    """Return atoms without bonds and hydrogens of their own, at their positions in Å."""
    mol, conformer = Chem.RWMol(), Chem.Conformer(len(numbers))
    for index, (number, position) in enumerate(zip(numbers, positions, strict=True)):
        atom = Chem.Atom(int(number))
        atom.SetNoImplicit(True)
        mol.AddAtom(atom)
        conformer.SetAtomPosition(index, Point3D(*map(float, position)))
    mol.AddConformer(conformer, assignId=True)
    return mol
