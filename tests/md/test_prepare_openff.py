"""`prepare` with openmmforcefields and the OpenFF toolkit, by a stand-in."""

import sys
import types

import numpy as np
import pytest

from openmm_nequip.md.ligand import partial_charges
from openmm_nequip.md.molecule import from_smiles
from openmm_nequip.md.prepare import prepare

from .preparing import charges_of, organic_model, small


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return organic_model(tmp_path_factory.mktemp("model"))


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
