"""The ASE calculator: results, errors, optimiser and molecular dynamics."""

import copy
import pickle

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.calculators.calculator import PropertyNotImplementedError
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from ase.stress import voigt_6_to_full_3x3_stress

from openmm_nequip import InputError
from openmm_nequip.architectures.nequip import NequIPConfig
from openmm_nequip.data.frame import Frame
from openmm_nequip.interop.ase import NequIPCalculator
from openmm_nequip.potential import Potential


def make_potential(dtype: str = "float64") -> Potential:
    torch.manual_seed(3)
    config = NequIPConfig(
        type_names=["O", "H"],
        r_max=4.0,
        num_layers=2,
        l_max=2,
        num_features=4,
        radial_mlp_width=8,
        avg_num_neighbors=8.0,
        per_type_energy_shifts={"H": -13.6, "O": -75.0},
        pair_potential="zbl",
        model_dtype=dtype,
    )
    return Potential(config).eval()


@pytest.fixture
def potential() -> Potential:
    return make_potential()


def water(n: int = 3, **kwargs) -> Atoms:
    rng = np.random.default_rng(0)
    centres = np.arange(n)[:, None] * [2.8, 0.3, -0.4]
    molecule = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
    positions = (centres[:, None] + molecule).reshape(-1, 3)
    return Atoms("OHH" * n, positions + rng.normal(scale=0.05, size=(3 * n, 3)), **kwargs)


TRICLINIC = np.array([[8.4, 0.0, 0.0], [1.0, 3.5, 0.0], [-0.8, 0.4, 3.9]])


@pytest.mark.parametrize("engine", ["fused", "reference"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("pbc", [False, True, (True, False, True), (False, True, False)])
def test_results_are_those_of_the_potential(dtype, pbc, engine):
    potential = make_potential(dtype)
    atoms = water(cell=TRICLINIC, pbc=pbc)
    atoms.calc = NequIPCalculator(potential, engine=engine)
    x, y, z = atoms.pbc.tolist()
    cell = TRICLINIC if any((x, y, z)) else None
    frame = Frame(atoms.numbers, atoms.positions, cell, (x, y, z))
    expected = potential(potential.to_graph(frame), stress=True)
    tolerance = {"reference": 0.0, "fused": 1e-11 if dtype == "float64" else 1e-5}[engine]

    def assert_same(found, reference):
        size = np.abs(reference).max()
        np.testing.assert_allclose(found, reference, rtol=0, atol=tolerance * size)

    energy = atoms.get_potential_energy()
    assert isinstance(energy, float)
    assert_same(energy, expected.energy.numpy())
    assert atoms.get_potential_energy(force_consistent=True) == energy
    energies = atoms.get_potential_energies()
    assert_same(energies, expected.atomic_energies.numpy())
    assert energies.sum() == pytest.approx(energy, abs=1e-10)
    forces = atoms.get_forces()
    assert forces.dtype == np.float64
    assert_same(forces, expected.forces.numpy())
    if np.all(pbc):
        stress = atoms.get_stress()
        assert stress.shape == (6,)
        assert_same(voigt_6_to_full_3x3_stress(stress), expected.stress[0].numpy())
    else:
        with pytest.raises(PropertyNotImplementedError, match="periodic in all three"):
            atoms.get_stress()


def test_stress_has_the_sign_of_ase(potential):
    """Pulling on one axis by a small strain raises the energy by stress times volume."""
    atoms = water(cell=TRICLINIC, pbc=True)
    atoms.calc = NequIPCalculator(potential)
    stress, volume, h = atoms.get_stress(), atoms.get_volume(), 1e-4
    energies = []
    for step in (-h, h):
        strained = atoms.copy()
        strained.calc = atoms.calc
        strained.set_cell(atoms.cell @ (np.eye(3) + np.diag([step, 0, 0])), scale_atoms=True)
        energies.append(strained.get_potential_energy())
    assert (energies[1] - energies[0]) / (2 * h) / volume == pytest.approx(stress[0], rel=1e-5)


def test_cell_vectors_of_open_directions_do_not_matter(potential):
    wire = water(cell=[0, 3.5, 0], pbc=(False, True, False))
    other = water(cell=[[0.1, 0, 50], [0, 3.5, 0], [7, 7, 7]], pbc=(False, True, False))
    wire.calc = other.calc = NequIPCalculator(potential)
    forces = wire.get_forces()
    assert np.allclose(other.get_forces(), forces, rtol=0, atol=1e-12)
    assert not np.allclose(water(calculator=wire.calc).get_forces(), forces, atol=1e-3)


def test_results_follow_the_atoms(potential):
    atoms = water()
    atoms.calc = NequIPCalculator(potential)
    before = atoms.get_forces()
    atoms.rattle(0.1, seed=1)
    assert not np.allclose(atoms.get_forces(), before)
    atoms.numbers[0] = 1
    energy = atoms.get_potential_energy()
    assert energy == NequIPCalculator(potential).get_potential_energy(atoms)
    atoms.cell, atoms.pbc = TRICLINIC, True
    assert atoms.get_potential_energy() != energy


def test_list_follows_the_atoms(potential):
    """Molecular dynamics, another cell, other flags and other atoms with one calculator."""
    atoms = water(cell=TRICLINIC, pbc=True)
    atoms.calc = NequIPCalculator(potential, engine="fused")
    reference = NequIPCalculator(potential, engine="reference")
    rng = np.random.default_rng(1)
    for step in range(30):
        if step == 10:
            atoms.set_pbc((True, False, True))
        if step == 15:
            atoms.wrap()
        if step == 20:
            del atoms[[3, 4, 5]]
        if step % 4 == 1:
            strain = np.eye(3) + rng.normal(scale=0.005, size=(3, 3))
            atoms.set_cell(atoms.cell @ strain, scale_atoms=True)
        atoms.positions += rng.normal(scale=0.01, size=atoms.positions.shape)
        found = atoms.get_forces()
        np.testing.assert_allclose(found, reference.get_forces(atoms), rtol=0, atol=1e-11)
    assert 1 < atoms.calc._fused.neighbors.builds < 12


def test_model_file_and_name(potential, tmp_path):
    path = tmp_path / "water.safetensors"
    potential.save(path)
    expected = water(calculator=NequIPCalculator(potential)).get_potential_energy()
    for model in (path, str(path)):
        assert water(calculator=NequIPCalculator(model, device="cpu")).get_potential_energy() == (
            expected
        )
    with pytest.raises(InputError, match="does not exist"):
        NequIPCalculator(tmp_path / "absent.safetensors")
    with pytest.raises(TypeError, match="unexpected keyword argument 'precision'"):
        NequIPCalculator("ethanol-pbe", precision="double")


def test_potential_in_training_mode(potential):
    calculator = NequIPCalculator(potential.train())
    forces = water(calculator=calculator).get_forces()
    assert np.isfinite(forces).all()


@pytest.mark.parametrize("engine", ["fused", "reference"])
@pytest.mark.parametrize("way", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies(potential, engine, way):
    atoms = Atoms("H2O", [[0, 0, 0], [0.8, 0.6, 0], [-0.8, 0.6, 0]])
    atoms.calc = NequIPCalculator(potential, engine=engine)
    forces = atoms.get_forces()
    other = way(atoms)
    assert other.calc is not atoms.calc
    np.testing.assert_array_equal(other.get_forces(), forces)
    other.positions[0] += 0.1
    atoms.positions[0] += 0.1
    np.testing.assert_array_equal(other.get_forces(), atoms.get_forces())
    assert not np.allclose(other.get_forces(), forces)
    same = way(potential)
    assert same.training == potential.training
    assert type(same) is type(potential)


def test_an_atom_that_has_left_a_slab_is_said(potential):
    atoms = Atoms("H2O", [[0, 0, 0], [0.8, 0.6, 0], [-0.8, 0.6, 0]], cell=[12, 12, 0])
    atoms.pbc = (True, True, False)
    for engine in ("fused", "reference"):
        atoms.calc = NequIPCalculator(potential, engine=engine)
        atoms.positions[0, 2] = 1e3
        energy = atoms.get_potential_energy()
        assert np.isfinite(energy)
        atoms.positions[0, 2] = 1e6
        with pytest.raises(InputError, match=r"1e\+06 Å apart in a direction that is not periodic"):
            atoms.get_potential_energy()
        atoms.positions[0, 2] = 0.0


def test_optimiser(potential):
    atoms = water()
    atoms.calc = NequIPCalculator(potential)
    start = atoms.get_potential_energy()
    assert BFGS(atoms, logfile=None).run(fmax=0.002, steps=300)
    assert np.linalg.norm(atoms.get_forces(), axis=1).max() < 0.002
    assert atoms.get_potential_energy() < start - 0.01


def test_molecular_dynamics_conserves_energy(potential):
    atoms = water()
    atoms.calc = NequIPCalculator(potential)
    BFGS(atoms, logfile=None).run(fmax=0.05, steps=200)
    rng = np.random.default_rng(2)
    spread = np.sqrt(units.kB * 300.0 * atoms.get_masses())[:, None]
    atoms.set_momenta(spread * rng.normal(size=(len(atoms), 3)))
    start = atoms.get_total_energy()
    potential_start = atoms.get_potential_energy()
    totals, exchanged = [], []
    dynamics = VelocityVerlet(atoms, timestep=0.25 * units.fs)
    for _ in range(10):
        dynamics.run(10)
        totals.append(atoms.get_total_energy())
        exchanged.append(atoms.get_potential_energy() - potential_start)
    assert np.abs(exchanged).max() > 0.01
    assert np.abs(np.array(totals) - start).max() < 0.02 * np.abs(exchanged).max()


def test_another_charge_is_refused(potential):
    atoms = water(1)
    potential.metadata["domain"] = {"elements": ["O", "H"], "charge": 0, "multiplicity": 1}
    atoms.calc = NequIPCalculator(potential)
    expected = atoms.get_potential_energy()
    atoms.set_initial_charges([-0.8, 0.4, 0.4])  # partial charges
    assert atoms.get_potential_energy() == expected
    atoms.set_initial_charges([1, 0, 1])
    with pytest.raises(InputError, match=r"charge 0, and the atoms have \+2"):
        atoms.get_potential_energy()
    hydroxide = water(1)[:2]
    hydroxide.calc = NequIPCalculator(potential)
    with pytest.raises(InputError, match="multiplicity 1, which HO with 9 electrons cannot have"):
        hydroxide.get_forces()
    hydroxide.calc = NequIPCalculator(make_potential())
    assert np.isfinite(hydroxide.get_forces()).all()


def test_wrong_input(potential):
    with pytest.raises(InputError, match="did you mean 'reference'"):
        NequIPCalculator(potential, engine="referense")
    with pytest.raises(InputError, match="device 'warp9' cannot be used"):
        NequIPCalculator(potential, device="warp9")
    calculator = NequIPCalculator(potential)
    with pytest.raises(InputError, match="not trained on C; it knows O, H"):
        Atoms("CH", [[0, 0, 0], [0, 0, 1.1]], calculator=calculator).get_forces()
    nan = Atoms("OH", [[0, 0, 0], [0, 0, np.nan]], calculator=calculator)
    with pytest.raises(InputError, match="position of atom 1 is not finite"):
        nan.get_potential_energy()
    with pytest.raises(InputError, match="has no cell vector"):
        water(pbc=True, calculator=calculator).get_potential_energy()
    with pytest.raises(InputError, match="cell is not finite"):
        water(cell=[np.inf, 5, 5], pbc=True, calculator=calculator).get_potential_energy()


@pytest.mark.parametrize("engine", ["fused", "reference"])
@pytest.mark.parametrize("pbc", [False, True])
def test_under_inference_mode(potential, engine, pbc):
    atoms = water(cell=TRICLINIC, pbc=pbc)
    atoms.calc = NequIPCalculator(potential, engine=engine)
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    atoms.calc = NequIPCalculator(potential, engine=engine)
    with torch.inference_mode():
        assert atoms.get_potential_energy() == energy
        np.testing.assert_array_equal(atoms.get_forces(), forces)


@pytest.mark.parametrize("charge", ["1", np.array(1), np.float64(1.0)])
def test_charges_however_they_are_written(potential, charge):
    potential.metadata["domain"] = {"elements": ["H", "O"], "charge": 0}
    atoms = water()
    atoms.info["charge"] = charge
    atoms.calc = NequIPCalculator(potential)
    with pytest.raises(InputError, match=r"charge 0, and the atoms have \+1"):
        atoms.get_potential_energy()
