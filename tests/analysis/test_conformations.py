"""Shapes of molecules against constructed geometries."""

import mdtraj
import numpy as np
import pytest
from rdkit import Chem
from scipy.spatial.transform import Rotation

from openmm_nequip.analysis.conformations import (
    backbone,
    clusters,
    radius_of_gyration,
    ramachandran,
    rmsd_matrix,
    rmsf,
    rotatable_bonds,
    secondary_structure,
    superpose,
    torsion_matrix,
    torsions,
)

SHAPE = np.array([[0, 0, 0], [6.0, 0, 0], [0, 5, 0], [0, 0, 4], [3, 3, 0], [0, 3, 3.0], [4, 0, 4]])


def tumbling(frames: np.ndarray, seed: int = 0) -> np.ndarray:
    """Turn and shift each frame at random."""
    rng = np.random.default_rng(seed)
    turned = frames @ Rotation.random(len(frames), rng).as_matrix().transpose(0, 2, 1)
    return turned + rng.normal(0, 5, (len(frames), 1, 3))


def dihedral(angle: np.ndarray) -> np.ndarray:
    """Atoms a-b-c-d with these torsions, degrees: b at the origin, c on the z axis."""
    phi = np.radians(np.atleast_1d(angle))
    frames = np.zeros((len(phi), 4, 3))
    frames[:, 0] = [1.0, 0, -0.4]
    frames[:, 2] = [0, 0, 1.5]
    # Seen from b to c, along +z, clockwise is positive: from +x towards +y.
    frames[:, 3] = np.stack([np.cos(phi), np.sin(phi), np.full(len(phi), 1.9)], axis=1)
    return frames


def test_superposition_undoes_rotation_and_translation():
    moved = superpose(tumbling(np.array([SHAPE] * 5)), SHAPE)
    np.testing.assert_allclose(moved, [SHAPE] * 5, atol=1e-4)


@pytest.mark.parametrize("axis", np.eye(3))
def test_superposition_undoes_half_a_turn(axis):
    turned = SHAPE @ Rotation.from_rotvec(np.pi * axis).as_matrix().T
    np.testing.assert_allclose(superpose(turned[None], SHAPE), [SHAPE], atol=1e-9)


def test_superposition_does_not_reflect():
    reflected = superpose(SHAPE[None] * [1, 1, -1], SHAPE)
    volume = [np.linalg.det(shape[[1, 2, 3]] - shape[0]) for shape in (reflected[0], SHAPE)]
    assert volume[0] == pytest.approx(-volume[1])


def test_rmsf_of_a_harmonic_displacement():
    # Two atoms swing against each other along a line: neither centre nor orientation changes.
    amplitude = 0.2
    swing = amplitude * np.sin(2 * np.pi * np.arange(400) / 400)
    cross = np.array([[-3.0, 0, 0], [3, 0, 0], [0, 0, 0], [0, 9, 0], [0, -9, 0], [0, 0, 9]])
    frames = np.array([cross] * 400)
    frames[:, 0, 0] += swing
    frames[:, 1, 0] -= swing
    found = rmsf(tumbling(frames))
    assert found[:2] == pytest.approx(amplitude / np.sqrt(2), rel=3e-4)  # ⟨A² sin²⟩ = A²/2
    assert found[2:].max() < 1e-3


def test_rmsf_of_a_rigid_body_is_zero():
    assert rmsf(tumbling(np.array([SHAPE] * 30))).max() < 1e-4


def test_radius_of_gyration_of_known_shapes():
    two = np.array([[[0, 0, 0], [8.0, 0, 0]]]) + 100.0
    # Two masses at distance d: d √(m₁m₂)/(m₁+m₂).
    assert radius_of_gyration(two, np.array([1.0, 3.0]))[0] == pytest.approx(8 * np.sqrt(3) / 4)
    assert radius_of_gyration(two, np.array([5.0, 5.0]))[0] == pytest.approx(4.0)
    rng = np.random.default_rng(0)
    ball = rng.normal(size=(1, 20000, 3))
    ball *= (rng.random((1, 20000, 1)) ** (1 / 3)) / np.linalg.norm(ball, axis=2, keepdims=True)
    assert radius_of_gyration(ball, np.ones(20000))[0] == pytest.approx(np.sqrt(3 / 5), rel=5e-3)


def bonds_of(smiles: str) -> tuple[np.ndarray, np.ndarray]:
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    numbers = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()])
    pairs = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in molecule.GetBonds()]
    return numbers, np.array(pairs).reshape(-1, 2)


@pytest.mark.parametrize(
    ("smiles", "middle", "period"),
    [
        ("CCO", [(1, 2)], [360]),  # the hydroxyl group turns, the methyl group looks the same
        ("CCCC", [(1, 2)], [360]),
        ("Cc1ccccc1", [], []),  # toluene
        ("c1ccccc1-c1ccccc1", [(5, 6)], [180]),
        ("CCc1ccccc1", [(1, 2)], [180]),
        ("CCc1ccccc1F", [(1, 2)], [360]),
        ("CCc1cccc(F)c1", [(1, 2)], [360]),
        ("CCc1ccc(F)cc1", [(1, 2)], [180]),
        ("CC[N+](=O)[O-]", [(1, 2)], [180]),
        ("CCC(=O)[O-]", [(1, 2)], [180]),
        ("CCC(=O)O", [(1, 2), (2, 4)], [360, 360]),
        ("CCN", [(1, 2)], [360]),  # pyramidal
        ("CC(=O)N", [(1, 3)], [180]),  # planar
        ("CC(C)(C)O", [], []),  # its methyl groups look the same from the oxygen too
        ("OCC(C)(C)C", [(0, 1)], [360]),
        ("CC(C)CO", [(1, 3), (3, 4)], [360, 360]),
        ("CC#CC", [], []),
        ("FC(F)(F)CO", [(4, 5)], [360]),
        ("FC(F)CO", [(1, 3), (3, 4)], [360, 360]),
        ("O", [], []),
        ("CC(=O)NC", [(1, 3)], [360]),
        ("[NH3+]CCO", [(1, 2), (2, 3)], [360, 360]),
        ("[Na+]", [], []),
    ],
)
def test_rotatable_bonds(smiles, middle, period):
    numbers, bonds = bonds_of(smiles)
    found, periods = rotatable_bonds(numbers, bonds)
    assert [tuple(row[1:3]) for row in found.tolist()] == middle
    assert periods.tolist() == period
    together = {tuple(sorted(bond)) for bond in bonds.tolist()}
    for a, b, c, d in found.tolist():
        assert {tuple(sorted(pair)) for pair in ((a, b), (b, c), (c, d))} <= together


def test_torsions_follow_the_main_chain():
    # N-acetyl-alanine-N'-methylamide: ω, φ, ψ, ω of the backbone, not of O or the side chain.
    numbers, bonds = bonds_of("CC(=O)NC(C)C(=O)NC")
    found = rotatable_bonds(numbers, bonds)[0].tolist()
    assert found == [[0, 1, 3, 4], [1, 3, 4, 6], [3, 4, 6, 8], [4, 6, 8, 9]]


def test_among_branches_of_one_size_the_heavier_atom_begins_a_torsion():
    numbers, bonds = bonds_of("FC(Cl)C(F)Br")
    assert rotatable_bonds(numbers, bonds)[0].tolist() == [[2, 1, 3, 5]]


def test_torsions_of_constructed_geometries():
    angles = np.array([-179.0, -120, -60, -1, 0, 30, 60, 90, 179])
    found = torsions(tumbling(dihedral(angles)), np.array([[0, 1, 2, 3], [3, 2, 1, 0]]))
    np.testing.assert_allclose(found[:, 0], angles, atol=0.02)
    np.testing.assert_allclose(found[:, 1], angles, atol=0.02)


def test_torsion_matrix_goes_the_short_way_round():
    angles = np.array([[170.0, 0], [-170, 5], [10, 90]])
    found = torsion_matrix(angles, [360, 360])
    np.testing.assert_allclose(found, [[0, 20, 160], [20, 0, 180], [160, 180, 0]])
    found = torsion_matrix(angles[:, :1], [180])  # of a ring that looks the same after half a turn
    np.testing.assert_allclose(found, [[0, 20, 20], [20, 0, 0], [20, 0, 0]])


def test_rmsd_matrix_of_stretched_dimers():
    lengths = np.array([1.0, 1.2, 1.8])
    frames = np.zeros((3, 2, 3))
    frames[:, 1, 0] = lengths
    # Each end is off by half the difference.
    expected = np.abs(lengths[:, None] - lengths) / 2
    np.testing.assert_allclose(rmsd_matrix(tumbling(frames)), expected, atol=2e-3)


def test_clusters_of_constructed_conformers():
    rng = np.random.default_rng(1)
    centres = np.repeat([180.0, 60, -60], [50, 30, 20])
    order = rng.permutation(100)
    angles = (centres + rng.normal(0, 8, 100))[order]
    labels, middles = clusters(torsion_matrix(angles[:, None], [360]), 60.0)
    assert np.bincount(labels).tolist() == [50, 30, 20]
    expected = {180.0: 0, 60.0: 1, -60.0: 2}
    assert labels.tolist() == [expected[angle] for angle in centres[order]]
    for middle, centre in zip(angles[middles], [180.0, 60, -60], strict=True):
        assert abs((middle - centre + 180) % 360 - 180) < 4
    by_shape, _ = clusters(rmsd_matrix(tumbling(dihedral(angles))), 0.3)
    assert by_shape.tolist() == labels.tolist()


def test_one_frame_is_one_cluster():
    labels, centres = clusters(np.zeros((1, 1)), 1.0)
    assert (labels.tolist(), centres.tolist()) == ([0], [0])


def peptide(phi: float, psi: float, residues: int) -> mdtraj.Trajectory:
    """Polyalanine, N, CA, C and O only, with these backbone torsions."""
    topology, xyz = mdtraj.Topology(), []
    chain = topology.add_chain()
    back = [np.array([-0.5, 1.2, 0]), np.array([0, 0, 0]), np.array([1.458, 0, 0])]  # C, N, CA

    def place(length: float, angle: float, torsion: float) -> np.ndarray:
        """Return the atom after the last three."""
        a, b, c = back[-3:]
        axis = (c - b) / np.linalg.norm(c - b)
        normal = np.cross(b - a, axis) / np.linalg.norm(np.cross(b - a, axis))
        theta, chi = np.radians([angle, torsion])
        across = np.cos(chi) * np.cross(normal, axis) + np.sin(chi) * normal
        return c + length * (np.sin(theta) * across - np.cos(theta) * axis)

    for k in range(residues):
        if k:
            back.append(place(1.329, 116.6, psi))
            back.append(place(1.458, 121.7, 180.0))
        back.append(place(1.525, 111.0, phi))
        residue = topology.add_residue("ALA", chain)
        atoms = [*back[-3:], place(1.231, 120.1, psi + 180.0)]
        for name, where in zip(("N", "CA", "C", "O"), atoms, strict=True):
            topology.add_atom(name, mdtraj.element.Element.getBySymbol(name[0]), residue)
            xyz.append(where)
    topology.create_standard_bonds()
    return mdtraj.Trajectory(np.array([xyz]) / 10, topology)


def test_ramachandran_finds_the_torsions_it_was_built_with():
    chain = peptide(-57.0, -47.0, 8)
    *atoms, residues = backbone(chain.topology)
    assert residues == [f"ALA{k}" for k in range(1, 7)]  # both ends lack one of the two
    phi, psi = ramachandran(chain.xyz * 10.0, *atoms)
    np.testing.assert_allclose(phi, -57.0, atol=0.05)
    np.testing.assert_allclose(psi, -47.0, atol=0.05)


def test_ramachandran_without_a_peptide_is_empty():
    water = mdtraj.Topology()
    residue = water.add_residue("HOH", water.add_chain())
    for name in ("O", "H1", "H2"):
        water.add_atom(name, mdtraj.element.Element.getBySymbol(name[0]), residue)
    *atoms, residues = backbone(water)
    phi, psi = ramachandran(np.zeros((2, 3, 3)), *atoms)
    assert (phi.shape, psi.shape, residues) == ((2, 0), (2, 0), [])


def test_secondary_structure_of_a_helix_and_a_stretched_chain():
    found = secondary_structure(peptide(-57.0, -47.0, 12))[0]
    assert set(found[2:-2]) == {"H"}
    assert set(secondary_structure(peptide(-150.0, 150.0, 12))[0]) == {"C"}


def test_the_middle_of_an_azide_does_not_turn():
    """CH3-CH2-N=N=N: one torsion about the bond of carbon and nitrogen, none beyond."""
    numbers = np.array([6, 6, 7, 7, 7, 1, 1, 1, 1, 1])
    bonds = np.array([[0, 1], [1, 2], [2, 3], [3, 4], [0, 5], [0, 6], [0, 7], [1, 8], [1, 9]])
    found, _ = rotatable_bonds(numbers, bonds)
    assert found.tolist() == [[0, 1, 2, 3]]


def test_torsions_of_full_turns_need_no_periods():
    angles = np.array([[170.0, 0.0], [-170.0, 30.0]])
    expected = torsion_matrix(angles, np.array([360.0, 360.0]))
    np.testing.assert_array_equal(torsion_matrix(angles), expected)
