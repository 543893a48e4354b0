"""Mixed systems: the potential on some atoms of a conventional force field."""

import copy

import numpy as np
import openmm
import pytest
from openmm import app, unit
from openmmml import MLPotential

from openmm_nequip.errors import InputError
from openmm_nequip.md.probe import why_not
from openmm_nequip.units import NM

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


class WaterBox:
    """62 TIP3P waters at random."""

    def __init__(self, method):
        self.forcefield = app.ForceField("amber14/tip3p.xml")
        modeller = app.Modeller(app.Topology(), [])
        modeller.addSolvent(self.forcefield, boxSize=openmm.Vec3(1.6, 1.6, 1.6))
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
        return Frame(numbers, positions, np.eye(3) * 16.0 if periodic else None, (periodic,) * 3)


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


def test_link_atoms(potential, kind):
    """A cut bond is capped by hydrogen, which the potential sees."""
    topology = app.Topology()
    residue = topology.addResidue("ETH", topology.addChain())
    symbols = ["C", "C"] + ["H"] * 6
    atoms = [
        topology.addAtom(f"{symbol}{k}", app.Element.getBySymbol(symbol), residue)
        for k, symbol in enumerate(symbols)
    ]
    for a, b in [(0, 1), (0, 2), (0, 3), (0, 4), (1, 5), (1, 6), (1, 7)]:
        topology.addBond(atoms[a], atoms[b])
    import ase.build

    positions = ase.build.molecule("C2H6").positions
    system = openmm.System()
    for atom in atoms:
        system.addParticle(atom.element.mass)
    bonds = openmm.HarmonicBondForce()
    for a, b in topology.bonds():
        bonds.addBond(a.index, b.index, 0.12, 1000.0)
    system.addForce(bonds)
    carbon = min(range(2), key=lambda k: np.linalg.norm(positions[k] - positions[2]))
    methyl = [carbon, 2, 3, 4]
    if carbon == 1:  # keep bonds and coordinates consistent whatever ASE's order is
        positions = positions[[1, 0, *range(2, 8)]]
        methyl = [0, 2, 3, 4]
    types = ["C", "H", "H", "H"]
    info = potential.createMixedSystem(
        topology, system, methyl, force=kind, forceGroup=5, returnInfo=True, atomTypes=types
    )
    mixed = info["system"]
    assert mixed.getNumParticles() == 9
    assert mixed.isVirtualSite(8)
    context = openmm.Context(
        mixed, openmm.VerletIntegrator(1.0), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(np.vstack([positions, np.zeros(3)]) * NM)
    context.computeVirtualSites()
    all_positions = (
        context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.angstrom)
    )
    frame = Frame(np.array([6, 6] + [1] * 7), np.array(all_positions))
    energy, _ = evaluate(context, 1 << 5)
    assert energy == pytest.approx(expected(small_potential(), frame, [*methyl, 8])[0], rel=1e-9)


def test_bad_input(box, potential):
    for atoms, message in [([], "no atoms"), ([3, 3], "twice"), ([10**6], "does not exist")]:
        with pytest.raises(InputError, match=message):
            potential.createMixedSystem(box.topology, box.system, atoms)
    with pytest.raises(InputError, match=r"'interpolat' \(did you mean 'interpolate'"):
        potential.createMixedSystem(box.topology, box.system, ATOMS, interpolat=True)


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
