"""Mixed systems: the potential on some atoms of a conventional force field."""

import copy
from types import SimpleNamespace

import numpy as np
import openmm
import pytest
from openmm import app, unit
from openmmml import MLPotential
from openmmml.mlpotential import Embedding

from openmm_nequip.errors import InputError
from openmm_nequip.md.mixed import energy_derivative
from openmm_nequip.md.probe import why_not
from openmm_nequip.units import KJ_PER_MOL, NM

from .systems import KINDS, Frame, evaluate, expected, small_potential

# two waters of the box below, in no particular order
ATOMS = [4, 3, 5, 11, 9, 10]


@pytest.fixture(params=KINDS)
def kind(request):
    if reason := why_not(request.param):
        pytest.skip(reason)
    return request.param


@pytest.fixture(scope="module")
def potential(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    small_potential().save(path)
    return MLPotential("nequip", modelPath=path)


CUBE = 1.6 * np.eye(3)  # nm; holds 129 waters
#: A rhombic dodecahedron, as `prepare` makes them.
DODECAHEDRON = 2.0 * np.array([[1.0, 0, 0], [0, 1, 0], [0.5, 0.5, 0.5**0.5]])


class WaterBox:
    """TIP3P waters at random, or those of another model."""

    def __init__(self, method, model="tip3p", vectors=CUBE):
        self.vectors = vectors
        self.forcefield = app.ForceField(f"amber14/{model}.xml")
        modeller = app.Modeller(app.Topology(), [])
        modeller.addSolvent(
            self.forcefield, model=model, boxVectors=[openmm.Vec3(*row) for row in vectors.tolist()]
        )
        self.waters = modeller.topology.getNumResidues()
        self.topology, self.positions = modeller.topology, modeller.positions
        self.system = self.forcefield.createSystem(
            self.topology,
            nonbondedMethod=method,
            nonbondedCutoff=0.7 * unit.nanometer,
            constraints=None,
            rigidWater=False,
        )

    def context(self, system, **parameters):
        context = openmm.Context(
            system,
            openmm.VerletIntegrator(0.0005),
            openmm.Platform.getPlatformByName("Reference"),
        )
        context.setPositions(self.positions)
        for name, value in parameters.items():
            context.setParameter(name, value)
        return context

    def frame(self):
        positions = np.array(self.positions.value_in_unit(unit.angstrom))
        numbers = np.array([atom.element.atomic_number for atom in self.topology.atoms()])
        periodic = self.system.usesPeriodicBoundaryConditions()
        return Frame(numbers, positions, self.vectors / NM if periodic else None, (periodic,) * 3)


@pytest.fixture(scope="module", params=["PME", "NoCutoff"])
def box(request):
    return WaterBox(getattr(app, request.param))


@pytest.fixture(scope="module")
def vacuum():
    return WaterBox(app.NoCutoff)


def test_potential_in_its_group(box, potential, kind):
    """Group 5 holds the potential of the chosen atoms, in the caller's order, and no more."""
    mixed = potential.createMixedSystem(box.topology, box.system, ATOMS, force=kind, forceGroup=5)
    energy, forces = evaluate(box.context(mixed), 1 << 5)
    expected_energy, expected_forces = expected(small_potential(), box.frame(), ATOMS)
    assert energy == pytest.approx(expected_energy, rel=1e-9)
    np.testing.assert_allclose(forces, expected_forces, atol=1e-9 * np.abs(expected_forces).max())


def test_decomposition(vacuum, potential, kind):
    """mixed = everything by force field - chosen by force field + chosen by potential."""
    mixed = potential.createMixedSystem(vacuum.topology, vacuum.system, ATOMS, force=kind)
    everything = evaluate(vacuum.context(vacuum.system))
    modeller = app.Modeller(vacuum.topology, vacuum.positions)
    chosen = set(ATOMS)
    modeller.delete([atom for atom in vacuum.topology.atoms() if atom.index not in chosen])
    alone = vacuum.forcefield.createSystem(modeller.topology, rigidWater=False)
    context = openmm.Context(
        alone, openmm.VerletIntegrator(1.0), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(modeller.positions)
    part_energy, part_forces = evaluate(context)
    potential_energy, reference = expected(small_potential(), vacuum.frame(), ATOMS)
    reference += everything[1]
    reference[sorted(ATOMS)] -= part_forces
    energy, forces = evaluate(vacuum.context(mixed))
    assert energy == pytest.approx(everything[0] - part_energy + potential_energy, abs=1e-4)
    np.testing.assert_allclose(forces, reference, atol=1e-4 * np.abs(reference).max())


def test_interpolation(box, potential, kind):
    periodic = box.system.usesPeriodicBoundaryConditions()
    mixed = potential.createMixedSystem(box.topology, box.system, ATOMS, force=kind)
    between = potential.createMixedSystem(
        box.topology, box.system, ATOMS, interpolate=True, force=kind, forceGroup=5
    )
    mm_energy, mm_forces = evaluate(box.context(box.system))
    ml_energy, ml_forces = evaluate(box.context(mixed))
    size = np.abs(ml_forces).max()
    full = evaluate(box.context(between), 1 << 5)
    ends = [evaluate(box.context(between, lambda_interpolate=value)) for value in (0.0, 1.0)]
    assert ends[1][0] == pytest.approx(ml_energy, rel=1e-12)
    np.testing.assert_allclose(ends[1][1], ml_forces, atol=1e-9 * size)
    # at the other end openmm-ml replaces PME's truncated pairs among the chosen atoms by full ones
    assert ends[0][0] == pytest.approx(mm_energy, abs=0.02 if periodic else 1e-8)
    np.testing.assert_allclose(ends[0][1], mm_forces, atol=1e-3 * size if periodic else 1e-6)
    for value in (0.0, 0.3, 1.0):
        context = box.context(between, lambda_interpolate=value)
        energy, forces = evaluate(context)
        assert energy == pytest.approx(value * ends[1][0] + (1 - value) * ends[0][0], rel=1e-12)
        np.testing.assert_allclose(
            forces, value * ends[1][1] + (1 - value) * ends[0][1], atol=1e-9 * size
        )
        group_energy, group_forces = evaluate(context, 1 << 5)
        assert group_energy == pytest.approx(value * full[0], rel=1e-12)
        np.testing.assert_allclose(group_forces, value * full[1], atol=1e-9 * size)
        assert energy_derivative(context) == pytest.approx(ends[1][0] - ends[0][0], rel=1e-12)
        assert context.getParameter("lambda_interpolate") == value
        if kind == "torch":
            state = context.getState(parameterDerivatives=True, energy=True)
            derivative = state.getEnergyParameterDerivatives()["lambda_interpolate"]
            assert derivative == pytest.approx(ends[1][0] - ends[0][0], rel=1e-12)


def test_the_network_rests_at_lambda_zero(vacuum, potential, monkeypatch):
    from openmm_nequip.md.module import OpenMMModule

    between = potential.createMixedSystem(
        vacuum.topology, vacuum.system, ATOMS, interpolate=True, force="python"
    )
    context = vacuum.context(between, lambda_interpolate=0.0)
    calls = []
    forward = OpenMMModule.forward
    monkeypatch.setattr(OpenMMModule, "forward", lambda *a: calls.append(1) or forward(*a))
    evaluate(context)
    assert not calls
    context.setParameter("lambda_interpolate", 0.1)
    evaluate(context)
    assert calls


def test_long_range_choice(box, potential):
    """The potential ends at its cutoff, unless the user says otherwise."""
    arguments = (box.topology, box.system, ATOMS)
    default = potential.createMixedSystem(*arguments)
    local = potential.createMixedSystem(*arguments, mlLongRange=False)
    assert evaluate(box.context(default))[0] == evaluate(box.context(local))[0]
    if box.system.usesPeriodicBoundaryConditions():
        reaching = potential.createMixedSystem(*arguments, mlLongRange=True)
        difference = evaluate(box.context(reaching))[0] - evaluate(box.context(local))[0]
        assert abs(difference) > 1e-3


def test_constraints_and_info(vacuum, potential):
    rigid = vacuum.forcefield.createSystem(vacuum.topology, rigidWater=True)
    before = rigid.getNumConstraints()
    info = potential.createMixedSystem(vacuum.topology, rigid, ATOMS, returnInfo=True)
    assert info["system"].getNumConstraints() == before - 6
    assert info["oldToNew"] == list(range(rigid.getNumParticles()))
    kept = potential.createMixedSystem(vacuum.topology, rigid, ATOMS, removeConstraints=False)
    assert kept.getNumConstraints() == before


def test_not_periodic_if_the_force_field_is_not(vacuum, potential):
    """A box in the topology does not make images of the chosen atoms."""
    assert vacuum.topology.getPeriodicBoxVectors() is not None
    mixed = potential.createMixedSystem(vacuum.topology, vacuum.system, ATOMS)
    assert not mixed.usesPeriodicBoundaryConditions()


def capped_methyl(potential, **keywords):
    """Half an ethane as region: the System, and positions (nm) with those of the link atom."""
    import ase.build

    topology = app.Topology()
    residue = topology.addResidue("ETH", topology.addChain())
    symbols = ["C", "C"] + ["H"] * 6
    atoms = [
        topology.addAtom(f"{symbol}{k}", app.Element.getBySymbol(symbol), residue)
        for k, symbol in enumerate(symbols)
    ]
    for a, b in [(0, 1), (0, 2), (0, 3), (0, 4), (1, 5), (1, 6), (1, 7)]:
        topology.addBond(atoms[a], atoms[b])
    positions = ase.build.molecule("C2H6").positions
    if np.linalg.norm(positions[0] - positions[2]) > np.linalg.norm(positions[1] - positions[2]):
        positions = positions[[1, 0, *range(2, 8)]]  # whatever ASE's order is
    system = openmm.System()
    for atom in atoms:
        system.addParticle(atom.element.mass)
    bonds = openmm.HarmonicBondForce()
    for a, b in topology.bonds():
        bonds.addBond(a.index, b.index, 0.12, 1000.0)
    system.addForce(bonds)
    info = potential.createMixedSystem(
        topology, system, [0, 2, 3, 4], forceGroup=5, returnInfo=True,
        atomTypes=["C", "H", "H", "H"], **keywords,
    )  # fmt: skip
    context = reference_context(info["system"], np.vstack([positions, np.zeros(3)]) * NM)
    context.computeVirtualSites()
    return info["system"], context.getState(positions=True).getPositions(asNumpy=True)._value


def reference_context(system, positions):
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.0005), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(positions)
    return context


def check_forces(context, atoms, size=2e-5):
    """Compare forces with the energy's change along random displacements of the atoms, nm."""
    positions = context.getState(positions=True).getPositions(asNumpy=True)._value
    _, forces = evaluate(context)
    rng = np.random.default_rng(0)
    for _ in range(3):
        step = np.zeros_like(positions)
        step[atoms] = size * rng.normal(size=(len(atoms), 3))
        energies = []
        for sign in (1, -1):
            context.setPositions(positions + sign * step)
            context.computeVirtualSites()
            energies.append(evaluate(context)[0])
        expected_change = -2 * (forces * step).sum()
        scale = np.linalg.norm(forces[atoms]) * np.linalg.norm(step)
        assert energies[0] - energies[1] == pytest.approx(expected_change, abs=1e-4 * scale)
    context.setPositions(positions)


@pytest.mark.parametrize("flexible", [True, False])
def test_at_lambda_zero_constrained_bonds_have_their_energy(vacuum, potential, flexible):
    """Constraints go from the region; without bond terms it would fly apart."""
    constrained = vacuum.forcefield.createSystem(
        vacuum.topology, rigidWater=True, flexibleConstraints=flexible
    )
    if not flexible:
        with pytest.raises(InputError, match=r"O of residue .*H1 of residue .*flexibleConstraints"):
            potential.createMixedSystem(vacuum.topology, constrained, ATOMS, interpolate=True)
        return
    mixed = potential.createMixedSystem(vacuum.topology, constrained, ATOMS, interpolate=True)
    free = vacuum.forcefield.createSystem(vacuum.topology, rigidWater=False)
    energy, forces = evaluate(vacuum.context(mixed, lambda_interpolate=0.0))
    reference, expected_forces = evaluate(vacuum.context(free))
    assert energy == pytest.approx(reference, rel=1e-9)
    np.testing.assert_allclose(forces[ATOMS], expected_forces[ATOMS], atol=1e-6)


def test_link_atoms(potential, kind):
    """A cut bond is capped by hydrogen, which the potential sees."""
    mixed, positions = capped_methyl(potential, force=kind)
    assert mixed.getNumParticles() == 9
    assert mixed.isVirtualSite(8)
    frame = Frame(np.array([6, 6] + [1] * 7), positions / NM)
    energy, _ = evaluate(reference_context(mixed, positions), 1 << 5)
    reference, _ = expected(small_potential(), frame, [0, 2, 3, 4, 8])
    assert energy == pytest.approx(reference, rel=1e-9)


def test_forces_are_derivatives_with_link_atoms_too(potential, kind):
    """The hydrogen on the cut bond passes its force on to both carbons."""
    mixed, positions = capped_methyl(potential, force=kind)
    check_forces(reference_context(mixed, positions), list(range(8)))


def test_link_atoms_at_a_distance_of_choice(potential):
    """openmm-ml's own keyword; the hydrogen lies on the line between the carbons."""
    _, positions = capped_methyl(potential, linkAtomDistances=[(1, 0, 0.12 * unit.nanometer)])
    along = (positions[1] - positions[0]) / np.linalg.norm(positions[1] - positions[0])
    np.testing.assert_allclose(positions[8], positions[0] + 0.12 * along, atol=1e-9)


def test_interpolation_with_link_atoms(potential, kind):
    mixed, positions = capped_methyl(potential, force=kind)
    between, _ = capped_methyl(potential, force=kind, interpolate=True)
    ml_energy, ml_forces = evaluate(reference_context(mixed, positions))
    context = reference_context(between, positions)
    context.setParameter("lambda_interpolate", 0.0)
    mm_energy, mm_forces = evaluate(context)
    bonds = [(0, k) for k in range(1, 5)] + [(1, k) for k in range(5, 8)]
    lengths = [np.linalg.norm(positions[a] - positions[b]) for a, b in bonds]
    assert mm_energy == pytest.approx(sum(500 * (r - 0.12) ** 2 for r in lengths), rel=1e-6)
    for value in (0.4, 1.0):
        context.setParameter("lambda_interpolate", value)
        energy, forces = evaluate(context)
        assert energy == pytest.approx((1 - value) * mm_energy + value * ml_energy, rel=1e-9)
        expected_forces = (1 - value) * mm_forces + value * ml_forces
        np.testing.assert_allclose(forces, expected_forces, atol=1e-6)
    check_forces(context, list(range(8)))


def test_bad_input(box, potential):
    for atoms, message in [([], "no atoms"), ([3, 3], "twice"), ([10**6], "does not exist")]:
        with pytest.raises(InputError, match=message):
            potential.createMixedSystem(box.topology, box.system, atoms)
    with pytest.raises(InputError, match=r"'interpolat' \(did you mean 'interpolate'"):
        potential.createMixedSystem(box.topology, box.system, ATOMS, interpolat=True)
    with pytest.raises(InputError, match=r"the System has 0 particles and the topology \d+ atoms"):
        potential.createMixedSystem(box.topology, openmm.System(), ATOMS)


def test_a_registered_embedding_is_taken_by_its_name(vacuum, potential, kind, monkeypatch):
    class Beside(Embedding):
        """The potential on top of the force field."""

        def createMixedSystem(self, potential, topology, system, atoms, forceGroup, *_, **args):
            args.pop("returnInfo")
            mixed = copy.deepcopy(system)
            potential.addForces(topology, mixed, atoms, forceGroup, **args)
            return mixed

    factory = SimpleNamespace(createEmbedding=lambda name: Beside())
    monkeypatch.setitem(MLPotential._embeddingFactories, "beside", factory)
    assert "beside" in potential.getSupportedEmbeddings()
    mixed = potential.createMixedSystem(
        vacuum.topology, vacuum.system, ATOMS, embedding="beside", forceGroup=5, force=kind
    )
    context = vacuum.context(mixed)
    frame = vacuum.frame()
    topology_is_periodic = Frame(frame.numbers, frame.positions, np.eye(3) * 16.0, (True,) * 3)
    reference, _ = expected(small_potential(), topology_is_periodic, ATOMS)
    assert evaluate(context, 1 << 5)[0] == pytest.approx(reference, rel=1e-9)
    both = reference + evaluate(vacuum.context(vacuum.system))[0]
    assert evaluate(context)[0] == pytest.approx(both, rel=1e-9)


def test_other_embeddings(vacuum, potential):
    """They call addForces with keywords that are theirs, and copy what it adds."""
    system = openmm.System()
    potential._impl.addForces(vacuum.topology, system, ATOMS, 2, theirKeyword=1)
    force = copy.deepcopy(system.getForce(0))
    assert force.getForceGroup() == 2
    full = openmm.System()
    for _ in range(vacuum.topology.getNumAtoms()):
        full.addParticle(1.0)
    outer = openmm.CustomCVForce("inner")
    outer.addCollectiveVariable("inner", force)
    full.addForce(outer)
    frame = vacuum.frame()
    topology_is_periodic = Frame(frame.numbers, frame.positions, np.eye(3) * 16.0, (True,) * 3)
    energy, _ = evaluate(vacuum.context(full))
    reference, _ = expected(small_potential(), topology_is_periodic, ATOMS)
    assert energy == pytest.approx(reference, rel=1e-9)
    with pytest.raises(InputError, match="use force='python'"):
        potential._impl.addForces(vacuum.topology, openmm.System(), ATOMS, 0, force="torch")


@pytest.fixture(scope="module", params=[CUBE, DODECAHEDRON], ids=["cube", "dodecahedron"])
def pme(request):
    """The box with an Ewald sum so exact, a cutoff so smooth, that energies show little else."""
    box = WaterBox(app.PME, vectors=request.param)
    for force in box.system.getForces():
        if isinstance(force, openmm.NonbondedForce):
            force.setEwaldErrorTolerance(1e-7)
            force.setUseSwitchingFunction(True)
            force.setSwitchingDistance(0.6)
    return box


@pytest.fixture(scope="module")
def neighbors(pme):
    """Two waters that see each other across the face of the box, and the shift between them."""
    oxygen = pme.frame().positions[::3]
    cell = pme.vectors / NM
    vectors = oxygen[None] - oxygen[:, None]
    shifts = -np.round(vectors @ np.linalg.inv(cell)) @ cell
    distances = np.linalg.norm(vectors + shifts, axis=-1)
    crossing = np.where(shifts.any(-1) & (distances > 0), distances, np.inf)
    first, second = np.unravel_index(np.argmin(crossing), crossing.shape)
    atoms = [3 * first + 1, 3 * first, 3 * first + 2, *(3 * second + np.arange(3))]
    return [int(atom) for atom in atoms], shifts[first, second] * NM


def region_by_force_field(box, atoms, positions):
    """Energy and forces of the atoms alone, without a box, by the force field."""
    modeller = app.Modeller(box.topology, positions * unit.nanometer)
    modeller.delete([atom for atom in box.topology.atoms() if atom.index not in set(atoms)])
    alone = box.forcefield.createSystem(modeller.topology, rigidWater=False)
    return evaluate(reference_context(alone, modeller.positions))


def joined(box, neighbors):
    """Positions, nm, with the two waters next to each other."""
    atoms, shift = neighbors
    positions = np.array(box.positions.value_in_unit(unit.nanometer))
    positions[atoms[3:]] += shift
    return positions


def test_decomposition_with_pme(pme, neighbors, potential, kind):
    """The potential replaces what the two waters have with each other, and not with images."""
    atoms, _ = neighbors
    positions = joined(pme, neighbors)
    mixed = potential.createMixedSystem(pme.topology, pme.system, atoms, force=kind)
    part_energy, part_forces = region_by_force_field(pme, atoms, positions)
    everything = evaluate(pme.context(pme.system))
    potential_energy, reference = expected(small_potential(), pme.frame(), atoms)
    reference += everything[1]
    reference[sorted(atoms)] -= part_forces
    energy, forces = evaluate(pme.context(mixed))
    assert abs(part_energy) > 5  # else a factor of 1.001 in it would not show
    assert energy == pytest.approx(everything[0] - part_energy + potential_energy, abs=1e-3)
    np.testing.assert_allclose(forces, reference, atol=0.05)


def test_forces_are_derivatives_with_pme(pme, neighbors, potential, kind):
    atoms, _ = neighbors
    mixed = potential.createMixedSystem(pme.topology, pme.system, atoms, force=kind)
    context = pme.context(mixed)
    check_forces(context, atoms)
    check_forces(context, [k for k in range(3 * pme.waters) if k not in atoms])


def test_wrapped_molecules_and_a_shifted_box_change_nothing(pme, neighbors, potential, kind):
    atoms, _ = neighbors
    mixed = potential.createMixedSystem(pme.topology, pme.system, atoms, force=kind, forceGroup=5)
    context = pme.context(mixed)
    energy, forces = evaluate(context)
    ml_energy, _ = evaluate(context, 1 << 5)
    rng = np.random.default_rng(0)
    positions = np.array(pme.positions.value_in_unit(unit.nanometer))
    molecules_away = np.repeat(rng.integers(-2, 3, (pme.waters, 3)) @ pme.vectors, 3, axis=0)
    atoms_away = np.zeros_like(positions)
    # no bond of the force field is left in this region
    atoms_away[atoms] = rng.integers(-2, 3, (6, 3)) @ pme.vectors
    shifted = molecules_away + np.array([0.37, -1.13, 0.71])
    for change in (molecules_away, atoms_away, shifted):
        context.setPositions(positions + change)
        moved_energy, moved_forces = evaluate(context)
        assert evaluate(context, 1 << 5)[0] == pytest.approx(ml_energy, rel=1e-10)
        assert moved_energy == pytest.approx(energy, abs=1e-3)
        np.testing.assert_allclose(moved_forces, forces, atol=0.05)


def test_energy_in_the_volume(pme, neighbors, potential, kind):
    """What a barostat samples: the derivative in the volume, with the molecules kept as they are.

    That of the mixed energy is that of its parts, the potential's from its stress.
    """
    atoms, _ = neighbors
    positions = joined(pme, neighbors)
    mixed = potential.createMixedSystem(pme.topology, pme.system, atoms, force=kind)
    barostat = openmm.MonteCarloBarostat(1.0, 300.0)
    mixed.addForce(barostat)
    centers = positions.reshape(-1, 3, 3).mean(axis=1).repeat(3, axis=0)  # as OpenMM has them

    volume = float(np.linalg.det(pme.vectors))

    def slope(energy_at, step=2e-5):
        volumes, energies = [], []
        for scale in (1 - step, 1 + step):
            volumes.append(volume * scale**3)
            energies.append(energy_at(positions + centers * (scale - 1), pme.vectors * scale))
        return np.diff(energies)[0] / np.diff(volumes)[0]

    def energy_of(context):
        def at(points, vectors):
            context.setPeriodicBoxVectors(*vectors)
            context.setPositions(points)
            return evaluate(context)[0]

        return at

    context = pme.context(mixed)
    found = slope(energy_of(context))
    without = slope(energy_of(pme.context(pme.system)))
    alone = slope(lambda points, vectors: region_by_force_field(pme, atoms, points)[0])
    frame = pme.frame()
    part = Frame(frame.numbers[atoms], positions[atoms] / NM, frame.cell, frame.pbc)
    model = small_potential()
    output = model(model.to_graph(part), stress=True)
    affine = float(output.stress[0].trace()) / 3 * KJ_PER_MOL / NM**3
    inside = (positions - centers)[atoms] * expected(model, frame, atoms)[1][atoms]
    assert found == pytest.approx(without - alone + affine + inside.sum() / (3 * volume), abs=2e-3)
    # OpenMM's barostat finds the same in atoms at rest; 1 kJ/mol/nm³ are 16.6 bar
    assert len(context.getMolecules()) == pme.waters
    context.setPeriodicBoxVectors(*pme.vectors)
    context.setPositions(positions)
    pressure = barostat.computeCurrentPressure(context).value_in_unit(unit.bar)
    assert pressure == pytest.approx(-found * 16.6053907, rel=2e-4)


def test_two_regions_with_two_potentials(vacuum, potential, kind, tmp_path):
    small_potential(num_layers=1).save(tmp_path / "other.safetensors")
    other = MLPotential("nequip", modelPath=tmp_path / "other.safetensors")
    first, second = [3, 4, 5], [11, 10, 9, 30, 31, 32]
    one = potential.createMixedSystem(
        vacuum.topology, vacuum.system, first, force=kind, forceGroup=5
    )
    both = other.createMixedSystem(vacuum.topology, one, second, force="python", forceGroup=6)
    context = vacuum.context(both)
    models = [small_potential(), small_potential(num_layers=1)]
    parts = [expected(m, vacuum.frame(), a) for m, a in zip(models, (first, second), strict=True)]
    for group, (energy, forces) in zip((5, 6), parts, strict=True):
        found = evaluate(context, 1 << group)
        assert found[0] == pytest.approx(energy, rel=1e-9)
        np.testing.assert_allclose(found[1], forces, atol=1e-9 * np.abs(forces).max())
    positions = np.array(vacuum.positions.value_in_unit(unit.nanometer))
    removed = sum(region_by_force_field(vacuum, a, positions)[0] for a in (first, second))
    whole = evaluate(vacuum.context(vacuum.system))[0]
    added = sum(energy for energy, _ in parts)
    assert evaluate(context)[0] == pytest.approx(whole - removed + added, abs=1e-4)
    with pytest.raises(InputError, match="atom 4 has a potential already"):
        other.createMixedSystem(vacuum.topology, one, [4, 9], force=kind)


def test_two_regions_are_interpolated_together(vacuum, potential, kind):
    system = vacuum.system
    for atoms in ([3, 4, 5], [11, 10, 9]):
        system = potential.createMixedSystem(
            vacuum.topology, system, atoms, force=kind, interpolate=True
        )
    mixed = potential.createMixedSystem(vacuum.topology, vacuum.system, [3, 4, 5])
    mixed = potential.createMixedSystem(vacuum.topology, mixed, [11, 10, 9])
    ends = evaluate(vacuum.context(vacuum.system))[0], evaluate(vacuum.context(mixed))[0]
    context = vacuum.context(system, lambda_interpolate=0.3)
    assert evaluate(context)[0] == pytest.approx(0.7 * ends[0] + 0.3 * ends[1], rel=1e-12)
    assert energy_derivative(context) == pytest.approx(ends[1] - ends[0], rel=1e-12)
    if kind == "torch":
        state = context.getState(parameterDerivatives=True)
        derivative = state.getEnergyParameterDerivatives()["lambda_interpolate"]
        assert derivative == pytest.approx(ends[1] - ends[0], rel=1e-12)


def test_a_derivative_needs_an_interpolated_system(vacuum):
    with pytest.raises(InputError, match="interpolate=True"):
        energy_derivative(vacuum.context(vacuum.system))


def test_atoms_from_a_generator(vacuum, potential):
    rigid = vacuum.forcefield.createSystem(vacuum.topology, rigidWater=True)
    arguments = (vacuum.topology, rigid)
    listed = potential.createMixedSystem(*arguments, ATOMS, forceGroup=5)
    generated = potential.createMixedSystem(*arguments, (a for a in ATOMS), forceGroup=5)
    assert generated.getNumConstraints() == listed.getNumConstraints()
    energies = [evaluate(vacuum.context(system))[0] for system in (listed, generated)]
    assert energies[0] == energies[1]
    kept = potential.createMixedSystem(*arguments, iter(ATOMS), removeConstraints=False)
    assert kept.getNumConstraints() == rigid.getNumConstraints()


def test_a_region_remains_a_molecule(pme, potential):
    """To a barostat, and to whoever wraps molecules into the box."""
    mixed = potential.createMixedSystem(pme.topology, pme.system, ATOMS)
    molecules = pme.context(mixed).getMolecules()
    assert sorted(map(sorted, molecules)) == [
        [3 * k, 3 * k + 1, 3 * k + 2] for k in range(pme.waters)
    ]


@pytest.mark.parametrize(("charge", "is_meant"), [(0.0, True), (0.004, True), (2.0, False)])
def test_the_force_field_tells_the_charge(vacuum, tmp_path, charge, is_meant):
    """A doubly charged molecule has as many electrons, modulo two, as a neutral one."""
    model = small_potential()
    model.metadata["domain"] = {"elements": ["H", "C", "O"], "charge": 0, "multiplicity": 1}
    model.save(tmp_path / "neutral.safetensors")
    neutral = MLPotential("nequip", modelPath=tmp_path / "neutral.safetensors")
    system = copy.deepcopy(vacuum.system)
    for force in system.getForces():
        if isinstance(force, openmm.NonbondedForce):
            own, sigma, epsilon = force.getParticleParameters(3)
            force.setParticleParameters(3, own._value + charge, sigma, epsilon)
    if is_meant:
        neutral.createMixedSystem(vacuum.topology, system, [3, 4, 5])
    else:
        with pytest.raises(InputError, match=r"charge 0, and the atoms have \+2 in all"):
            neutral.createMixedSystem(vacuum.topology, system, [3, 4, 5])


def test_water_with_extra_sites(potential):
    """The sites have no element, which openmm-ml does not expect."""
    box = WaterBox(app.NoCutoff, "tip4pew")
    region = [0, 1, 2]
    info = potential.createMixedSystem(
        box.topology, box.system, region, forceGroup=5, returnInfo=True
    )
    for topology in (box.topology, info["topology"]):
        assert [atom.element for atom in topology.atoms()][:8:4] == [app.element.oxygen] * 2
        assert [atom.element for atom in topology.atoms()][3::4] == [None] * (
            box.topology.getNumAtoms() // 4
        )
    frame = Frame(np.array([8, 1, 1]), np.array(box.positions.value_in_unit(unit.angstrom))[:3])
    energy, _ = evaluate(box.context(info["system"]), 1 << 5)
    assert energy == pytest.approx(expected(small_potential(), frame)[0], rel=1e-9)


@pytest.mark.parametrize("bonded", [False, True])
def test_sites_belong_to_their_water(potential, bonded):
    """What is left of the force field is its energy less that of the region by itself."""
    box = WaterBox(app.NoCutoff, "tip4pew")
    topology = copy.deepcopy(box.topology)
    if bonded:  # as AMBER's files have it
        for residue in topology.residues():
            oxygen, *_, site = residue.atoms()
            topology.addBond(oxygen, site)
    region = [0, 1, 2, 8, 9, 10]
    mixed = potential.createMixedSystem(topology, box.system, region, forceGroup=5)
    assert mixed.getNumParticles() == box.system.getNumParticles()

    modeller = app.Modeller(box.topology, box.positions)
    kept = {0, 2}
    modeller.delete([r for r in modeller.topology.residues() if r.index not in kept])
    alone = box.forcefield.createSystem(modeller.topology, constraints=None, rigidWater=False)
    context = openmm.Context(
        alone, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(modeller.positions)
    expected_energy = evaluate(box.context(box.system))[0] - evaluate(context)[0]
    assert evaluate(box.context(mixed), 1 << 0)[0] == pytest.approx(expected_energy, abs=1e-6)


def custom_forces(first, second, outside):
    distance = openmm.CustomBondForce("100 * (r - 0.3)^2")
    distance.addBond(first, second, [])
    compound = openmm.CustomCompoundBondForce(3, "10 * angle(p1, p2, p3)^2")
    compound.addBond([first, second, outside], [])
    groups = openmm.CustomCentroidBondForce(2, "50 * distance(g1, g2)")
    groups.addBond([groups.addGroup([first]), groups.addGroup([second, outside])], [])
    torsion = openmm.CustomTorsionForce("5 * cos(theta)")
    torsion.addTorsion(first, outside, second, outside + 1, [])
    return [distance, compound, groups, torsion]


@pytest.mark.parametrize("interpolate", [False, True])
def test_restraints_of_the_users_remain(vacuum, potential, interpolate):
    region = [*ATOMS, *(atom + 12 for atom in ATOMS)]
    first, second, outside = region[0], region[-1], 30
    system = copy.deepcopy(vacuum.system)
    for group, force in enumerate(custom_forces(first, second, outside), start=10):
        force.setForceGroup(group)
        system.addForce(force)
    mixed = potential.createMixedSystem(
        vacuum.topology, system, region, interpolate=interpolate, force="python"
    )
    before, after = vacuum.context(system), vacuum.context(mixed)
    for group in range(10, 14):
        wanted, forces = evaluate(before, 1 << group)
        assert wanted != 0
        found = evaluate(after, 1 << group)
        assert found[0] == pytest.approx(wanted, rel=1e-12)
        np.testing.assert_allclose(found[1], forces, atol=1e-9)


def test_nonbonded_forces_that_cannot_be_divided_are_refused(vacuum, potential):
    for outer in (openmm.ATMForce(0, 0, 0, 0, 0, 0, 0, 0, 1), openmm.CustomCVForce("v")):
        system = copy.deepcopy(vacuum.system)
        k = next(k for k, f in enumerate(system.getForces()) if "Nonbonded" in f.getName())
        inner = copy.deepcopy(system.getForce(k))
        system.removeForce(k)
        if isinstance(outer, openmm.CustomCVForce):
            outer.addCollectiveVariable("v", inner)
        else:
            outer.addForce(inner)
        system.addForce(outer)
        with pytest.raises(InputError, match=r"a NonbondedForce within a (ATM|CustomCV)Force"):
            potential.createMixedSystem(vacuum.topology, system, ATOMS)
    system = copy.deepcopy(vacuum.system)
    force = next(f for f in system.getForces() if isinstance(f, openmm.NonbondedForce))
    force.addGlobalParameter("x", 1.0)
    pairs = [force.getExceptionParameters(k)[:2] for k in range(force.getNumExceptions())]
    inside = next(k for k, pair in enumerate(pairs) if set(pair) <= set(ATOMS))
    force.addExceptionParameterOffset("x", inside, 1.0, 0.0, 0.0)
    with pytest.raises(InputError, match="depend on a parameter"):
        potential.createMixedSystem(vacuum.topology, system, ATOMS)


def test_interpolated_regions_have_one_kind_of_force(vacuum, potential):
    second = [atom + 12 for atom in ATOMS]
    first = potential.createMixedSystem(
        vacuum.topology, vacuum.system, ATOMS, interpolate=True, force="python"
    )
    both = potential.createMixedSystem(vacuum.topology, first, second, interpolate=True)
    assert sum(isinstance(force, openmm.PythonForce) for force in both.getForces()) == 2
    if not why_not("torch"):
        with pytest.raises(InputError, match="in a force of kind 'python': give all of them"):
            potential.createMixedSystem(
                vacuum.topology, first, second, interpolate=True, force="torch"
            )
