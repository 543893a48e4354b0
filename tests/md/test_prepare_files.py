"""`prepare` from structure files, and from those of AMBER and GROMACS."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from openmm import app, unit
from rdkit import Chem
from rdkit.Chem import rdDepictor

from openmm_nequip.errors import InputError
from openmm_nequip.md.choices import Choices
from openmm_nequip.md.molecule import from_smiles, to_structure
from openmm_nequip.md.prepare import prepare

from .preparing import charges_of, check_folder, energy_of, organic_model, small

VILLIN = Path(app.__file__).parent / "data" / "test.pdb"  # in water, comes with OpenMM


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return organic_model(tmp_path_factory.mktemp("model"))


def write_pdb(path, topology, positions):
    with path.open("w") as file:
        app.PDBFile.writeFile(topology, positions, file)
    return str(path)


@pytest.fixture(scope="module")
def villin():
    """The protein of OpenMM's test file without water, ions and hydrogens."""
    pdb = app.PDBFile(str(VILLIN))
    modeller = app.Modeller(pdb.topology, pdb.positions)
    modeller.deleteWater()
    modeller.delete([r for r in modeller.topology.residues() if len(r) == 1])
    modeller.delete([a for a in modeller.topology.atoms() if a.element == app.element.hydrogen])
    return modeller


@pytest.fixture(scope="module")
def benzoate():
    """Beside the protein."""
    mol = from_smiles("[O-]C(=O)c1ccccc1")
    conformer = mol.GetConformer()
    for k, position in enumerate(conformer.GetPositions() + np.array([41.0, 22.0, 18.0])):
        conformer.SetAtomPosition(k, position.tolist())
    return mol


def test_protein_with_a_ligand_beside_it(villin, benzoate, model, tmp_path):
    protein = write_pdb(tmp_path / "villin.pdb", villin.topology, villin.positions)
    Chem.MolToMolFile(benzoate, str(tmp_path / "ligand.sdf"))
    prepared = prepare(
        Choices(
            protein,
            ligands=[str(tmp_path / "ligand.sdf")],
            padding=0.3,
            salt=0.1,
            potential=model,
        )
    )
    record = prepared.record
    assert record["hydrogens_added"] == 293
    assert record["force_fields"] == ["amber14-all.xml", "amber14/tip3p.xml"]
    assert record["total_charge"] == 0
    assert record["ml_region"]["charge"] == -1
    assert record["atoms_without_bonded_terms"] == prepared.atoms
    ligand = prepared.positions[prepared.atoms] * 10
    shift = prepared.positions[0] * 10 - np.array(villin.positions[0].value_in_unit(unit.angstrom))
    np.testing.assert_allclose(ligand - shift, benzoate.GetConformer().GetPositions(), atol=2e-3)
    check_folder(prepared, tmp_path / "complex")


def test_ligand_within_a_pdb(villin, benzoate, model, tmp_path):
    """Its heavy atoms come from the file, bond orders and charge from a SMILES."""
    modeller = app.Modeller(villin.topology, villin.positions)
    topology = app.Topology()
    residue = topology.addResidue("BEZ", topology.addChain("L"), "900")
    heavy = [atom for atom in benzoate.GetAtoms() if atom.GetSymbol() != "H"][::-1]
    for atom in heavy:
        element = app.Element.getBySymbol(atom.GetSymbol())
        topology.addAtom(f"{atom.GetSymbol()}X{atom.GetIdx()}", element, residue)
    positions = np.array([benzoate.GetConformer().GetPositions()[a.GetIdx()] for a in heavy])
    modeller.add(topology, positions * unit.angstrom)
    path = write_pdb(tmp_path / "complex.pdb", modeller.topology, modeller.positions)
    with pytest.raises(InputError, match="no force field knows residue BEZ"):
        prepare(Choices(path, water="none", potential=model))
    with pytest.raises(InputError, match="no force field knows residue BEZ"):
        prepare(Choices(path, water="none", potential=model, ligands=["CCO"]))
    prepared = prepare(Choices(path, water="none", potential=model, ligands=["[O-]C(=O)c1ccccc1"]))
    assert prepared.record["ml_region"]["selection"] == "resname BEZ"
    assert prepared.record["ml_region"]["charge"] == -1
    assert prepared.record["waters"] == 0
    symbols = Counter(list(prepared.topology.atoms())[k].element.symbol for k in prepared.atoms)
    assert symbols == {"C": 7, "H": 5, "O": 2}


def test_solvated_already(model, tmp_path):
    """What was prepared can be prepared again: a box that is full stays as it is."""
    ethanol = prepare(small("CCO", potential=model))
    ethanol.write(tmp_path / "first")
    said = []
    choices = Choices(str(tmp_path / "first" / "structure.cif"), cutoff=0.7, potential=model)
    prepared = prepare(choices, said.append)
    assert prepared.record["waters"] == ethanol.record["waters"]
    assert "the structure fills its box: no water is added" in said
    assert prepared.record["small_molecules"][0]["smiles"] == "CCO"
    first, second = (energy_of(p.system, p.positions) for p in (ethanol, prepared))
    assert second == pytest.approx(first, rel=1e-4)  # coordinates were rounded
    with pytest.raises(InputError, match="fills its box, so it is solvated already"):
        prepare(Choices(str(tmp_path / "first" / "structure.cif"), salt=0.1, potential=model))


@pytest.mark.parametrize(("water", "sites"), [("tip3p", 3), ("opc", 4)])
def test_waters_of_a_crystal(water, sites, model, tmp_path):
    """Oxygen atoms alone: they get hydrogens, and the fourth site where there is one."""
    topology = app.Topology()
    for _ in range(2):
        residue = topology.addResidue("HOH", topology.addChain())
        topology.addAtom("O", app.element.oxygen, residue)
    oxygens = np.array([[0.0, 0.0, 0.0], [0.0, 0.6, 0.0]])
    topology.setUnitCellDimensions(np.ones(3) * 3.0 * unit.nanometer)  # of the crystal
    path = write_pdb(tmp_path / "waters.pdb", topology, oxygens * unit.nanometer)
    mol = from_smiles("C")
    conformer = mol.GetConformer()
    for k, position in enumerate(conformer.GetPositions() + np.array([5.0, 3.0, 0.0])):
        conformer.SetAtomPosition(k, position.tolist())
    Chem.MolToMolFile(mol, str(tmp_path / "methane.sdf"))
    ligand = str(tmp_path / "methane.sdf")
    prepared = prepare(small(path, ligands=[ligand], water=water, potential=model))
    assert prepared.record["hydrogens_added"] == 4
    assert prepared.record["num_atoms"] == sites * prepared.record["waters"] + 5
    shift = prepared.positions[sites] - prepared.positions[0]
    np.testing.assert_allclose(shift, oxygens[1], atol=1e-6)
    np.testing.assert_allclose(prepared.record["box_nm"], np.eye(3) * 1.7)


def test_part_of_a_protein(villin, model, tmp_path):
    """A side chain as the region: a bond is cut, and only a user can ask for it."""
    path = write_pdb(tmp_path / "villin.pdb", villin.topology, villin.positions)
    region = "resname TRP and sidechain"
    prepared = prepare(Choices(path, water="none", region=region, potential=model))
    assert prepared.record["bonded_terms"] is True
    assert prepared.record["ml_region"]["charge"] is None
    assert len(prepared.atoms) == 18
    with pytest.raises(InputError, match="which part should the potential describe"):
        prepare(Choices(path, water="none", potential=model))


def test_a_liquid_of_small_molecules(model, tmp_path):
    """Eight methanols fill their box; which of them is the potential's has to be said."""
    mol = from_smiles("CO")
    modeller = app.Modeller(app.Topology(), [] * unit.nanometer)
    one = to_structure(mol, "MOH")
    for corner in np.ndindex(2, 2, 2):
        modeller.add(one.topology, (one.positions + 0.42 * np.array(corner)) * unit.nanometer)
    modeller.topology.setUnitCellDimensions(np.array([0.84, 0.84, 0.84]) * unit.nanometer)
    path = write_pdb(tmp_path / "liquid.pdb", modeller.topology, modeller.positions)
    with pytest.raises(InputError, match="which part should the potential describe"):
        prepare(Choices(path, cutoff=0.4, potential=model))
    prepared = prepare(Choices(path, cutoff=0.4, region="resname MOH", potential=model))
    assert prepared.record["waters"] == 0
    np.testing.assert_allclose(prepared.record["box_nm"], np.eye(3) * 0.84)
    assert len(prepared.atoms) == 48
    assert len(prepared.record["small_molecules"]) == 1


def test_missing_heavy_atoms(villin, model, tmp_path):
    modeller = app.Modeller(villin.topology, villin.positions)
    modeller.delete([next(a for a in modeller.topology.atoms() if a.name == "CG")])
    path = write_pdb(tmp_path / "gap.pdb", modeller.topology, modeller.positions)
    with pytest.raises(InputError, match=r"LEU.*PDBFixer"):
        prepare(Choices(path, water="none", region="all", potential=model))


def test_coordinates_only(model, tmp_path):
    """Bonds of a molecule in a PDB file without bonds; it keeps its names."""
    mol = from_smiles("CC(=O)[O-]")
    topology = app.Topology()
    residue = topology.addResidue("ACT", topology.addChain())
    for atom in mol.GetAtoms():
        element = app.Element.getBySymbol(atom.GetSymbol())
        topology.addAtom(f"{atom.GetSymbol()}{atom.GetIdx() + 20}", element, residue)
    positions = mol.GetConformer().GetPositions() * unit.angstrom
    path = write_pdb(tmp_path / "acetate.pdb", topology, positions)
    with pytest.raises(InputError, match=r"no bonds .* residue ACT 1 at charge 0"):
        prepare(small(path, potential=model))
    prepared = prepare(small(path, charge=-1, potential=model))
    names = [atom.name for atom in prepared.topology.atoms()][:7]
    assert names == ["C20", "C21", "O22", "O23", "H24", "H25", "H26"]
    assert prepared.record["small_molecules"][0]["smiles"] == "CC(=O)[O-]"
    assert prepared.record["force_fields"] == ["amber14/tip3p.xml"]


@pytest.mark.parametrize("hydrogens", [True, False])
def test_own_charges_follow_the_atoms_of_the_ligand_file(hydrogens, model, tmp_path):
    """Ethanol, in the structure from the last atom to the first."""
    mol = from_smiles("CCO")
    Chem.MolToMolFile(mol, str(tmp_path / "ligand.sdf"))
    (tmp_path / "mine.txt").write_text("-0.3 0.08 -0.7 0.1 0.1 0.1 0.11 0.11 0.4")
    topology = app.Topology()
    residue = topology.addResidue("ETH", topology.addChain())
    atoms = [a for a in mol.GetAtoms() if hydrogens or a.GetSymbol() != "H"][::-1]
    for atom in atoms:
        element = app.Element.getBySymbol(atom.GetSymbol())
        topology.addAtom(f"{atom.GetSymbol()}{atom.GetIdx()}", element, residue)
    positions = mol.GetConformer().GetPositions()[[a.GetIdx() for a in atoms]]
    path = write_pdb(tmp_path / "ethanol.pdb", topology, positions * unit.angstrom)
    ligand, charges = str(tmp_path / "ligand.sdf"), str(tmp_path / "mine.txt")
    choices = Choices(path, ligands=[ligand], charges=charges, water="none", potential=model)
    found = charges_of(prepare(choices).system)
    expected = [0.4, 0.11, 0.11, 0.1, 0.1, 0.1, -0.7, 0.08, -0.3]
    if not hydrogens:  # those added: on O, C, C
        expected = [-0.7, 0.08, -0.3, 0.4, 0.11, 0.11, 0.1, 0.1, 0.1]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_flat_drawing_is_chemistry_without_a_place(model, tmp_path):
    """Of a residue in the structure it tells bond orders; beside a structure it cannot stand."""
    mol = from_smiles("Oc1ccccc1")
    path = write_pdb(
        tmp_path / "phenol.pdb",
        to_structure(mol, "PHN").topology,
        mol.GetConformer().GetPositions() * unit.angstrom,
    )
    flat = {}
    for name, text in (("phenol", "Oc1ccccc1"), ("ethanol", "CCO")):
        drawing = Chem.MolFromSmiles(text)
        rdDepictor.Compute2DCoords(drawing)
        flat[name] = str(tmp_path / f"{name}.sdf")
        Chem.MolToMolFile(drawing, flat[name])
    said = []
    choices = Choices(path, ligands=[flat["phenol"]], water="none", potential=model)
    assert len(prepare(choices, said.append).positions) == 13
    assert f"'{flat['phenol']}' is a flat drawing: the molecule is built in space" in said
    for source in (path, flat["phenol"], "C"):
        with pytest.raises(InputError, match="a SMILES or a flat drawing has no place in space"):
            prepare(Choices(source, ligands=[flat["ethanol"]], water="none", potential=model))


# --- systems with their parameters ----------------------------------------------------------------

TOP = """\
[ defaults ]
1 2 yes 0.5 0.8333
[ atomtypes ]
c3 12.01 0.0 A 0.339967 0.45773
hc 1.008 0.0 A 0.264953 0.0656888
[ moleculetype ]
MET 3
[ atoms ]
1 c3 1 MET C  1 -0.4 12.01
2 hc 1 MET H1 1  0.1 1.008
3 hc 1 MET H2 1  0.1 1.008
4 hc 1 MET H3 1  0.1 1.008
5 hc 1 MET H4 1  0.1 1.008
[ bonds ]
1 2 1 0.109 282000
1 3 1 0.109 282000
1 4 1 0.109 282000
1 5 1 0.109 282000
[ atomtypes ]
OW 16.0 0.0 A 0.3150752 0.635968
HW 1.008 0.0 A 0.0 0.0
[ moleculetype ]
SOL 2
[ atoms ]
1 OW 1 SOL OW  1 -0.834 16.0
2 HW 1 SOL HW1 1  0.417 1.008
3 HW 1 SOL HW2 1  0.417 1.008
[ settles ]
1 1 0.09572 0.15139
[ exclusions ]
1 2 3
2 1 3
3 1 2
[ system ]
methane
[ molecules ]
MET 1
SOL 1
"""


def test_gromacs(model, tmp_path):
    positions = from_smiles("C").GetConformer().GetPositions() / 10 + 1.5
    lines = ["methane and water", "8"]
    for k, (x, y, z) in enumerate(positions):
        name = "C" if k == 0 else f"H{k}"
        lines.append(f"    1MET  {name:>5s}{k + 1:5d}{x:8.3f}{y:8.3f}{z:8.3f}")
    lines += ["    2SOL     OW    6   0.500   0.500   0.500"]
    lines += ["    2SOL    HW1    7   0.596   0.500   0.500"]
    lines += ["    2SOL    HW2    8   0.476   0.593   0.500"]
    (tmp_path / "x.gro").write_text("\n".join([*lines, "   3.0   3.0   3.0"]) + "\n")
    (tmp_path / "x.top").write_text(TOP)
    files = [str(tmp_path / "x.top"), str(tmp_path / "x.gro")]
    for source, coordinates in (files, files[::-1]):
        prepared = prepare(Choices(source, coordinates, potential=model))
        assert prepared.record["ml_region"]["selection"] == "resname MET"
        assert prepared.record["bonded_terms"] is True
        np.testing.assert_allclose(charges_of(prepared.system)[:5], [-0.4, *[0.1] * 4])
        assert prepared.record["waters"] == 1
    check_folder(prepared, tmp_path / "methane")
    for wrong in (Choices(files[0]), Choices(files[0], files[0]), Choices(files[1])):
        with pytest.raises(InputError, match=r"give parameters and coordinates, like"):
            prepare(wrong)
    with pytest.raises(InputError, match=r"comes with its parameters.*leave out salt"):
        prepare(Choices(*files, salt=0.1))
    with pytest.raises(InputError, match=r"comes with its parameters.*leave out water"):
        prepare(Choices(*files, water="opc"))
    (tmp_path / "x.gro").write_text("\n".join(["no", "gro"]))
    with pytest.raises(InputError, match="cannot read"):
        prepare(Choices(*files))


def test_amber(reference_data, model, tmp_path):
    """Toluene in water: nothing is invented, only the region chosen."""
    files = [str(reference_data / f"mlmm_inputs/toluene-explicit.{k}") for k in ("prm7", "rst7")]
    prepared = prepare(Choices(*files, potential=model))
    prmtop = app.AmberPrmtopFile(files[0])
    theirs = charges_of(prmtop.createSystem())
    np.testing.assert_array_equal(charges_of(prepared.system), theirs)
    assert prepared.record["waters"] == 2160
    assert len(prepared.atoms) == 15
    assert prepared.record["bonded_terms"] is True
    np.testing.assert_allclose(prepared.record["box_nm"], np.eye(3) * 4.0)
    check_folder(prepared, tmp_path / "toluene")


def test_given_structures(reference_data, model, tmp_path):
    """A molecule without parameters in a PDB file, and a solvated peptide."""
    names = ("toluene", "alanine-dipeptide-explicit")
    files = [str(reference_data / f"mlmm_inputs/{name}.pdb") for name in names]
    toluene = prepare(small(files[0], width=2.0, potential=model))
    assert toluene.record["small_molecules"][0]["smiles"] == "Cc1ccccc1"
    assert toluene.record["ml_region"]["selection"] == "resname MBN"
    check_folder(toluene, tmp_path / "toluene")
    peptide = prepare(Choices(files[1], potential=model))
    assert peptide.record["waters"] == 749
    assert peptide.record["ml_region"]["selection"] == "resname ACE ALA NME"
    assert len(peptide.atoms) == 22
    assert peptide.record["ml_region"]["charge"] == 0
    check_folder(peptide, tmp_path / "peptide")


def test_missing_residues_are_named_and_not_bridged(villin, model, tmp_path):
    modeller = app.Modeller(villin.topology, villin.positions)
    modeller.delete(list(modeller.topology.residues())[10:13])
    path = write_pdb(tmp_path / "gap.pdb", modeller.topology, modeller.positions)
    with pytest.raises(InputError, match=r"1 bond of the topology is far too long .*PDBFixer"):
        prepare(Choices(path, water="none", potential=model))


def test_a_ligand_is_not_added_twice(villin, benzoate, model, tmp_path):
    """It lies in the file already, with other bonds than the SDF has."""
    modeller = app.Modeller(villin.topology, villin.positions)
    part = to_structure(benzoate, "LIG")
    modeller.add(part.topology, part.positions * unit.nanometer)
    path = write_pdb(tmp_path / "complex.pdb", modeller.topology, modeller.positions)
    other = Chem.RWMol(benzoate)
    carbon = next(a for a in other.GetAtoms() if a.GetSymbol() == "C" and a.GetTotalNumHs(True))
    hydrogen = next(a for a in carbon.GetNeighbors() if a.GetSymbol() == "H")
    other.GetAtomWithIdx(hydrogen.GetIdx()).SetAtomicNum(9)  # a fluorobenzoate
    Chem.MolToMolFile(other.GetMol(), str(tmp_path / "other.sdf"))
    with pytest.raises(InputError, match="lies where residue LIG 1 is already"):
        prepare(Choices(path, water="none", potential=model, ligands=[str(tmp_path / "other.sdf")],
                        charge=-1))  # fmt: skip


@pytest.mark.parametrize("name", ["UNK", "PCA"])
def test_a_ligand_with_the_name_of_an_amino_acid(villin, benzoate, model, tmp_path, name):
    modeller = app.Modeller(villin.topology, villin.positions)
    part = to_structure(benzoate, name)
    modeller.add(part.topology, part.positions * unit.nanometer)
    path = write_pdb(tmp_path / "complex.pdb", modeller.topology, modeller.positions)
    given = ["[O-]C(=O)c1ccccc1"]
    prepared = prepare(Choices(path, water="none", potential=model, ligands=given))
    assert prepared.record["ml_region"]["selection"] == f"resname {name}"
    assert len(prepared.atoms) == 14


@pytest.mark.parametrize(
    ("files", "sites"),
    [(["amber14-all.xml", "amber14/tip4pew.xml"], 4), (["amber14-all.xml", "amber14/opc.xml"], 4),
     (["amber14-all.xml", "amber14/spce.xml"], 3)],
)  # fmt: skip
def test_water_of_the_users_force_field(model, tmp_path, files, sites):
    prepared = prepare(small("CCO", force_fields=files, potential=model))
    waters = [r for r in prepared.topology.residues() if r.name == "HOH"]
    assert {len(residue) for residue in waters} == {sites}
    assert prepared.record["force_fields"] == files
    assert prepared.record["water_model"] in ("of the force field", "tip4pew")
    with pytest.raises(InputError, match="brings its own water: leave out the water model 'opc3'"):
        prepare(small("CCO", force_fields=files, water="opc3", potential=model))


def test_water_that_is_asked_for_and_brought(model):
    files = ["charmm36.xml", "charmm36/water.xml"]
    prepared = prepare(small("CCO", force_fields=files, water="tip3p", potential=model))
    assert prepared.record["force_fields"] == files
    files = ["amber99sb.xml", "tip5p.xml"]
    with pytest.raises(InputError, match=r"has water of 5 sites: take one of 3 or 4"):
        prepare(small("CCO", force_fields=files, potential=model))


def pieces(path, texts):
    """Write molecules with all hydrogens beside each other."""
    modeller = app.Modeller(app.Topology(), [] * unit.nanometer)
    for k, (name, text) in enumerate(texts.items()):
        part = to_structure(from_smiles(text), name)
        shifted = part.positions + np.array([1.2 * k, 0, 0])
        modeller.add(part.topology, shifted * unit.nanometer)
    return write_pdb(path, modeller.topology, modeller.positions)


SUCCINATE, FUMARATE = "[O-]C(=O)CCC(=O)[O-]", "[O-]C(=O)/C=C/C(=O)[O-]"


@pytest.mark.parametrize("ligands", [[SUCCINATE, FUMARATE], [FUMARATE, SUCCINATE]])
def test_each_residue_is_the_ligand_that_suits_it(model, tmp_path, ligands):
    """With and without hydrogens, whatever the order in which the ligands are given."""
    for hydrogens in (True, False):
        path = Path(pieces(tmp_path / "both.pdb", {"SUC": SUCCINATE, "FUM": FUMARATE}))
        if not hydrogens:
            lines = path.read_text().splitlines(keepends=True)
            path.write_text("".join(x for x in lines if x[76:78].strip() != "H" and x[:3] != "CON"))
        prepared = prepare(
            Choices(
                str(path), water="none", ligands=ligands, region="resname SUC FUM", potential=model
            )
        )
        found = {entry["residue"]: entry["smiles"] for entry in prepared.record["small_molecules"]}
        assert Chem.CanonSmiles(found["SUC"]) == Chem.CanonSmiles(SUCCINATE)
        assert Chem.CanonSmiles(found["FUM"]) == Chem.CanonSmiles(FUMARATE)
    path = pieces(tmp_path / "both.pdb", {"SUC": SUCCINATE, "FUM": FUMARATE})
    with pytest.raises(InputError, match="residue SUC"):
        prepare(Choices(path, water="none", ligands=[FUMARATE], potential=model))


def test_a_ligand_that_holds_a_metal_ion(model, tmp_path):
    path = Path(pieces(tmp_path / "x.pdb", {"ACT": "CC(=O)[O-]"}))
    atoms = [x for x in path.read_text().splitlines() if x.startswith("HETATM")]
    oxygen = next(x for x in atoms if x[12:16].strip() == "O1")
    ion = f"HETATM   99 MG   MG  B   2    {float(oxygen[30:38]) - 2.0:8.3f}{oxygen[38:54]}"
    bond = f"CONECT{oxygen[6:11]}   99"
    path.write_text("\n".join([*atoms, f"{ion}{'':22s}MG", bond, "END", ""]))
    said: list[str] = []
    choices = Choices(str(path), water="none", ligands=["CC(=O)[O-]"], potential=model)
    prepared = prepare(choices, said.append)
    assert "without 1 bonds to metal ions, which force fields hold by their charges" in said
    assert prepared.record["ml_region"]["charge"] == -1
    assert prepared.record["total_charge"] == 1


def test_an_amino_acid_by_itself(model, tmp_path):
    path = pieces(tmp_path / "x.pdb", {"GLY": "[NH3+]CC(=O)[O-]"})
    prepared = prepare(Choices(path, water="none", potential=model))
    assert prepared.record["small_molecules"][0]["formal_charge"] == 0


def test_a_force_field_with_which_no_water_goes(model):
    with pytest.raises(
        InputError, match=r"yours bring no water, and amber14/tip3p\.xml does not go"
    ):
        prepare(small("CCO", force_fields=["charmm36.xml"], potential=model))
