"""Structures: nothing may be lost or moved on the way from a file to OpenMM."""

import ase
import ase.build
import ase.io
import mdtraj
import numpy as np
import pytest
from openmm import app, unit

from openmm_nequip.errors import InputError
from openmm_nequip.md.folder import write_structure
from openmm_nequip.md.structure import EXAMPLES, from_ase, load_structure


def waters(count: int, scattered: bool = False) -> ase.Atoms:
    """A row of water molecules; scattered: first all the oxygens, as VASP has them."""
    box = ase.Atoms()
    for k in range(count):
        molecule = ase.build.molecule("H2O")
        molecule.translate([4.0 * k, 0, 0])
        box += molecule
    return box[np.argsort(-box.numbers, kind="stable")] if scattered else box


@pytest.mark.parametrize("name", EXAMPLES)
def test_bundled_examples(name):
    structure = load_structure(name)
    atoms = ase.build.molecule(EXAMPLES[name])
    assert [a.element.symbol for a in structure.topology.atoms()] == atoms.get_chemical_symbols()
    np.testing.assert_allclose(structure.positions, atoms.positions / 10, atol=1e-12)
    assert structure.box is None
    assert structure.topology.getNumResidues() == 1


def test_ethanol_has_its_bonds():
    assert load_structure("ethanol").topology.getNumBonds() == 8


def test_molecules_become_residues():
    topology = from_ase(waters(3)).topology
    assert [residue.name for residue in topology.residues()] == ["HOH"] * 3
    assert topology.getNumBonds() == 6


def test_scattered_molecules_keep_their_order_and_bonds():
    atoms = waters(3, scattered=True)
    topology = from_ase(atoms).topology
    assert [a.element.atomic_number for a in topology.atoms()] == atoms.numbers.tolist()
    assert topology.getNumBonds() == 6


def test_a_pdb_file_whose_atoms_share_names_keeps_them_all(tmp_path):
    atoms = ase.build.molecule("CH3CH2OH", cell=[12, 13, 14], pbc=True)
    ase.io.write(tmp_path / "x.pdb", atoms)  # names each atom by its element
    structure = load_structure(str(tmp_path / "x.pdb"))
    assert [a.element.symbol for a in structure.topology.atoms()] == atoms.get_chemical_symbols()
    np.testing.assert_allclose(structure.positions, atoms.positions / 10, atol=6e-5)
    np.testing.assert_allclose(structure.box, np.diag([1.2, 1.3, 1.4]), atol=1e-9)


@pytest.mark.parametrize("scattered", [False, True])
def test_no_atom_or_bond_is_lost_in_the_pdb_file(tmp_path, scattered):
    structure = from_ase(waters(5, scattered))
    write_structure(tmp_path / "x.pdb", structure.topology, structure.positions)
    read = mdtraj.load(tmp_path / "x.pdb", standard_names=False)
    assert read.n_atoms == 15
    assert read.topology.n_bonds == 10
    np.testing.assert_allclose(read.xyz[0], structure.positions, atol=6e-5)


def test_a_crystal_has_no_residues_too_large_for_a_pdb_file(tmp_path):
    atoms = ase.build.bulk("Si", cubic=True) * (5, 5, 4)  # 800 bonded atoms
    structure = from_ase(atoms)
    write_structure(tmp_path / "x.pdb", structure.topology, structure.positions)
    assert mdtraj.load(tmp_path / "x.pdb").n_atoms == 800


@pytest.mark.parametrize("left_handed", [False, True])
def test_any_cell_becomes_openmms_without_moving_an_atom(left_handed):
    rng = np.random.default_rng(1)
    cell = np.array([[1.0, 8.0, 0.5], [7.5, -2.0, 1.0], [3.0, 4.0, 9.0]])
    if not left_handed:
        cell = cell[[1, 0, 2]]
    atoms = ase.Atoms("H8", rng.uniform(-10, 10, (8, 3)), cell=cell, pbc=True)
    assert (np.linalg.det(cell) < 0) == left_handed

    structure = from_ase(atoms)
    structure.topology.getPeriodicBoxVectors()  # OpenMM checks that they are reduced
    assert np.isclose(np.linalg.det(structure.box) * 1000, abs(np.linalg.det(cell)))
    again = ase.Atoms("H8", structure.positions * 10, cell=structure.box * 10, pbc=True)
    expected = atoms.get_all_distances(mic=True)
    np.testing.assert_allclose(again.get_all_distances(mic=True), expected, atol=1e-9)


def test_pdb_files_are_read_by_openmm(tmp_path):
    structure = load_structure("ethanol")
    write_structure(tmp_path / "x.pdb", structure.topology, structure.positions)
    again = load_structure(str(tmp_path / "x.pdb"))
    np.testing.assert_allclose(again.positions, structure.positions, atol=6e-5)
    assert again.box is None


def test_a_placeholder_box_is_no_box(tmp_path):
    structure = load_structure("ethanol")
    write_structure(tmp_path / "x.pdb", structure.topology, structure.positions)
    line = "CRYST1    1.000    1.000    1.000  90.00  90.00  90.00 P 1           1\n"
    (tmp_path / "x.pdb").write_text(line + (tmp_path / "x.pdb").read_text())
    assert load_structure(str(tmp_path / "x.pdb")).box is None


def test_a_frame_of_a_file_is_chosen_as_in_ase(tmp_path):
    frames = [ase.Atoms("H2", [[0, 0, 0], [0, 0, length]]) for length in (0.7, 0.8, 0.9)]
    ase.io.write(tmp_path / "x.extxyz", frames)
    for name, length in [("x.extxyz", 0.09), ("x.extxyz@1", 0.08)]:
        assert load_structure(str(tmp_path / name)).positions[1, 2] == pytest.approx(length)


def test_a_box_can_be_left_out():
    atoms = ase.build.molecule("H2O", vacuum=4, pbc=True)
    structure = from_ase(atoms)
    box = structure.topology.getPeriodicBoxVectors().value_in_unit(unit.angstrom)
    np.testing.assert_allclose(np.diag(box), atoms.cell.lengths())
    assert structure.periodic(False).topology.getPeriodicBoxVectors() is None
    assert structure.topology.getPeriodicBoxVectors() is not None
    with pytest.raises(InputError, match="has no box"):
        structure.periodic(False).periodic(True)


def test_bad_structures_are_one_clear_line(tmp_path):
    with pytest.raises(InputError, match="did you mean 'ethanol'"):
        load_structure("ethanl")
    with pytest.raises(InputError, match="periodic along 2 of 3"):
        from_ase(ase.Atoms("H", cell=[5, 5, 5], pbc=[True, True, False]))
    (tmp_path / "broken.xyz").write_text("3\n\nH 0 0\n")
    with pytest.raises(InputError, match=r"cannot read structure '.*broken.xyz'"):
        load_structure(str(tmp_path / "broken.xyz"))


def test_mmcif_is_read_by_openmm(tmp_path):
    structure = from_ase(waters(2))
    with (tmp_path / "x.cif").open("w") as file:
        app.PDBxFile.writeFile(structure.topology, structure.positions * unit.nanometer, file)
    assert load_structure(str(tmp_path / "x.cif")).topology.getNumResidues() == 2
