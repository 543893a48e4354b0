"""Lennard-Jones parameters and charges of small molecules."""

import math
import os
import xml.etree.ElementTree as ET

import numpy as np
import openmm
import pytest
from openmm import app, unit

from openmm_nequip.errors import InputError
from openmm_nequip.md.ligand import (
    GAFF,
    Ligand,
    NonbondedTemplates,
    equivalent_atoms,
    lennard_jones,
    own_charges,
    partial_charges,
)
from openmm_nequip.md.molecule import from_smiles, onto, to_structure

KCAL = 4.184
SIGMA = 2 * 0.1 / 2 ** (1 / 6)  # nm, of half the distance of the minimum in Å

# type in GAFF: the type of Amber's protein or DNA force field from which it has its parameters
AMBER = {
    "c": "protein-C", "c3": "protein-CT", "h1": "protein-H1", "h2": "DNA-H2", "h4": "protein-H4",
    "h5": "protein-H5", "ha": "protein-HA", "hc": "protein-HC", "hx": "protein-HP",
    "hn": "protein-H", "hs": "protein-HS", "n": "protein-N", "o": "protein-O", "oh": "protein-OH",
    "os": "DNA-OS", "p": "DNA-P", "s": "protein-S",
}  # fmt: skip


def amber_parameters() -> dict[str, tuple[float, float]]:
    """Sigma (nm) and epsilon (kJ/mol) of the types in OpenMM's copy of Amber's force field."""
    found = {}
    for name in ("protein.ff14SB", "DNA.OL15"):
        path = os.path.join(os.path.dirname(app.__file__), "data", "amber14", f"{name}.xml")
        for atom in ET.parse(path).getroot().find("NonbondedForce").findall("Atom"):
            found[atom.get("type")] = float(atom.get("sigma")), float(atom.get("epsilon"))
    return found


def test_parameters_are_amber_s():
    amber = amber_parameters()
    for kind, name in AMBER.items():
        half, depth = GAFF[kind]
        assert (half * SIGMA, depth * KCAL) == pytest.approx(amber[name], rel=1e-6), kind


def test_converted_numbers():
    """Ethanol: sigma and epsilon as printed in many a GROMACS topology of GAFF."""
    found = {parameter.type: parameter[1:] for parameter in lennard_jones(from_smiles("CCO"))}
    assert found["c3"] == pytest.approx((0.339966951, 0.45773), rel=2e-6)
    assert found["oh"] == pytest.approx((0.306647339, 0.880314), rel=2e-6)
    assert found["hc"] == pytest.approx((0.264953279, 0.0656888), rel=2e-6)
    assert found["h1"] == pytest.approx((0.247135304, 0.0656888), rel=2e-6)
    assert found["ho"][1] == 0.0


@pytest.mark.parametrize(
    ("kind", "sigma", "epsilon"),
    [
        ("f", 0.311815, 0.255224), ("cl", 0.347094, 1.10876), ("br", 0.359923, 1.75728),
        ("i", 0.383086, 2.092), ("c1", 0.339967, 0.87864), ("cx", 0.339967, 0.359824),
        ("cy", 0.339967, 0.359824), ("h3", 0.211499, 0.0656888), ("hp", 0.106908, 0.0656888),
    ],
)  # fmt: skip
def test_what_amber_s_biopolymers_lack(kind, sigma, epsilon):
    half, depth = GAFF[kind]
    assert (half * SIGMA, depth * KCAL) == pytest.approx((sigma, epsilon), rel=3e-6)


@pytest.mark.parametrize(
    ("smiles", "expected"),
    [
        ("CCO", "c3 c3 oh hc hc hc h1 h1 ho"),
        ("CC(N)=O", "c3 c n o hc hc hc hn hn"),
        ("CC#N", "c3 c1 n hc hc hc"),
        ("C=C=C", "c c1 c ha ha ha ha"),
        ("COC=O", "c3 os c o h1 h1 h1 h5"),  # the hydrogen of an ester sees two oxygen atoms
        ("CC=O", "c3 c o hc hc hc h4"),
        ("FC(F)Cl", "f c3 f cl h3"),
        ("ClCBr", "cl c3 br h2 h2"),
        ("C[NH3+]", "c3 n hx hx hx hn hn hn"),
        ("CN", "c3 n h1 h1 h1 hn hn"),
        ("CS", "c3 s h1 h1 h1 hs"),
        ("CP", "c3 p hc hc hc hp hp"),
        ("CI", "c3 i h1 h1 h1"),
        ("C1CC1", "cx cx cx hc hc hc hc hc hc"),
        ("C1CCC1", "cy cy cy cy hc hc hc hc hc hc hc hc"),
        ("c1ccsc1", "c c c s c ha ha h4 h4"),
        ("c1cnc[nH]1", "c c n c n h4 h4 h5 hn"),
        ("CC(=O)[O-]", "c3 c o o hc hc hc"),
        ("C[N+](=O)[O-]", "c3 n o o h1 h1 h1"),
        ("C#C", "c1 c1 ha ha"),
    ],
)
def test_types(smiles, expected):
    assert [parameter.type for parameter in lennard_jones(from_smiles(smiles))] == expected.split()


def test_unknown_element():
    with pytest.raises(InputError, match=r"no general Lennard-Jones parameters for B, Si"):
        lennard_jones(from_smiles("C[Si](C)(C)OB(O)O"))


METHODS = ["mmff94", "gasteiger", "xtb"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("smiles", "charge"), [("CCO", 0), ("CC(=O)[O-]", -1), ("C[NH3+]", 1), ("[NH3+]CC(=O)[O-]", 0)]
)
def test_charges_sum_to_the_formal_charge(smiles, charge, method):
    if method == "xtb":
        pytest.importorskip("tblite")
    mol = from_smiles(smiles)
    charges = partial_charges(mol, method)
    assert math.fsum(charges) == pytest.approx(charge, abs=1e-15)
    for rank in set(equivalent_atoms(mol)):
        alike = charges[equivalent_atoms(mol) == rank]
        assert (alike == alike[0]).all()


def test_charges_of_ethanol():
    """MMFF94's bond charge increments: 0.28 (C-O) and 0.40 (H-O), nothing between C and H."""
    np.testing.assert_allclose(
        partial_charges(from_smiles("CCO")), [0, 0.28, -0.68, 0, 0, 0, 0, 0, 0.4], atol=1e-12
    )


def test_xtb_knows_charge_and_geometry():
    pytest.importorskip("tblite")
    neutral, anion = (
        partial_charges(from_smiles(text), "xtb") for text in ("CC(=O)O", "CC(=O)[O-]")
    )
    assert anion[2] < neutral[2] - 0.05  # the carbonyl oxygen
    assert -0.8 < anion[2] < -0.5


def test_equivalent_atoms():
    """Kekulé forms and the place of a charge do not matter, connectivity does."""
    ranks = equivalent_atoms(from_smiles("Cc1ccccc1"))
    assert ranks[2] == ranks[6] != ranks[3] == ranks[5] != ranks[4]
    ranks = equivalent_atoms(from_smiles("CC(=O)[O-]"))
    assert ranks[2] == ranks[3]
    ranks = equivalent_atoms(from_smiles("CC(=O)O"))
    assert ranks[2] != ranks[3]


def test_own_charges():
    mol = from_smiles("[OH-]")
    ligand = Ligand.create(mol, "LIG", "mine.txt", [-1.332, 0.333])  # rounded by 0.001
    np.testing.assert_allclose(ligand.charges, [-1.3325, 0.3325], atol=1e-15)
    assert ligand.method == "mine.txt"
    with pytest.raises(InputError, match=r"sum to -0\.9 e, .* formal charge of -1 e"):
        Ligand.create(mol, "LIG", "mine.txt", [-1.2, 0.3])
    with pytest.raises(InputError, match="3 charges for the 2 atoms"):
        Ligand.create(mol, "LIG", "mine.txt", [-1.2, 0.1, 0.1])
    with pytest.raises(InputError, match=r"'mmf94' \(did you mean 'mmff94'"):
        partial_charges(mol, "mmf94")


def test_own_charges_follow_the_atoms():
    """They are in the order of the molecule as it was given, whatever that of the coordinates."""
    template = from_smiles("CO")
    numbers = np.array([atom.GetAtomicNum() for atom in template.GetAtoms()])
    positions = template.GetConformer().GetPositions()
    mol = onto(template, numbers[::-1], positions[::-1], list("abcdef"))
    given = [0.1, -0.6, 0.03, 0.03, 0.03, 0.41]  # C, O, three on C, one on O
    np.testing.assert_allclose(own_charges(mol, given), given[::-1], atol=1e-15)


def test_no_charges_for_the_molecule():
    with pytest.raises(InputError, match=r"'mmff94' has no charges for .* use 'gasteiger' or"):
        partial_charges(from_smiles("CB(O)O"))


def test_generator_in_a_script_of_ones_own():
    """Two molecules, one of them twice and with its atoms in another order."""
    ethanol, acetate = (
        Ligand.create(from_smiles(text), name)
        for text, name in (("CCO", "ETH"), ("CC(=O)[O-]", "ACT"))
    )
    modeller = app.Modeller(app.Topology(), [] * unit.nanometer)
    for ligand, order in ((ethanol, 1), (acetate, 1), (ethanol, -1)):
        structure = to_structure(ligand.mol, ligand.name)
        topology, positions = reordered(structure.topology, structure.positions, order)
        modeller.add(topology, positions * unit.nanometer)
    forcefield = app.ForceField("amber14/tip3p.xml")
    generator = NonbondedTemplates([ethanol, acetate])
    forcefield.registerTemplateGenerator(generator)
    system = forcefield.createSystem(modeller.topology)
    assert generator.used == [ethanol, acetate]
    (nonbonded,) = (f for f in system.getForces() if isinstance(f, openmm.NonbondedForce))
    for residue, ligand in zip(
        modeller.topology.residues(), (ethanol, acetate, ethanol), strict=True
    ):
        index = {atom.GetProp("name"): atom.GetIdx() for atom in ligand.mol.GetAtoms()}
        for atom in residue.atoms():
            charge, sigma, epsilon = nonbonded.getParticleParameters(atom.index)
            k = index[atom.name]
            assert charge._value == ligand.charges[k]
            assert (sigma._value, epsilon._value) == ligand.parameters[k][1:]
    bonded = (openmm.HarmonicBondForce, openmm.HarmonicAngleForce, openmm.PeriodicTorsionForce)
    terms = [f for f in system.getForces() if isinstance(f, bonded)]
    assert all(
        getattr(f, f"getNum{kind}")() == 0
        for f in terms
        for kind in ("Bonds", "Angles", "Torsions")
        if hasattr(f, f"getNum{kind}")
    )
    assert system.getNumConstraints() == 0


def test_one_four_pairs_are_amber_s():
    """C-C-O-H of ethanol: a sixth less of the charges' energy, half the Lennard-Jones energy."""
    ligand = Ligand.create(from_smiles("CCO"), "LIG", "gasteiger")
    forcefield = app.ForceField("amber14/tip3p.xml")
    forcefield.registerTemplateGenerator(NonbondedTemplates([ligand]))
    system = forcefield.createSystem(to_structure(ligand.mol, "LIG").topology)
    (nonbonded,) = (f for f in system.getForces() if isinstance(f, openmm.NonbondedForce))
    pairs = {}
    for k in range(nonbonded.getNumExceptions()):
        i, j, charge, sigma, epsilon = nonbonded.getExceptionParameters(k)
        pairs[min(i, j), max(i, j)] = charge._value, sigma._value, epsilon._value
    (_, s3, e3), (_, s6, e6) = ligand.parameters[2], ligand.parameters[3]  # O1 and H1
    product = ligand.charges[2] * ligand.charges[3] / 1.2
    assert pairs[2, 3] == pytest.approx((product, (s3 + s6) / 2, math.sqrt(e3 * e6) / 2), rel=1e-12)
    assert pairs[0, 2] == pytest.approx((0.0, pairs[0, 2][1], 0.0), abs=0)


def reordered(topology, positions, order):
    if order == 1:
        return topology, positions
    new = app.Topology()
    atoms = list(topology.atoms())[::-1]
    residue = new.addResidue(atoms[0].residue.name, new.addChain())
    made = {atom: new.addAtom(atom.name, atom.element, residue) for atom in atoms}
    for first, second in topology.bonds():
        new.addBond(made[first], made[second])
    return new, positions[::-1]
