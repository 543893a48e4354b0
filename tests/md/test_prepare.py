"""`prepare`: Systems for ML/MM from molecules, structures, and AMBER's and GROMACS's files."""

import copy
import json
import math
import sys
import types
from collections import Counter
from pathlib import Path

import numpy as np
import openmm
import pytest
import yaml
from openmm import app, unit
from openmmml import MLPotential
from rdkit import Chem

from openmm_nequip.config import parse_config
from openmm_nequip.errors import InputError
from openmm_nequip.md.bonded import atoms_without_bonded_terms
from openmm_nequip.md.choices import Choices
from openmm_nequip.md.config import SimulationConfig
from openmm_nequip.md.ligand import partial_charges
from openmm_nequip.md.molecule import from_smiles
from openmm_nequip.md.prepare import prepare
from openmm_nequip.md.solvation import WATER_MODELS
from openmm_nequip.md.structure import load_structure

from .systems import small_potential

COULOMB = 138.93545764438198  # kJ/mol nm/e², as in OpenMM
VILLIN = Path(app.__file__).parent / "data" / "test.pdb"  # in water, comes with OpenMM
ORGANIC = ["H", "C", "N", "O", "S"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A potential that knows the elements of proteins."""
    path = tmp_path_factory.mktemp("model") / "organic.safetensors"
    small_potential(type_names=ORGANIC, per_type_energy_shifts=0.0).save(path)
    return str(path)


def small(source, **choices):
    """Choices with a small box, for speed."""
    return Choices(source, **{"width": 1.7, "cutoff": 0.7, **choices})


@pytest.fixture(scope="module")
def ethanol(model):
    return prepare(small("CCO", potential=model))


def nonbonded(system):
    (force,) = (force for force in system.getForces() if isinstance(force, openmm.NonbondedForce))
    return force


def charges_of(system):
    force = nonbonded(system)
    return [force.getParticleParameters(k)[0]._value for k in range(system.getNumParticles())]


def context_of(system, positions, platform="Reference"):
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.0005), openmm.Platform.getPlatformByName(platform)
    )
    context.setPositions(positions)
    return context


def energy_of(system, positions):
    return context_of(system, positions).getState(energy=True).getPotentialEnergy()._value


def test_what_is_decided(ethanol):
    record = ethanol.record
    assert ethanol.atoms == list(range(9))
    assert record["ml_region"] == {
        "selection": "resname LIG", "atoms": ethanol.atoms, "charge": 0,
    }  # fmt: skip
    assert record["bonded_terms"] is False
    assert record["atoms_without_bonded_terms"] == ethanol.atoms
    assert record["force_fields"] == ["amber14/tip3p.xml"]
    (ligand,) = record["small_molecules"]
    assert ligand["smiles"] == "CCO"
    assert "GAFF" in ligand["parameters"]
    assert "no bonded terms" in ligand["parameters"]
    assert ligand["charges"].startswith("MMFF94")
    assert [atom["type"] for atom in ligand["atoms"]] == [
        "c3", "c3", "oh", "hc", "hc", "hc", "h1", "h1", "ho",
    ]  # fmt: skip
    np.testing.assert_allclose(record["box_nm"], np.eye(3) * 1.7)
    assert record["num_atoms"] == 9 + 3 * record["waters"]
    json.dumps(record)


def test_forces(ethanol):
    """PME with the cutoff asked for, water rigid, nothing but Lennard-Jones and charges in LIG."""
    force = nonbonded(ethanol.system)
    assert force.getNonbondedMethod() == openmm.NonbondedForce.PME
    assert force.getCutoffDistance()._value == 0.7
    assert ethanol.system.getNumConstraints() == 3 * ethanol.record["waters"]
    region = set(ethanol.atoms)
    for force in ethanol.system.getForces():
        if isinstance(force, openmm.HarmonicBondForce):
            bonds = [force.getBondParameters(k)[:2] for k in range(force.getNumBonds())]
            assert not any(region & set(bond) for bond in bonds)
    assert math.fsum(charges_of(ethanol.system)) == pytest.approx(0, abs=1e-12)
    assert math.fsum(charges_of(ethanol.system)[:9]) == 0


def test_interaction_with_water_by_hand(ethanol):
    """Solute-solvent energy without a cutoff against the sum over pairs in numpy."""
    system = copy.deepcopy(ethanol.system)
    force = nonbonded(system)
    force.setNonbondedMethod(openmm.NonbondedForce.NoCutoff)
    force.setUseDispersionCorrection(False)

    def without(atoms):
        part = copy.deepcopy(system)
        own = nonbonded(part)
        for k in atoms:
            own.setParticleParameters(k, 0.0, 0.1, 0.0)
        for k in range(own.getNumExceptions()):
            i, j, *_ = own.getExceptionParameters(k)
            if i in atoms or j in atoms:
                own.setExceptionParameters(k, i, j, 0.0, 0.1, 0.0)
        return energy_of(part, ethanol.positions)

    count = system.getNumParticles()
    solute, solvent = set(range(9)), set(range(9, count))
    found = energy_of(system, ethanol.positions) - without(solute) - without(solvent)

    # GAFF's numbers (Å, kcal/mol) and MMFF94's charges of ethanol; TIP3P of its paper
    half = np.array([1.908, 1.908, 1.721, 1.487, 1.487, 1.487, 1.387, 1.387, 0.0])
    depth = np.array([0.1094, 0.1094, 0.2104, *[0.0157] * 5, 0.0]) * 4.184
    charge = np.array([0.0, 0.28, -0.68, 0, 0, 0, 0, 0, 0.4])
    sigma = half * 0.2 / 2 ** (1 / 6)
    distance = np.linalg.norm(ethanol.positions[:9, None] - ethanol.positions[None, 9:], axis=2)
    oxygen, hydrogen = distance[:, ::3], np.delete(distance, np.s_[::3], axis=1)
    expected = COULOMB * (
        charge @ (-0.834 / oxygen).sum(axis=1) + charge @ (0.417 / hydrogen).sum(1)
    )
    mixed = (sigma[:, None] + 0.315075240657512) / 2
    wells = np.sqrt(depth * 0.635968)[:, None]
    reduced = (mixed / oxygen) ** 6
    expected += (4 * wells * (reduced**2 - reduced)).sum()
    assert abs(expected) > 1.0
    assert found == pytest.approx(expected, abs=1e-5 * abs(expected))


def test_minimises(ethanol):
    """With the molecule held, as a potential would hold it."""
    system = copy.deepcopy(ethanol.system)
    for atom in ethanol.atoms:
        system.setParticleMass(atom, 0.0)
    context = context_of(system, ethanol.positions, "CPU")
    before = context.getState(energy=True).getPotentialEnergy()._value
    openmm.LocalEnergyMinimizer.minimize(context, tolerance=100, maxIterations=50)
    after = context.getState(energy=True).getPotentialEnergy()._value
    assert math.isfinite(before)
    per_water = after / ethanol.record["waters"]
    assert after < before
    assert -55 < per_water < -35  # kJ/mol; liquid TIP3P has -40


def test_mixed_system_runs(ethanol, model):
    mixed = MLPotential("nequip", modelPath=model).createMixedSystem(
        ethanol.topology, ethanol.system, ethanol.atoms
    )
    context = context_of(mixed, ethanol.positions, "CPU")
    state = context.getState(energy=True, forces=True)
    assert math.isfinite(state.getPotentialEnergy()._value)
    assert np.isfinite(state.getForces(asNumpy=True)._value).all()
    context.getIntegrator().step(2)
    assert math.isfinite(context.getState(energy=True).getPotentialEnergy()._value)


def bonds_of(topology):
    return {tuple(sorted((bond[0].index, bond[1].index))) for bond in topology.bonds()}


def description(topology):
    return [
        (atom.element, atom.name, atom.residue.name, atom.residue.id, atom.residue.chain.id)
        for atom in topology.atoms()
    ]


def check_folder(prepared, folder):
    """What was written is what there was; return the configuration."""
    prepared.write(folder)
    assert {path.name for path in folder.iterdir()} == {
        "system.xml", "structure.cif", "simulate.yaml", "prepared.json",
    }  # fmt: skip
    structure = load_structure(str(folder / "structure.cif"))
    assert description(structure.topology) == description(prepared.topology)
    assert bonds_of(structure.topology) == bonds_of(prepared.topology)
    np.testing.assert_allclose(structure.positions, prepared.positions, atol=5.1e-6)
    system = openmm.XmlSerializer.deserialize((folder / "system.xml").read_text())
    if structure.box is not None:
        vectors = [list(row._value) for row in system.getDefaultPeriodicBoxVectors()]
        # the same lattice: each vector of one is a sum of whole vectors of the other
        steps = structure.box @ np.linalg.inv(vectors)
        np.testing.assert_allclose(steps, steps.round(), atol=1e-5)
        assert abs(np.linalg.det(steps)) == pytest.approx(1, abs=1e-4)
    energy = energy_of(prepared.system, prepared.positions)
    assert energy_of(system, prepared.positions) == pytest.approx(energy, rel=1e-12)
    assert json.loads((folder / "prepared.json").read_text()) == prepared.record
    values = yaml.safe_load((folder / "simulate.yaml").read_text())
    return parse_config(SimulationConfig, values, "simulate.yaml")


def test_folder(ethanol, tmp_path, model):
    config = check_folder(ethanol, tmp_path / "new" / "ethanol")
    assert (config.structure, config.force_field) == ("structure.cif", "system.xml")
    assert config.ml_region == "resname LIG"
    assert config.potential == model
    assert config.ensemble == "npt"
    assert config.timestep == 0.5
    with pytest.raises(InputError, match="ethanol' exists already"):
        ethanol.write(tmp_path / "new" / "ethanol")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["ethanol"]


@pytest.mark.parametrize("water", WATER_MODELS)
def test_water_models(water, model):
    prepared = prepare(small("C", width=1.5, water=water, potential=model))
    sites = 4 if water in ("tip4pew", "tip4pfb", "opc") else 3
    assert prepared.record["num_atoms"] == 5 + sites * prepared.record["waters"]
    assert 90 < prepared.record["waters"] < 125  # 112 at 1 g/cm³
    assert math.fsum(charges_of(prepared.system)) == pytest.approx(0, abs=1e-9)
    assert math.isfinite(energy_of(prepared.system, prepared.positions))
    oxygen = {"tip3p": 0.834, "tip3pfb": 0.848448690103, "spce": 0.8476, "opc3": 0.89517,
              "tip4pew": 1.04844, "tip4pfb": 1.05174, "opc": 1.3582}  # fmt: skip
    assert min(charges_of(prepared.system)) == pytest.approx(-oxygen[water], rel=1e-4)


def test_salt_and_charge(model):
    """One sodium for the acetate, and a pair for each 55.4 / 0.5 waters."""
    prepared = prepare(small("CC(=O)[O-]", salt=0.5, width=2.0, potential=model))
    waters, ions = prepared.record["waters"], prepared.record["ions"]
    pairs = round((waters + 2 * ions["CL"]) * 0.5 / 55.4)
    assert ions == {"NA": pairs + 1, "CL": pairs}
    assert prepared.record["total_charge"] == 0
    assert math.fsum(charges_of(prepared.system)) == pytest.approx(0, abs=1e-12)
    assert prepared.record["ml_region"]["charge"] == -1
    again = prepare(small("CC(=O)[O-]", salt=0.5, width=2.0, potential=model))
    np.testing.assert_array_equal(again.positions, prepared.positions)


@pytest.mark.parametrize(("shape", "volume"), [("dodecahedron", 0.5**0.5), ("octahedron", 0.7698)])
def test_shapes(shape, volume, model, tmp_path):
    prepared = prepare(small("C", width=2.0, shape=shape, cutoff=0.6, potential=model))
    assert np.linalg.det(prepared.record["box_nm"]) == pytest.approx(8 * volume, rel=1e-4)
    check_folder(prepared, tmp_path / "folder")


def test_padding(model):
    """The box is as wide as the molecule and the padding on either side."""
    prepared = prepare(Choices("CCO", padding=0.6, cutoff=0.7, potential=model))
    solute = prepared.positions[:9]
    center = (solute.min(axis=0) + solute.max(axis=0)) / 2
    diameter = 2 * np.linalg.norm(solute - center, axis=1).max()
    width = prepared.record["box_nm"][0][0]
    assert width == pytest.approx(diameter + 1.2, abs=1e-5)
    np.testing.assert_allclose(center, width / 2, atol=1e-6)


def test_vacuum(model, tmp_path):
    prepared = prepare(Choices("CCO", water="none", potential=model))
    assert prepared.topology.getPeriodicBoxVectors() is None
    assert nonbonded(prepared.system).getNonbondedMethod() == openmm.NonbondedForce.NoCutoff
    assert prepared.record["waters"] == 0
    assert check_folder(prepared, tmp_path / "ethanol").ensemble == "nvt"


def test_charges_of_choice(model, tmp_path):
    mol = from_smiles("CCO")
    prepared = prepare(small("CCO", charges="Gasteiger", potential=model))
    np.testing.assert_array_equal(
        charges_of(prepared.system)[:9], partial_charges(mol, "gasteiger")
    )
    (tmp_path / "mine.txt").write_text(
        "# ethanol\n-0.2, 0.1, -0.6  # heavy\n" + "0.05\n" * 5 + "0.45"
    )
    prepared = prepare(small("CCO", charges=str(tmp_path / "mine.txt"), potential=model))
    expected = [-0.2, 0.1, -0.6, *[0.05] * 5, 0.45]
    np.testing.assert_allclose(charges_of(prepared.system)[:9], expected, atol=1e-12)
    assert "mine.txt" in prepared.record["small_molecules"][0]["charges"]


def test_a_molecule_that_the_force_field_knows(model):
    """A water from SMILES has TIP3P's parameters and bonds, and is told from the others."""
    said = []
    prepared = prepare(small("water", potential=model), said.append)
    assert prepared.record["bonded_terms"] is True
    assert prepared.atoms == [0, 1, 2]
    assert charges_of(prepared.system)[:3] == [-0.834, 0.417, 0.417]
    assert "the force field's own" in said[0]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (Choices("CC("), r"'CC\(' is neither a file nor a SMILES nor a bundled example"),
        (Choices("no-such.pdb"), "file 'no-such.pdb' does not exist"),
        (Choices("CCO", water="tip9"), r"unknown water model 'tip9' \(did you mean 'tip3p'"),
        (Choices("CCO", shape="ball"), "unknown shape of a box 'ball'"),
        (Choices("CCO", potential="ethanol-pbf"), r"'ethanol-pbf' \(did you mean 'ethanol-pbe'"),
        (Choices("CCO", charges="resp"), "charges 'resp' are neither a method"),
        (Choices("CCO", force_fields=["no.xml"]), r"cannot load the force field no\.xml"),
        (
            Choices("CCO", small_molecules="openff"),
            "conda install -c conda-forge openmmforcefields",
        ),
        (Choices("CCCCCCCCCO", width=0.7), r"does not fit into a box of 0\.7 nm"),
        (Choices("CCO", width=1.5), "the box is 1.50 nm wide, less than twice the force field's"),
        (Choices("CCO", width=3, padding=1), "not both"),
        (Choices("CCO", water="none", salt=0.1), "salt needs water"),
        (Choices("CCO", ligands=["CO"]), "to add it, give an SDF file"),
        (Choices("CCO.O"), "2 molecules"),
    ],
)
def test_wrong_choices(choices, message):
    with pytest.raises(InputError, match=message):
        prepare(choices)


def test_outside_the_potential(model, tmp_path):
    with pytest.raises(InputError, match="not trained on Cl; it knows H, C, N, O, S"):
        prepare(small("CCl", potential=model))
    with pytest.raises(InputError, match="names no atom; the structure has the residues LIG, HOH"):
        prepare(small("CCO", potential=model, region="resname ETH"))
    with pytest.raises(InputError, match=r"must describe all of it.*leaves out 8 of its atoms"):
        prepare(small("CCO", potential=model, region="name C1"))
    wide = tmp_path / "wide.safetensors"
    small_potential(r_max=9.0).save(wide)
    with pytest.raises(InputError, match=r"twice the potential's cutoff of 0\.9 nm"):
        prepare(small("CCO", potential=str(wide)))
    neutral = tmp_path / "neutral.safetensors"
    potential = small_potential()
    potential.metadata["domain"] = {"charge": 0, "multiplicity": 1}
    potential.save(neutral)
    with pytest.raises(InputError, match=r"meant for systems of charge 0, .* have -1"):
        prepare(small("CC(=O)[O-]", potential=str(neutral)))


def test_opc_is_no_region(model):
    with pytest.raises(InputError, match="extra site M of HOH, which is no atom"):
        prepare(small("CCO", water="opc", potential=model, region="all"))


def test_bonds_that_nothing_holds():
    topology = app.Topology()
    residue = topology.addResidue("XXX", topology.addChain())
    atoms = [topology.addAtom(f"C{k}", app.element.carbon, residue) for k in range(8)]
    for first, second in [(0, 1), (2, 3), (4, 5), (6, 7)]:
        topology.addBond(atoms[first], atoms[second])
    system = openmm.System()
    for _ in atoms:
        system.addParticle(12)
    harmonic, custom = openmm.HarmonicBondForce(), openmm.CustomBondForce("r")
    harmonic.addBond(1, 0, 0.1, 1.0)
    custom.addBond(2, 3)
    system.addForce(harmonic)
    system.addForce(custom)
    system.addConstraint(5, 4, 0.1)
    assert atoms_without_bonded_terms(topology, system) == [6, 7]


# --- structures from files -----------------------------------------------------------------------


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


def test_solvated_already(ethanol, model, tmp_path):
    """What was prepared can be prepared again: a box that is full stays as it is."""
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
    with pytest.raises(InputError, match=r"no bonds .* residue ACT 1 at charge \+0"):
        prepare(small(path, potential=model))
    prepared = prepare(small(path, charge=-1, potential=model))
    names = [atom.name for atom in prepared.topology.atoms()][:7]
    assert names == ["C20", "C21", "O22", "O23", "H24", "H25", "H26"]
    assert prepared.record["small_molecules"][0]["smiles"] == "CC(=O)[O-]"
    assert prepared.record["force_fields"] == ["amber14/tip3p.xml"]


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
    folder = reference_data / "mlmm_inputs"
    files = [str(folder / "toluene-explicit.prm7"), str(folder / "toluene-explicit.rst7")]
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
    folder = reference_data / "mlmm_inputs"
    toluene = prepare(small(str(folder / "toluene.pdb"), width=2.0, potential=model))
    assert toluene.record["small_molecules"][0]["smiles"] == "Cc1ccccc1"
    assert toluene.record["ml_region"]["selection"] == "resname MBN"
    check_folder(toluene, tmp_path / "toluene")
    peptide = prepare(Choices(str(folder / "alanine-dipeptide-explicit.pdb"), potential=model))
    assert peptide.record["waters"] == 749
    assert peptide.record["ml_region"]["selection"] == "resname ACE ALA NME"
    assert len(peptide.atoms) == 22
    assert peptide.record["ml_region"]["charge"] == 0
    check_folder(peptide, tmp_path / "peptide")


# --- the OpenFF toolkit --------------------------------------------------------------------------


@pytest.fixture
def openff(monkeypatch):
    """A stand-in: it knows ethanol's bonds only, and remembers what it is asked."""
    asked = types.SimpleNamespace(charges=None)

    class Molecule:
        partial_charges = None

        @classmethod
        def from_rdkit(cls, mol, allow_undefined_stereo, hydrogens_are_explicit):
            assert hydrogens_are_explicit
            molecule = cls()
            molecule.mol = mol
            return molecule

    class Generator:
        forcefield = "openff-stand-in"

        def __init__(self, molecules):
            (self.molecule,) = molecules

        def generator(self, forcefield, residue):
            from io import StringIO

            from openmm_nequip.md.ligand import Ligand

            asked.charges = self.molecule.partial_charges
            if asked.charges is None:
                ligand = Ligand.create(self.molecule.mol, "FF")
            else:
                ligand = Ligand.create(self.molecule.mol, "FF", "given", asked.charges)
            kinds = [f"small-molecule-FF-{a.GetProp('name')}" for a in ligand.mol.GetAtoms()]
            bonds = "".join(
                f'<Bond type1="{kinds[b.GetBeginAtomIdx()]}" type2="{kinds[b.GetEndAtomIdx()]}" '
                'length="0.12" k="200000"/>'
                for b in ligand.mol.GetBonds()
            )
            xml = ligand.to_xml().replace(
                "</ForceField>", f"<HarmonicBondForce>{bonds}</HarmonicBondForce></ForceField>"
            )
            forcefield.loadFile(StringIO(xml))
            return True

    modules = {
        "openff": types.ModuleType("openff"),
        "openff.toolkit": types.ModuleType("openff.toolkit"),
        "openff.units": types.ModuleType("openff.units"),
        "openmmforcefields": types.ModuleType("openmmforcefields"),
        "openmmforcefields.generators": types.ModuleType("openmmforcefields.generators"),
    }
    modules["openff"].toolkit = modules["openff.toolkit"]
    modules["openff.toolkit"].Molecule = Molecule
    modules["openff.units"].unit = types.SimpleNamespace(
        Quantity=lambda values, unit: values, elementary_charge="e"
    )
    modules["openmmforcefields"].generators = modules["openmmforcefields.generators"]
    modules["openmmforcefields.generators"].SMIRNOFFTemplateGenerator = Generator
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return asked


def test_openff_is_used_where_it_is(openff, model):
    prepared = prepare(small("CCO", potential=model))
    assert prepared.record["bonded_terms"] is True
    assert prepared.record["atoms_without_bonded_terms"] == []
    (entry,) = prepared.record["small_molecules"]
    assert (entry["parameters"], entry["charges"]) == ("openff-stand-in", "of openff-stand-in")
    assert openff.charges is None
    prepared = prepare(small("CCO", potential=model, charges="gasteiger"))
    expected = partial_charges(from_smiles("CCO"), "gasteiger")
    np.testing.assert_array_equal(openff.charges, expected)
    np.testing.assert_array_equal(charges_of(prepared.system)[:9], expected)
    prepared = prepare(small("CCO", potential=model, small_molecules="nonbonded"))
    assert prepared.record["bonded_terms"] is False
