"""The data set of organic-small and what its potential is evaluated on."""

import importlib
import json
import sys
from functools import partial
from itertools import chain, pairwise, product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase.data import vdw_radii
from ase.units import kB
from typer.testing import CliRunner

from openmm_nequip.benchmarking.stability import Watch
from openmm_nequip.data.dataset import Targets
from openmm_nequip.data.frame import Frame
from openmm_nequip.errors import InputError
from openmm_nequip.potential import Output
from openmm_nequip.training.evaluation import Predictions

for needed in ("rdkit", "dask.distributed", "torchani", "h5py"):
    pytest.importorskip(needed)

import h5py  # noqa: E402
from rdkit import Chem  # noqa: E402
from rdkit.Chem.rdMolDescriptors import CalcNumRings  # noqa: E402

FOLDER = Path(__file__).parents[2] / "benchmarks/organic"
SCRIPTS = ("teacher", "molecules", "conformations", "generate", "subjects", "methods")
SCRIPTS += ("drawing", "card", "md", "evaluate", "widen")


@pytest.fixture(scope="module")
def scripts():
    """Modules of the folder, which import each other by their bare names."""
    path = list(sys.path)
    sys.path.insert(0, str(FOLDER))
    try:
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in SCRIPTS})
    finally:
        sys.path[:] = path
        for name in SCRIPTS:
            sys.modules.pop(name, None)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


# -- molecules ---------------------------------------------------------------------------------


def test_all_smiles_are_molecules_of_the_domain(scripts, rng):
    m = scripts.molecules
    listed = m.read(m.SMALL) + m.read(m.DRUGS) + m.read(m.TURNED) + m.peptides(rng, 40)
    assert len(listed) > 380
    assert [s for s in listed if not m.is_in_domain(s)] == []
    pieces = m.CORES.split() + m.SULFUR.split() + m.SUBSTITUENTS.split()
    assert [s for s in pieces if Chem.MolFromSmiles(s) is None or "*" not in s] == []
    assert [s for s in m.SUBSTITUENTS.split() if s.count("*") != 1] == []


@pytest.mark.parametrize("smiles", ["[NH4+]", "C[O]", "CBr", "[Na+].[Cl-]", "nonsense(", "C" * 41])
def test_ions_radicals_other_elements_and_large_molecules_are_outside(scripts, smiles):
    assert not scripts.molecules.is_in_domain(smiles)


def test_made_molecules_are_in_the_domain_and_follow_from_the_seed(scripts):
    m = scripts.molecules
    for make, count in ((m.substituted, 60), (m.recombined, 30)):
        first = make(np.random.default_rng(1), count)
        assert len(set(first)) == len(first) == count
        assert [s for s in first if not m.is_in_domain(s, max_heavy=16)] == []
        assert [s for s in first if "*" in s or Chem.CanonSmiles(s) != s] == []
        assert make(np.random.default_rng(1), count) == first
        assert make(np.random.default_rng(2), count) != first


def test_molecules_of_one_scaffold_are_in_one_set(scripts, rng):
    m = scripts.molecules
    listed = m.read(m.SMALL) + m.read(m.DRUGS) + m.substituted(rng, 150) + m.recombined(rng, 80)
    sets: dict[str, set[str]] = {}
    for smiles in listed:
        frame = m.scaffold(smiles)
        if CalcNumRings(Chem.MolFromSmiles(frame)) <= 1 and frame != smiles:
            assert m.split(smiles) == "train"  # a single ring that carries something
        else:
            sets.setdefault(frame, set()).add(m.split(smiles))
    assert [frame for frame, found in sets.items() if len(found) > 1] == []
    assert set.union(*sets.values()) == {"train", "validation", "test"}


def test_scaffold_drops_side_chains(scripts):
    frame = scripts.molecules.scaffold("CC(=O)Nc1ccc(-c2ccncc2)cc1")
    assert frame == Chem.CanonSmiles("c1ccc(-c2ccncc2)cc1")
    assert scripts.molecules.scaffold("CCO") == "CCO"


# -- conformations -----------------------------------------------------------------------------


def test_gradient_is_that_of_the_energy(scripts, rng):
    molecule = scripts.conformations.Molecule("CC(=O)NC", rng, conformers=1)
    x = molecule.minima[0] + rng.normal(scale=0.05, size=molecule.minima[0].shape)
    gradient = molecule.gradient(0, x)
    kcal, step = 0.0433641153, 1e-4
    for atom, axis in ((0, 0), (3, 1), (7, 2)):
        energies = []
        for sign in (1, -1):
            moved = x.copy()
            moved[atom, axis] += sign * step
            energies.append(kcal * molecule.fields[0].CalcEnergy(moved.ravel().tolist()))
        slope = (energies[0] - energies[1]) / (2 * step)
        assert gradient[atom, axis] == pytest.approx(slope, abs=1e-4)
    assert np.abs(molecule.gradient(0, molecule.minima[0])).max() < 1e-2


def stiffness(molecule) -> float:
    """Force constant of the bond of a diatomic molecule at its minimum, eV/Å²."""
    x, step = molecule.minima[0], 1e-3
    along = (x[1] - x[0]) / np.linalg.norm(x[1] - x[0])
    forces = []
    for shift in (step, -step):
        moved = x.copy()
        moved[1] += shift * along
        forces.append(molecule.gradient(0, moved)[1] @ along)
    return (forces[0] - forces[1]) / (2 * step)


@pytest.mark.parametrize("how", ["bend_and_stretch", "dynamics"])
@pytest.mark.parametrize("temperature", [200.0, 800.0])
def test_spread_of_a_bond_is_that_of_its_temperature(scripts, rng, how, temperature):
    molecule = scripts.conformations.Molecule("N#N", rng, conformers=1)
    frames = getattr(scripts.conformations, how)(molecule, 0, temperature, 500, rng)
    lengths = [np.linalg.norm(x[1] - x[0]) for x in frames]
    expected = np.sqrt(kB * temperature / stiffness(molecule))
    assert np.std(lengths) == pytest.approx(expected, rel=0.15)


def test_torsions_turn_and_stretched_bonds_stretch(scripts, rng):
    c = scripts.conformations
    molecule = c.Molecule("CCCC", rng, conformers=1)
    turned = c.torsions(molecule, 0, 8, rng)
    ends = [np.linalg.norm(x[3] - x[0]) for x in turned]
    assert len(turned) == 8
    assert min(ends) < 3.2
    assert max(ends) > 3.6
    i, j = np.array(
        [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in molecule.molecule.GetBonds()]
    ).T

    def lengths(x: np.ndarray) -> np.ndarray:
        return np.linalg.norm(x[i] - x[j], axis=1)

    ratios = [lengths(x) / lengths(molecule.minima[0]) for x in c.stretched(molecule, 0, 60, rng)]
    assert np.min(ratios) < 0.85
    assert np.max(ratios) > 1.25
    assert c.torsions(c.Molecule("C", rng, conformers=1), 0, 3, rng) == []


def test_molecules_together_touch_and_do_not_overlap(scripts, rng):
    c = scripts.conformations
    parts = [
        c.Structure(molecule.numbers, molecule.minima[0])
        for molecule in (c.Molecule(s, rng, 1) for s in ("CCO", "c1ccccc1", "O", "O"))
    ]
    for _ in range(10):
        whole = c.together(parts, rng, closeness=-0.2, spread=0.5)
        assert len(whole.numbers) == sum(len(part.numbers) for part in parts)
        assert not c.overlaps(whole)
        ends = np.cumsum([len(part.numbers) for part in parts])
        for begin, end in pairwise(ends.tolist()):
            contact = 0.75 * np.add.outer(
                vdw_radii[whole.numbers[:begin]], vdw_radii[whole.numbers[begin:end]]
            )
            x, y = whole.positions[:begin], whole.positions[begin:end]
            gap = (np.linalg.norm(x[:, None] - y, axis=2) - contact).min()
            assert -0.2 <= gap < 0.5 - 0.2 + 0.06


def test_acids_find_their_two_hydrogen_bonds(scripts, rng):
    c = scripts.conformations
    acid = c.Molecule("OC=O", rng, conformers=1)
    shortest = []
    for _ in range(4):
        pair = c.Complex(acid, acid, rng)
        x = pair.minima[0]
        assert pair.numbers.tolist() == [*acid.numbers] * 2
        assert np.abs(pair.gradient(0, x)).max() < 0.02
        bonds = [
            np.linalg.norm(x[h] - x[o])
            for h, o in product(
                np.flatnonzero(pair.numbers == 1), np.flatnonzero(pair.numbers == 8)
            )
            if (h < pair.size) != (o < pair.size)
        ]
        shortest.append(sorted(bonds)[1])
    assert min(shortest) < 2.0  # both bonds are there


def test_complexes_are_pushed_together_and_pulled_apart(scripts, rng):
    c = scripts.conformations
    water = c.Molecule("O", rng, conformers=1)
    pair = c.Complex(water, c.Molecule("CO", rng, conformers=1), rng)
    contact = np.linalg.norm(pair.contact(pair.minima[0]))
    frames = pair.apart(60, rng)
    shifts = [np.linalg.norm(pair.contact(x)) - contact for x in frames]
    assert -0.6 < min(shifts) < -0.2
    assert 1.5 < max(shifts) < 3.2
    for x in frames:  # each molecule keeps its shape but for noise
        assert np.linalg.norm(x[1] - x[0]) == pytest.approx(
            np.linalg.norm(water.minima[0][1] - water.minima[0][0]), abs=0.15
        )


def test_molecules_far_apart_are_no_complex(scripts, rng, monkeypatch):
    c = scripts.conformations
    methane = c.Molecule("C", rng, conformers=1)
    together = c.together
    monkeypatch.setattr(c, "together", lambda parts, rng, **_: together(parts, rng, 9.0, 0.3))
    with pytest.raises(ValueError, match="stay together"):
        c.Complex(methane, methane, rng, starts=1)


def test_overlapping_atoms_are_noticed(scripts):
    c = scripts.conformations
    numbers = np.array([6, 6])
    assert c.overlaps(c.Structure(numbers, np.array([[0, 0, 0], [0.8, 0, 0]])))
    assert not c.overlaps(c.Structure(numbers, np.array([[0, 0, 0], [0.9, 0, 0]])))


def test_random_rotations_are_rotations_in_all_directions(scripts, rng):
    rotations = np.array([scripts.conformations.random_rotation(rng) for _ in range(2000)])
    assert np.allclose(rotations @ rotations.transpose(0, 2, 1), np.eye(3))
    assert np.allclose(np.linalg.det(rotations), 1)
    assert np.abs(rotations.mean(axis=0)).max() < 0.06
    # the mean of each squared entry over all rotations is 1/3
    assert np.allclose((rotations**2).mean(axis=0), 1 / 3, atol=0.03)


def test_nearest_molecules_are_whole_and_near(scripts):
    c = scripts.conformations
    positions = np.array([[x, 0, d] for x in (0, 10, 3, 6) for d in (0, 1)], float)
    cluster = c.Structure(np.arange(1, 9), positions)
    pairs = [np.array([k, k + 1]) for k in range(0, 8, 2)]
    found = c.nearest_molecules(cluster, pairs, centre=0, count=2)
    assert found.numbers.tolist() == [1, 2, 5, 6]
    assert np.array_equal(found.positions, positions[[0, 1, 4, 5]])


# -- teacher -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ani(scripts, reference_data):
    return scripts.teacher.Teacher((reference_data / "ani2x/ani-2x_8x").parent)


def shapes(scripts, rng):
    for smiles in ("O", "CC(=O)NC", "FC(Cl)CS"):
        molecule = scripts.conformations.Molecule(smiles, rng, conformers=1)
        noise = rng.normal(scale=0.05, size=molecule.minima[0].shape)
        yield molecule.numbers, molecule.minima[0] + noise


def test_labels_do_not_depend_on_the_company(scripts, ani, rng):
    numbers, positions = zip(*shapes(scripts, rng), strict=True)
    together = ani.label(list(numbers), list(positions))
    for z, x, label in zip(numbers, positions, together, strict=True):
        (alone,) = ani.label([z], [x])
        assert label.energy == pytest.approx(alone.energy, abs=1e-3)
        assert np.allclose(label.forces, alone.forces, atol=1e-4)
        assert label.spread == pytest.approx(alone.spread, abs=1e-4)
        assert label.forces.shape == x.shape


def test_forces_of_the_teacher_are_differences_of_its_energy(scripts, ani, rng):
    for z, x in shapes(scripts, rng):
        direction = rng.normal(size=x.shape)
        direction /= np.linalg.norm(direction)
        step = 5e-3
        down, here, up = ani.label([z] * 3, [x + k * step * direction for k in (-1, 0, 1)])
        slope = (up.energy - down.energy) / (2 * step)
        assert -(here.forces * direction).sum() == pytest.approx(slope, abs=0.03)


def test_energies_of_the_teacher_are_those_of_molecules(scripts, ani):
    # water at its minimum: -76.3 to -76.4 Hartree for any decent density functional
    x = np.array([[0, 0, 0.119], [0, 0.763, -0.477], [0, -0.763, -0.477]])
    (label,) = ani.label([np.array([8, 1, 1])], [x])
    assert label.energy / 27.2114 == pytest.approx(-76.35, abs=0.1)


def test_missing_networks_are_an_error(scripts, tmp_path):
    with pytest.raises(InputError, match="no ANI-2x networks"):
        scripts.teacher.Teacher(tmp_path)


# -- generate ----------------------------------------------------------------------------------


class Pretender:
    """Labels like a teacher: springs to the origin; members disagree about fluorine."""

    labelled = 0

    def __init__(self, labels):
        self.labels = labels

    def label(self, numbers, positions):
        Pretender.labelled += len(numbers)
        return [
            self.labels(float((x**2).sum()) / 2, -0.1 * x, 0.5 if 9 in z else 0.001)
            for z, x in zip(numbers, positions, strict=True)
        ]


@pytest.fixture
def plan(scripts, monkeypatch):
    """Make the plan small, the teacher a pretender and the workers threads of this process."""
    g, m = scripts.generate, scripts.molecules
    monkeypatch.setattr(m, "SMALL", "O CCO CCCC FCCF CCOCC COCCOC c1ccoc1 c1ccc2ccccc2c1")
    monkeypatch.setattr(m, "TURNED", "CSSC CC(=O)NC FCCF")
    monkeypatch.setattr(m, "peptides", lambda rng, count: [])
    monkeypatch.setattr(g, "_spice_plan", lambda scale: [])
    monkeypatch.setattr(g, "_teacher", lambda: Pretender(scripts.teacher.Labels))
    monkeypatch.setattr(g, "LocalCluster", partial(g.LocalCluster, processes=False))
    drugs = m.read(m.DRUGS)
    real = m.read
    # all drugs for their fragments, two for the plan
    monkeypatch.setattr(m, "read", lambda text: drugs[:2] if text is m.DRUGS else real(text))
    monkeypatch.setattr(m, "recombined", lambda rng, count: m.substituted(rng, count))
    return g.plan


def molecules_in(path):
    with h5py.File(path) as file:
        return {group.attrs["molecule"] for piece in file.values() for group in piece.values()}


def test_a_small_data_set_from_beginning_to_end(scripts, plan, tmp_path):
    g = scripts.generate
    g.main(tmp_path, workers=1, scale=0.004)
    works = plan(0.004)
    assert len({work.name for work in works}) == len(works)
    pieces = sorted((tmp_path / "pieces").rglob("*.h5"))
    assert len(pieces) == len(works)
    sets = {}
    for part in ("train", "validation", "test"):
        frames, _ = scripts.subjects.labelled(tmp_path / f"{part}.h5")
        for frame in frames:
            assert frame.energy == pytest.approx((frame.positions**2).sum() / 2)
            assert np.allclose(frame.forces, -0.1 * frame.positions)
            assert 9 not in frame.numbers  # the members disagree
        names = molecules_in(tmp_path / f"{part}.h5")
        sets[part] = {name for name in names if "/" not in name}
    assert "CCO" in sets["train"]
    assert not sets["train"] & sets["test"]
    assert not sets["validation"] & (sets["train"] | sets["test"])
    # what is there is not made again, what is missing is made as before
    before = {path: path.read_bytes() for path in pieces}
    Pretender.labelled = 0
    g.main(tmp_path, workers=1, scale=0.004)
    assert Pretender.labelled == 0
    with h5py.File(pieces[-1]) as file:
        expected = {k: v["coordinates"][:] for k, v in file.items()}
    pieces[-1].unlink()
    g.main(tmp_path, workers=1, scale=0.004)
    assert Pretender.labelled > 0
    with h5py.File(pieces[-1]) as file:
        assert expected.keys() == file.keys()
        assert all(np.array_equal(expected[k], v["coordinates"][:]) for k, v in file.items())
    assert all(path.read_bytes() == before[path] for path in pieces[:-1])


def test_frames_that_disagree_or_pull_hard_are_left_out(scripts, plan, tmp_path, monkeypatch):
    g = scripts.generate
    (tmp_path / "train").mkdir()
    for kind in ("molecules", "torsions"):
        counts = g.run(g.Work(kind, "train/x-0000", ("FCCF", "CCO"), 6), str(tmp_path))
        assert counts["teachers disagree"] > 0
        assert counts["kept"] > 0
    counts = g.run(g.Work("complexes", "train/x-0000", ("FCCF", "CCO"), 6), str(tmp_path))
    assert "teachers disagree" not in counts  # nothing is made of molecules they do not know
    assert counts["kept"] > 0
    work = g.Work("torsions", "train/x-0000", ("FCCF", "CCO"), 6, max_spread=0.6)
    assert "teachers disagree" not in g.run(work, str(tmp_path))
    monkeypatch.setattr(g, "MAX_FORCE", 0.01)
    counts = g.run(g.Work("molecules", "train/x-0001", ("CCO",), 6), str(tmp_path))
    assert "kept" not in counts
    assert counts["large forces"] > 0


def test_the_plan_holds_molecules_out_by_scaffold(scripts, plan):
    for work in plan(0.02):
        if work.kind in ("molecules", "torsions"):
            part = work.name.split("/")[0]
            assert {scripts.molecules.split(s) for s in work.subjects} == {part}


# -- evaluate ----------------------------------------------------------------------------------


def test_drug_like_molecules_are_no_molecules_of_the_lists(scripts):
    m, drugs = scripts.molecules, scripts.subjects.DRUG_LIKE
    known = set(m.read(m.SMALL)) | set(m.read(m.DRUGS)) | set(m.read(m.TURNED))
    assert len(drugs) == 20
    for name, smiles in drugs.items():
        assert m.is_in_domain(smiles), name
        assert Chem.CanonSmiles(smiles) not in known, name
        assert 20 <= Chem.AddHs(Chem.MolFromSmiles(smiles)).GetNumAtoms() <= 40, name
    elements = {a.GetSymbol() for s in drugs.values() for a in Chem.MolFromSmiles(s).GetAtoms()}
    assert elements | {"H"} == set(scripts.teacher.ELEMENTS)


def test_drugs_in_training_are_an_error(scripts, monkeypatch):
    works = [
        scripts.generate.Work("molecules", "train/small-0000", ("OCC",), 60),
        scripts.generate.Work("spice", "train/des-monomers-0000", ("des.hdf5", "C(O)=O", 0), 25),
        scripts.generate.Work("spice", "train/water-0000", ("water.hdf5", "water", 12), 9),
        scripts.generate.Work("molecules", "test/small-0001", ("NS(=O)(=O)Cc1noc2ccccc12",), 60),
    ]
    monkeypatch.setattr(scripts.generate, "plan", lambda scale: works)
    scripts.evaluate.check_not_in_training()
    assert scripts.generate.molecules(("train",)) == {"CCO", "O=CO"}
    works.append(works[-1]._replace(name="validation/small-0000"))
    with pytest.raises(InputError, match="zonisamide"):
        scripts.evaluate.check_not_in_training()


def test_no_bond_of_any_drug_is_broken_or_new_at_the_start(scripts):
    for name in ("efavirenz", "flutamide", "modafinil", "tizanidine"):
        numbers, positions, bonds = scripts.subjects.at_start(name)
        assert Watch(numbers, bonds).changes(positions) == []


@pytest.mark.parametrize("name", ["ethanol, O-H", "biphenyl", "alanine dipeptide, φ"])
def test_a_scan_has_the_angles_that_are_wanted(scripts, name):
    from ase import Atoms

    torsion = scripts.subjects.TORSIONS[name]
    angles = np.array([-150.0, -30.0, 90.0])
    for angle, structure in zip(angles, scripts.subjects.scan(torsion, angles), strict=True):
        found = Atoms(*structure).get_dihedral(*torsion.atoms)
        assert (found - angle + 180) % 360 - 180 == pytest.approx(0, abs=2)


def test_stretches_have_the_distances_they_say(scripts):
    for name, stretch in scripts.subjects.stretches(0.3).items():
        other = 3 if name.startswith("O-O") else 1
        for distance, structure in zip(stretch.distances, stretch.structures, strict=True):
            found = np.linalg.norm(structure.positions[other] - structure.positions[0])
            assert found == pytest.approx(distance)
        assert stretch.distances[0] < stretch.rest < stretch.distances[-1]


def morse(scripts, bump: float = 0.0, jump: float = 0.0):
    """A Morse curve of two atoms, with a bump at short distance or a step of the energy."""
    r = np.arange(0.5, 4.0, 0.01)
    well = 5 * (1 - np.exp(-2 * (r - 1.1))) ** 2
    slope = 20 * (1 - np.exp(-2 * (r - 1.1))) * np.exp(-2 * (r - 1.1))
    hill = np.exp(-(((r - 0.75) / 0.05) ** 2))
    energies = well - bump * hill + jump * (r > 2.0)
    slope = slope + bump * hill * 2 * (r - 0.75) / 0.05**2
    x = np.zeros((len(r), 2, 3))
    x[:, 1, 0] = r
    forces = np.zeros_like(x)
    forces[:, 1, 0], forces[:, 0, 0] = -slope, slope
    structures = [scripts.conformations.Structure(np.array([7, 7]), y) for y in x]
    stretch = scripts.subjects.Stretch(r, structures, 1.1)
    return stretch, scripts.methods.Evaluated(energies, list(forces))


def test_a_good_curve_passes_and_faults_are_found(scripts):
    checks = scripts.evaluate.curve_checks(*morse(scripts))
    assert checks["repulsive_down_to_A"] == checks["of_A"] == pytest.approx(0.5)
    assert checks["highest_eV"] == checks["apart_eV"] > 0  # a Morse curve only rises
    assert checks["work_difference_meV"] < 0.5
    checks = scripts.evaluate.curve_checks(*morse(scripts, bump=5.0))
    assert 0.6 < checks["repulsive_down_to_A"] < 0.85
    checks = scripts.evaluate.curve_checks(*morse(scripts, jump=0.1))
    assert checks["work_difference_meV"] == pytest.approx(100, abs=1)


def test_a_barrier_before_atoms_that_are_apart_is_seen(scripts):
    stretch, found = morse(scripts)
    hill = 3.0 * np.exp(-(((stretch.distances - 2.0) / 0.1) ** 2))
    found = found._replace(energies=found.energies + hill)
    checks = scripts.evaluate.curve_checks(stretch, found)
    assert checks["highest_eV"] - checks["apart_eV"] > 1.0


def test_statistics_and_profiles(scripts):
    e = scripts.evaluate
    assert e.statistics_of(np.array([[0.003], [-0.004]])) == pytest.approx(
        {"mae": 3.5, "rmse": np.sqrt(12.5)}
    )
    found = e.profile_errors(np.array([5.0, 5.3, 5.0]), np.array([1.0, 1.0, 1.0]))
    assert found["rms_meV"] == pytest.approx(1000 * np.std([0, 0.3, 0]))  # a constant is free
    assert found["height_meV"] == pytest.approx(300)
    assert found["reference_height_meV"] == 0


def test_errors_of_dimers(scripts):
    numbers, zero = np.array([1, 1]), np.zeros((2, 3))
    dimers = [
        [Frame(numbers, zero, energy=e, forces=zero) for e in (-0.3, -0.1, 0.0)] for _ in range(2)
    ]
    shifted = np.array([-0.28, -0.10, 0.01])
    found = [scripts.methods.Evaluated(shifted, [zero + 0.002] * 3)] * 2
    errors = scripts.evaluate.dimer_errors(dimers, found)
    assert errors["energy_meV"]["mae"] == pytest.approx(10)  # nothing is subtracted
    assert errors["interaction_meV"]["mae"] == pytest.approx(10)
    assert errors["interaction_meV"]["rmse"] == pytest.approx(10)
    assert errors["forces_meV_per_A"] == pytest.approx({"mae": 2, "rmse": 2})


def test_dimers_of_s66_have_forces_that_belong_to_their_energies(scripts, reference_data):
    folder = reference_data.with_all("s66x8/s66x8_wb97x6-31gd.h5")
    dimers = scripts.subjects.s66x8(folder)
    assert [len(dimer) for dimer in dimers] == [8] * 66
    water = dimers[0]
    assert water[0].numbers.tolist().count(8) == 2
    x = [frame.positions for frame in water]
    energies = np.array([frame.energy for frame in water])
    rest = scripts.evaluate.work_differences(energies, [frame.forces for frame in water], x)
    # from 1.1 to 1.25 and to 1.5 the energy rises by 70 meV each, more than the rest
    assert np.abs(rest[4:6]).max() < 0.1 * np.abs(np.diff(energies)[4:6]).min()
    with pytest.raises(InputError, match="s66x8"):
        scripts.subjects.s66x8(folder / "nowhere")


def predictions(energies, numbers: list[list[int]], shift: float = 0.0) -> Predictions:
    """Perfect predictions of energies, but for a shift."""
    targets = torch.tensor(energies, dtype=torch.float64)
    sizes = torch.tensor([len(n) for n in numbers])
    total = int(sizes.sum())
    zeros = torch.zeros(total, 3, dtype=torch.float64)
    return Predictions(
        Output(targets + shift, torch.zeros(total, dtype=torch.float64), zeros, None, None),
        Targets(targets, zeros, torch.full((len(sizes), 3, 3), torch.nan), sizes),
        torch.tensor(list(chain(*numbers))),
    )


def test_predictions_are_joined(scripts):
    whole = predictions([-50.0, -40.0, -90.0, -60.0], [[0, 0, 1], [0, 1], [0, 0, 0, 1, 1], [1, 1]])
    both = scripts.evaluate.joined([whole, predictions([-1.0], [[0]])])
    assert both.targets.num_atoms.tolist() == [3, 2, 5, 2, 1]
    assert len(both.output.forces) == len(both.types) == 13
    assert both.output.energy[-1] == -1


def test_frames_are_found_in_a_file_and_in_pieces(scripts, tmp_path):
    with pytest.raises(InputError, match="neither test"):
        scripts.subjects.part(tmp_path, "test")
    (tmp_path / "pieces/test").mkdir(parents=True)
    with pytest.raises(InputError, match="no frames yet"):
        scripts.subjects.labelled(scripts.subjects.part(tmp_path, "test"))

    def fill(group) -> None:
        group = group.create_group("0000")
        group.attrs["molecule"] = "[H][H]"
        group["atomic_numbers"] = [1, 1]
        group["coordinates"] = np.arange(12.0).reshape(2, 2, 3)
        group["energies"] = [-1.0, -2.0]
        group["forces"] = np.ones((2, 2, 3))

    with h5py.File(tmp_path / "pieces/test/des-monomers-0003.h5", "w") as file:
        fill(file)
    in_pieces = scripts.subjects.labelled(scripts.subjects.part(tmp_path, "test"))
    with h5py.File(tmp_path / "test.h5", "w") as file:
        fill(file.create_group("des-monomers-0003"))
    in_file = scripts.subjects.labelled(scripts.subjects.part(tmp_path, "test"))
    for frames, kinds in (in_pieces, in_file):
        assert kinds == ["des-monomers"] * 2
        assert [frame.energy for frame in frames] == [-1.0, -2.0]
        assert frames[1].positions[0, 0] == 6
    assert molecules_in(tmp_path / "test.h5") == {"[H][H]"}


def test_a_folder_has_the_results_of_one_model(scripts, tmp_path, capsys):
    record = scripts.evaluate.Record(tmp_path, "ethanol-pbe")
    assert not record.has("torsions", again=False)
    record.add("torsions", {"butane": 1})
    record = scripts.evaluate.Record(tmp_path, "ethanol-pbe")
    assert record.has("torsions", again=False)
    assert "--again" in capsys.readouterr().out
    assert not record.has("torsions", again=True)
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"another")
    with pytest.raises(InputError, match="another model"):
        scripts.evaluate.Record(tmp_path, str(other))
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(InputError, match="cannot read results"):
        scripts.evaluate.read_results(tmp_path)


def test_tables_show_what_was_found(scripts, tmp_path):
    errors = {"mae": 19.1, "rmse": 26.3}
    kinds = {"energy_meV": errors, "interaction_meV": errors, "forces_meV_per_A": errors}
    results = {
        "s66x8": {"potential": kinds, "ANI-2x": kinds},
        "torsions": {
            "butane": {"rms_meV": 7.25, "height_meV": 210.0, "reference_height_meV": 219.0}
        },
        "nvt_300K": {
            "riluzole": {"ps": 100.0, "change": "", "at_ps": None},
            "flutamide": {"ps": 100.0, "change": "O1-O2 new (1.50 Å)", "at_ps": 3.5},
        },
        "speed": {
            "ms_per_step": {"potential": 2.0, "ANI-2x": 7.0},
            "machine": {"gpu": None, "cpu": "a CPU", "threads": 1},
        },
    }
    (tmp_path / "results.json").write_text(json.dumps(results))
    outcome = CliRunner().invoke(scripts.evaluate.app, ["table", str(tmp_path)])
    assert outcome.exit_code == 0, outcome.output
    text = outcome.output
    assert "| total energy, meV | 19.1 | 26.3 | 19.1 | 26.3 |" in text
    assert "| butane | 7.25 | 210 | 219 |" in text
    assert "1 of 2 drugs keep all their bonds" in text
    assert "flutamide: O1-O2 new (1.50 Å) at 3.5 ps" in text
    assert "3.5 times as fast" in text
    assert scripts.card.markdown({}) == "no results yet"


# -- widening ----------------------------------------------------------------------------------


def test_a_wider_embedding_changes_no_energy_and_has_gradients(scripts):
    """In double precision; every new weight can be reached by the loss."""
    from openmm_nequip.modelfile import find_model, load_file

    narrow = load_file(find_model("organic-small")).with_dtype("float64")
    torch.manual_seed(1)
    width = narrow.network.type_embedding.shape[1] + 5
    wide = scripts.widen.widened(narrow, width)
    assert wide.network.type_embedding.shape == (7, width)
    frame = Frame(np.array([8, 6, 1, 1]), _formaldehyde())
    before, after = (p(p.to_graph(frame), forces=True) for p in (narrow, wide))
    torch.testing.assert_close(after.energy, before.energy, rtol=0, atol=1e-9)
    torch.testing.assert_close(after.forces, before.forces, rtol=0, atol=1e-9)

    wide.train()
    wide(wide.to_graph(frame), forces=True).forces.square().sum().backward()
    linear = wide.network.layers[0].linear_2
    for *_, outputs, start in linear.paths:
        rows = linear.weight.grad[start:][: width * outputs].view(width, outputs)
        assert (rows[-5:].abs().amax(dim=1) > 1e-6).all()
    with pytest.raises(InputError, match="wide already"):
        scripts.widen.widened(wide, width)


def _formaldehyde() -> np.ndarray:
    """Slightly bent, so that every harmonic counts."""
    return np.array([[0.0, 0.1, 1.2], [0.0, 0.0, 0.0], [0.9, 0.2, -0.6], [-0.95, 0.1, -0.55]])
