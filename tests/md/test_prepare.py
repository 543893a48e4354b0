"""`prepare` from molecules: Systems in water, proven by energies, and the folder."""

import copy
import json
import math

import numpy as np
import openmm
import pytest
from openmm import app
from openmmml import MLPotential

from openmm_nequip.config import load_config
from openmm_nequip.data.neighbors import pair_distances
from openmm_nequip.errors import InputError
from openmm_nequip.md.bonded import atoms_without_bonded_terms
from openmm_nequip.md.choices import Choices
from openmm_nequip.md.config import SimulationConfig
from openmm_nequip.md.inputs import find_files, load_input
from openmm_nequip.md.ligand import partial_charges
from openmm_nequip.md.molecule import from_smiles
from openmm_nequip.md.preparation import build_simulation
from openmm_nequip.md.prepare import prepare
from openmm_nequip.md.solvation import WATER_MODELS
from openmm_nequip.units import NM

from .preparing import charges_of, check_folder, energy_of, nonbonded, organic_model, small
from .systems import context_of, small_potential

COULOMB = 138.93545764438198  # kJ/mol nm/e², as in OpenMM


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return organic_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def ethanol(model):
    return prepare(small("CCO", potential=model))


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
    context = context_of(system, ethanol.positions / NM, "CPU")
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
    context = context_of(mixed, ethanol.positions / NM, "CPU")
    state = context.getState(energy=True, forces=True)
    assert math.isfinite(state.getPotentialEnergy()._value)
    assert np.isfinite(state.getForces(asNumpy=True)._value).all()
    context.getIntegrator().step(2)
    assert math.isfinite(context.getState(energy=True).getPotentialEnergy()._value)


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


def test_simulate_takes_the_folder(ethanol, tmp_path):
    """As it is; but not with a part of a molecule that has no bonded terms, or half of it."""
    ethanol.write(tmp_path / "ethanol")

    def simulation(*overrides):
        path = tmp_path / "ethanol" / "simulate.yaml"
        config = find_files(load_config(SimulationConfig, path, overrides), path.parent)
        return build_simulation(config, load_input(config))

    run = simulation("platform=CPU")
    run.step(1)
    assert math.isfinite(run.context.getState(energy=True).getPotentialEnergy()._value)
    with pytest.raises(
        InputError, match=r"no bonded terms for 8 atoms .* atom 1 \(C2 of residue LIG"
    ):
        simulation("ml_region=resname LIG and name C1")
    with pytest.raises(InputError, match="interpolation needs a force field with all bonds"):
        simulation("lambda_interpolate=0.5")


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


@pytest.mark.parametrize(("smiles", "width"), [("CO", None), ("CCO", 2.12), ("CCO", 2.34)])
def test_no_water_lies_on_another(smiles, width, model):
    """OpenMM puts hydrogen atoms of these boxes 0.2 to 0.3 Å apart, across their faces."""
    prepared = prepare(Choices(smiles, width=width, potential=model))
    residue = np.array([atom.residue.index for atom in prepared.topology.atoms()])
    box = 10 * np.array(prepared.record["box_nm"])
    i, j, distance = pair_distances(10 * prepared.positions, box, (True,) * 3, 2.0)
    assert distance[residue[i] != residue[j]].min() > 0.8


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
        (Choices("CCO", small_molecules="opnff"), r"'opnff' \(did you mean 'openff'"),
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
