"""What is wrong with a simulation is said before its first step, by name."""

import numpy as np
import openmm
import pytest
from openmm import app, unit

from openmm_nequip.errors import InputError
from openmm_nequip.md.checks import check_run, find_problems, long_bonds, long_cutoffs, torn_bonds
from openmm_nequip.md.region import select


def water_and_methanol(**changes):
    """A methanol in eight waters, without a potential: topology, System and positions (nm)."""
    forcefield = app.ForceField("amber14/tip3p.xml")
    topology = app.Topology()
    chain = topology.addChain()
    positions = []

    def add(name, symbols, points, bonds, origin):
        residue = topology.addResidue(name, chain)
        atoms = [
            topology.addAtom(f"{symbol}{k + 1}" if name != "HOH" else ("O", "H1", "H2")[k],
                             app.Element.getBySymbol(symbol), residue)
            for k, symbol in enumerate(symbols)
        ]  # fmt: skip
        for a, b in bonds:
            topology.addBond(atoms[a], atoms[b])
        positions.extend(np.array(points) + origin)

    water = [[0, 0, 0], [0.09572, 0, 0], [-0.02399872, 0.09266272, 0]]
    for corner in np.ndindex(2, 2, 2):
        add("HOH", "OHH", water, [(0, 1), (0, 2)], 0.35 * np.array(corner))
    system = forcefield.createSystem(topology, rigidWater=changes.pop("rigid", True))
    methanol = [[0, 0, 0], [0.143, 0, 0], [-0.036, 0.103, 0], [-0.036, -0.05, 0.09],
                [-0.036, -0.05, -0.09], [0.175, 0.09, 0]]  # fmt: skip
    add("MOH", "COHHHH", methanol, [(0, 1), (0, 2), (0, 3), (0, 4), (1, 5)], [0.9, 0.1, 0.1])
    for atom in list(topology.atoms())[24:]:
        system.addParticle(atom.element.mass)
        for force in system.getForces():
            if isinstance(force, openmm.NonbondedForce):
                force.addParticle(0.0, 0.3, 0.0)
    return topology, system, np.array(positions)


def simulation_of(topology, system, positions, timestep=0.5):
    integrator = openmm.VerletIntegrator(timestep * unit.femtosecond)
    platform = openmm.Platform.getPlatformByName("Reference")
    simulation = app.Simulation(topology, system, integrator, platform)
    simulation.context.setPositions(positions)
    return simulation


def test_a_sound_simulation_passes():
    simulation = simulation_of(*water_and_methanol())
    check_run(simulation, select(simulation.topology, "resname MOH"))


@pytest.mark.parametrize(
    ("mass", "timestep", "is_fine"),
    [(1.008, 1.0, True), (1.008, 1.05, False), (4.0, 1.99, True), (4.0, 2.05, False)],
)
def test_flexible_hydrogens_take_short_steps_unless_they_are_heavy(mass, timestep, is_fine):
    topology, system, positions = water_and_methanol()
    for atom in topology.atoms():
        if atom.residue.name == "MOH" and atom.element.symbol == "H":
            system.setParticleMass(atom.index, mass)
    problems = find_problems(simulation_of(topology, system, positions, timestep), range(24, 30))
    assert bool(problems) == (not is_fine)
    if problems:
        assert (
            f"a time step of {timestep:g} fs is too long for atom 26 (H3 of residue MOH 9)"
            in (problems[0])
        )


def test_flexible_water_counts_too():
    topology, system, positions = water_and_methanol(rigid=False)
    for k in range(24, 30):
        system.setParticleMass(k, 16.0)
    (problem,) = find_problems(simulation_of(topology, system, positions, 2.0), range(24, 30))
    assert "2 fs is too long for atom 1 (H1 of residue HOH 1)" in problem


def test_constraints_inside_the_region():
    topology, system, positions = water_and_methanol()
    system.addConstraint(24, 26, 0.109)
    (problem,) = find_problems(simulation_of(topology, system, positions), range(24, 30))
    assert "1 constraint inside the ML region (atom 24 (C1 of residue MOH 9) and atom 26" in problem


@pytest.mark.parametrize("by", ["topology", "force field", "constraint"])
def test_cut_bonds_need_link_atoms(by):
    topology, system, positions = water_and_methanol()
    region = [24, 26, 27, 28]
    if by != "topology":
        bonds = list(topology.bonds())
        topology._bonds = [bond for bond in bonds if (bond[0].index, bond[1].index) != (24, 25)]
    if by == "force field":
        force = openmm.HarmonicBondForce()
        force.addBond(24, 25, 0.143, 1e5)
        force.addBond(24, 29, 0.2, 0.0)  # holds nothing together
        system.addForce(force)
    if by == "constraint":
        system.addConstraint(24, 25, 0.143)
    (problem,) = find_problems(simulation_of(topology, system, positions), region)
    assert "cuts 1 bond without a link atom (atom 24 (C1 of residue MOH 9) and atom 25" in problem

    site = openmm.LocalCoordinatesSite([24, 25], [1, 0], [-1, 1], [0, 0], [0.1, 0, 0])
    system.setVirtualSite(system.addParticle(0.0), site)
    for force in system.getForces():
        if isinstance(force, openmm.NonbondedForce):
            force.addParticle(0, 1, 0)
    positions = np.vstack([positions, np.zeros(3)])
    simulation = simulation_of(topology, system, positions)
    simulation.context.computeVirtualSites()
    check_run(simulation, region)


def test_springs_between_the_ends_of_an_angle_are_no_bonds():
    """Urey and Bradley's, of CHARMM: the border cuts bonds, not those."""
    topology, system, positions = water_and_methanol()
    force = openmm.HarmonicBondForce()
    force.addBond(24, 29, 0.2, 1e4)  # C and the hydroxyl's H
    system.addForce(force)
    (problem,) = find_problems(simulation_of(topology, system, positions), [24, 26, 27, 28])
    assert "cuts 1 bond without a link atom (atom 24 (C1 of residue MOH 9) and atom 25" in problem


def test_bonds_that_are_far_too_long_are_named():
    topology, _, positions = water_and_methanol()
    assert long_bonds(topology, positions, None) == []
    positions[29] += [0.0, 0.8, 0.0]
    (problem,) = long_bonds(topology, positions, None)
    assert "1 bond of the topology is far too long (atom 25 (O2 of residue MOH 9) and atom 29" in (
        problem
    )
    assert "residues may be missing between them" in problem
    box = np.array([[3.0, 0, 0], [1.0, 2.9, 0], [-1.0, 0.7, 2.8]])
    positions[29] -= [0.0, 0.8, 0.0]
    positions[29] += box[2] - 2 * box[1]  # in another image of the box, which is no distance
    assert long_bonds(topology, positions, box) == []


def test_overlapping_atoms_are_named():
    topology, system, positions = water_and_methanol()
    positions[25] = positions[6] + [0.02, 0, 0]
    problems = find_problems(simulation_of(topology, system, positions), range(24, 30))
    assert problems[0].startswith(
        "1 pair of atoms overlap (atom 6 (O of residue HOH 3) and atom 25 (O2 of residue MOH 9); "
        "the nearest are 0.20 Å apart)"
    )
    # across the face of a box, too
    topology, system, positions = water_and_methanol()
    positions[24:] += [0.0, 0.0, -2.1]
    positions[26] = positions[0] + [0.0, 0.0, 2.98]
    for force in system.getForces():
        if isinstance(force, openmm.NonbondedForce):
            force.setNonbondedMethod(force.CutoffPeriodic)
    system.setDefaultPeriodicBoxVectors(*np.eye(3) * 3.0)
    problems = find_problems(simulation_of(topology, system, positions), range(24, 30))
    assert "atom 0 (O of residue HOH 1) and atom 26" in problems[0]


def test_torn_bonds_are_named():
    topology, system, positions = water_and_methanol()
    assert torn_bonds(system, topology, positions, positions, None) == []
    moved = positions.copy()
    moved[29] += [0.06, 0.06, 0.0]  # the hydrogen atom of the hydroxyl group, 1.8 Å away
    problem = torn_bonds(system, topology, positions, moved, None)[0]
    assert problem.startswith(
        "minimisation has torn 1 bond (atom 25 (O2 of residue MOH 9) and atom 29 (H6"
    )
    assert torn_bonds(system, topology, positions, moved, None, range(24)) == []
    moved[29] = positions[29] + [0.01, 0.02, 0.0]  # stretched
    moved[:3] += [0.0, 0.0, 0.2]  # a molecule that went elsewhere as a whole, across a face
    box = np.eye(3) * 3.0
    moved[0, 2] += 3.0
    assert torn_bonds(system, topology, positions, moved, box) == []
    # two atoms that were too close are none
    near = positions.copy()
    near[29] = near[6] + [0.06, 0.06, 0.0]
    near[28] = near[29] + [0.03, 0.06, 0.0]
    assert torn_bonds(system, topology, near, positions, None) == []


def test_a_cutoff_of_more_than_half_the_box():
    topology, system, positions = water_and_methanol()
    for force in system.getForces():
        if isinstance(force, openmm.NonbondedForce):
            force.setNonbondedMethod(force.CutoffPeriodic)
            force.setCutoffDistance(0.8)
    system.setDefaultPeriodicBoxVectors(*np.eye(3) * 1.7)
    check_run(simulation_of(topology, system, positions), range(24, 30))
    assert long_cutoffs(system, np.eye(3) * 1.601) == []
    problems = long_cutoffs(system, np.eye(3) * 1.599)
    assert "the cutoff of NonbondedForce, 0.8 nm, is more than half the box" in problems[0]


def test_the_largest_force_is_named():
    topology, system, positions = water_and_methanol()
    pull = openmm.CustomExternalForce("-strength*x")
    pull.addPerParticleParameter("strength")
    pull.addParticle(27, [1e5 + 1e4])
    system.addForce(pull)
    simulation = simulation_of(topology, system, positions)
    with pytest.raises(InputError, match=r"force on atom 27 \(H4 of residue MOH 9\) is 1.1e\+05"):
        check_run(simulation, range(24, 30))
    check_run(simulation, range(24, 30), max_force=2e5)


def test_everything_wrong_is_one_line():
    topology, system, positions = water_and_methanol()
    positions[25] = positions[6] + [0.02, 0, 0]
    with pytest.raises(InputError) as error:
        check_run(simulation_of(topology, system, positions, 2.0), [24])
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in ("time step", "overlap", "cuts"))
