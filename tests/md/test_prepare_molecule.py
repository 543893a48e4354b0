"""Small molecules from SMILES, files and bare coordinates."""

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdDepictor

from openmm_nequip.errors import InputError
from openmm_nequip.md.molecule import (
    from_coordinates,
    from_molfile,
    from_smiles,
    given_order,
    is_built,
    onto,
    smiles,
    to_structure,
)

MOLECULES = ["CCO", "CC(=O)[O-]", "C[NH3+]", "C[C@H](N)C(=O)O", "c1cc[nH]c1", "C#N", "CS(C)(=O)=O"]


def numbers_of(mol):
    return np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])


@pytest.mark.parametrize("text", MOLECULES)
def test_geometry(text):
    """Bonds have lengths of bonds, hydrogens are there, the configuration is the one asked for."""
    mol = from_smiles(text)
    positions = mol.GetConformer().GetPositions()
    for bond in mol.GetBonds():
        i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        assert 0.9 < np.linalg.norm(positions[i] - positions[j]) < 2.0
    Chem.AssignStereochemistryFrom3D(mol)
    assert smiles(mol) == Chem.CanonSmiles(text)
    assert mol.GetProp("asked") == smiles(mol)
    same = from_smiles(text).GetConformer().GetPositions()
    np.testing.assert_array_equal(positions, same)


def test_open_configuration_is_chosen_and_told():
    mol = from_smiles("CC(F)Cl")
    assert mol.GetProp("asked") == "CC(F)Cl"
    assert smiles(mol) in ("C[C@H](F)Cl", "C[C@@H](F)Cl")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("CC(", r"'CC\(' is not a SMILES"),
        ("", "'' is not a SMILES"),
        ("C(C)(C)(C)(C)C", "valence for atom # 0 C, 5"),
        ("c1cccc1", "kekulize"),
        ("CCO.O", "is 2 molecules: give one"),
    ],
)
def test_bad_smiles(text, message):
    with pytest.raises(InputError, match=message):
        from_smiles(text)


@pytest.mark.parametrize("text", MOLECULES)
def test_molfile(text, tmp_path):
    """Coordinates are kept, hydrogens added where they miss, a drawing is built in space."""
    mol = from_smiles(text)
    Chem.MolToMolFile(mol, str(tmp_path / "all.mol"))
    read = from_molfile(tmp_path / "all.mol")
    assert smiles(read) == smiles(mol)
    assert not is_built(read)
    expected = mol.GetConformer().GetPositions()
    np.testing.assert_allclose(read.GetConformer().GetPositions(), expected, atol=1e-4)
    heavy = Chem.RemoveHs(mol)
    writer = Chem.SDWriter(str(tmp_path / "heavy.sdf"))
    writer.write(heavy)
    writer.close()
    read = from_molfile(tmp_path / "heavy.sdf")
    assert read.GetNumAtoms() == mol.GetNumAtoms()
    kept = read.GetConformer().GetPositions()[: heavy.GetNumAtoms()]
    np.testing.assert_allclose(kept, heavy.GetConformer().GetPositions(), atol=1e-4)
    rdDepictor.Compute2DCoords(heavy)
    Chem.MolToMolFile(heavy, str(tmp_path / "flat.mol"))
    read = from_molfile(tmp_path / "flat.mol")
    assert is_built(read)
    assert smiles(read) == smiles(mol)
    assert read.GetNumAtoms() == mol.GetNumAtoms()
    positions = read.GetConformer().GetPositions()
    for bond in read.GetBonds():  # those of the drawing are 1.5 Å long, all of them
        if bond.GetEndAtom().GetSymbol() == "H":
            i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
            assert np.linalg.norm(positions[i] - positions[j]) < 1.2


def test_damaged_molfile(tmp_path):
    (tmp_path / "bad.sdf").write_text("no molecule\n\n\nat all\n")
    with pytest.raises(InputError, match=r"bad\.sdf' does not begin with a molecule"):
        from_molfile(tmp_path / "bad.sdf")


@pytest.mark.parametrize("text", MOLECULES)
@pytest.mark.parametrize("hydrogens", [True, False])
def test_template_on_coordinates(text, hydrogens):
    """Chemistry from one place, coordinates, order and names from another."""
    template = from_smiles(text, seed=2)
    other = from_smiles(text, seed=5)
    numbers, positions = numbers_of(other), other.GetConformer().GetPositions() + 7.0
    order = np.random.default_rng(0).permutation(len(numbers))
    if not hydrogens:
        order = order[numbers[order] > 1]
    mol = onto(template, numbers[order], positions[order], [f"X{k}" for k in order])
    assert mol is not None
    Chem.AssignStereochemistryFrom3D(mol)
    assert smiles(mol) == smiles(template)
    assert mol.GetNumAtoms() == template.GetNumAtoms()
    assert [atom.GetProp("name") for atom in mol.GetAtoms()][: len(order)] == [
        f"X{k}" for k in order
    ]
    placed = mol.GetConformer().GetPositions()
    np.testing.assert_array_equal(placed[: len(order)], positions[order])
    graph = {frozenset((b.GetBeginAtomIdx(), b.GetEndAtomIdx())) for b in mol.GetBonds()}
    for first, second in graph:
        assert np.linalg.norm(placed[first] - placed[second]) < 2.0
    before = given_order(mol)
    assert sorted(before) == list(range(len(before)))
    np.testing.assert_array_equal(numbers_of(template)[before], numbers_of(mol))
    assert graph == {
        frozenset((before.index(b.GetBeginAtomIdx()), before.index(b.GetEndAtomIdx())))
        for b in template.GetBonds()
    }


def test_coordinates_decide_the_configuration():
    """The SMILES of a ligand may leave it open, or have it wrong."""
    here = from_smiles("C[C@H](N)C(=O)O")
    numbers, positions = numbers_of(here), here.GetConformer().GetPositions()
    heavy = numbers > 1
    for text in ("C[C@@H](N)C(=O)O", "CC(N)C(=O)O"):
        mol = onto(from_smiles(text), numbers[heavy], positions[heavy], ["X"] * heavy.sum())
        assert smiles(mol) == smiles(here)


def test_template_of_another_molecule():
    other = from_smiles("CCCO")
    positions = other.GetConformer().GetPositions()
    names = ["X"] * len(positions)
    assert onto(from_smiles("CCO"), numbers_of(other), positions, names) is None
    assert onto(from_smiles("CC(C)O"), numbers_of(other), positions, names) is None  # an isomer


@pytest.mark.parametrize("text", MOLECULES)
def test_bonds_from_coordinates(text):
    mol = from_smiles(text)
    positions = mol.GetConformer().GetPositions()
    names = [atom.GetProp("name") for atom in mol.GetAtoms()]
    found = from_coordinates(
        numbers_of(mol), positions, names, Chem.GetFormalCharge(mol), "residue 1"
    )
    assert smiles(found) == smiles(mol)
    assert [atom.GetProp("name") for atom in found.GetAtoms()] == names


def test_wrong_charge_for_coordinates():
    mol = from_smiles("CCO")
    with pytest.raises(InputError, match=r"no bonds .* residue 1 at charge \+1: give its charge"):
        from_coordinates(
            numbers_of(mol), mol.GetConformer().GetPositions(), ["X"] * 9, 1, "residue 1"
        )


def test_structure():
    mol = from_smiles("CC(=O)[O-]")
    structure = to_structure(mol, "ACT")
    atoms = list(structure.topology.atoms())
    assert [atom.name for atom in atoms] == ["C1", "C2", "O1", "O2", "H1", "H2", "H3"]
    assert [atom.formalCharge for atom in atoms] == [0, 0, 0, -1, 0, 0, 0]
    assert {atom.residue.name for atom in atoms} == {"ACT"}
    assert structure.topology.getNumBonds() == 6
    np.testing.assert_allclose(structure.positions * 10, mol.GetConformer().GetPositions())


@pytest.mark.parametrize(
    "text",
    ["OC(C1CCCCC1)c1ccccc1", "CC(=C)C(O)C(C)C", "C=CC(O)CC", "OC(=O)CC(O)C=O", "C#CCC(O)CCC"],
)
def test_double_bonds_are_where_the_coordinates_have_them(text):
    """Without hydrogens phenyl and cyclohexyl are the same graph."""
    template = from_smiles(text, seed=2)
    other = from_smiles(text, seed=5)
    numbers, positions = numbers_of(other), other.GetConformer().GetPositions()
    orders = {
        frozenset((b.GetBeginAtomIdx(), b.GetEndAtomIdx())): b.GetBondTypeAsDouble()
        for b in other.GetBonds()
    }
    heavy = np.flatnonzero(numbers > 1)
    for seed in range(6):
        order = np.random.default_rng(seed).permutation(heavy)
        mol = onto(template, numbers[order], positions[order], ["X"] * len(order))
        for bond in mol.GetBonds():
            ends = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
            if max(ends) < len(order):
                theirs = orders[frozenset(int(order[k]) for k in ends)]
                assert bond.GetBondTypeAsDouble() == theirs


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("OC(=O)CCC(=O)O", "OC(=O)/C=C/C(=O)O"), ("OC1CCCCC1", "Oc1ccccc1"), ("CC=O", "CCO")],
)
def test_hydrogens_of_carbon_tell_molecules_apart(ours, theirs):
    """Without them succinate and fumarate, phenol and cyclohexanol have the same bonds."""
    mol, other = from_smiles(ours), from_smiles(theirs)
    numbers, positions = numbers_of(mol), mol.GetConformer().GetPositions()
    names = ["X"] * len(numbers)
    assert onto(other, numbers, positions, names) is None
    assert smiles(onto(mol, numbers, positions, names)) == ours or ours == "OC(=O)CCC(=O)O"
    polar = np.array([
        atom.GetAtomicNum() > 1 or atom.GetNeighbors()[0].GetAtomicNum() != 6
        for atom in mol.GetAtoms()
    ])  # fmt: skip
    assert onto(other, numbers[polar], positions[polar], names[: polar.sum()]) is not None


def test_another_tautomer_has_the_hydrogens_of_the_template():
    pyridone, hydroxypyridine = from_smiles("O=c1cccc[nH]1"), from_smiles("Oc1ccccn1")
    numbers = numbers_of(hydroxypyridine)
    positions = hydroxypyridine.GetConformer().GetPositions()
    mol = onto(pyridone, numbers, positions, ["X"] * len(numbers))
    assert smiles(mol) == smiles(pyridone)
    heavy = positions[numbers > 1]
    np.testing.assert_array_equal(mol.GetConformer().GetPositions()[: len(heavy)], heavy)
