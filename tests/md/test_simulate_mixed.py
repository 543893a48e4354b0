"""ML/MM runs as a user meets them: inputs, stages, files, stopping and going on."""

import errno
import io
import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import ase.build
import mdtraj
import numpy as np
import openmm
import pytest
from openmm import app, unit
from rich.console import Console

from openmm_nequip import load
from openmm_nequip.cli.simulate import display
from openmm_nequip.config import parse_config
from openmm_nequip.errors import InputError
from openmm_nequip.md import loop
from openmm_nequip.md.config import SimulationConfig
from openmm_nequip.md.domain import FORCE
from openmm_nequip.md.folder import fingerprints, structure_path
from openmm_nequip.md.inputs import find_files, load_input
from openmm_nequip.md.preparation import build_simulation, ml_group, ml_region
from openmm_nequip.md.protocol import run
from openmm_nequip.md.region import select
from openmm_nequip.md.reporters import TrajectoryWriter
from openmm_nequip.units import KJ_PER_MOL_NM

from .systems import small_potential
from .test_simulate import Killed, Watcher, coordinates, interrupted, killed, rows

METHANE = """<ForceField>
 <AtomTypes><Type name="CH4" class="CH4" element="C" mass="16.043"/></AtomTypes>
 <Residues><Residue name="MET"><Atom name="C" type="CH4"/></Residue></Residues>
 <NonbondedForce coulomb14scale="0.8333333333333334" lj14scale="0.5">
  <Atom type="CH4" charge="0" sigma="0.373" epsilon="1.23"/>
 </NonbondedForce>
</ForceField>"""


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """Random weights with gentle forces."""
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    small_potential(per_type_energy_scales=10.0, r_max=5.0).save(path)
    return path


@pytest.fixture(scope="session")
def force_field(tmp_path_factory) -> list[str]:
    path = tmp_path_factory.mktemp("force-field") / "methane.xml"
    path.write_text(METHANE)
    return [str(path), "amber14/tip3p.xml"]


def read_csv(folder: Path) -> dict[str, np.ndarray]:
    header, *lines = (folder / "state.csv").read_text().splitlines()
    values = np.array([line.split(",") for line in lines], dtype=float).T
    return dict(zip(header.split(","), values, strict=True))


@pytest.fixture(scope="session")
def water_box(tmp_path_factory, force_field) -> Path:
    """A PDB file: two methanes without hydrogens, near each other in water."""
    topology = app.Topology()
    chain = topology.addChain()
    for _ in range(2):
        topology.addAtom("C", app.element.carbon, topology.addResidue("MET", chain))
    modeller = app.Modeller(topology, [openmm.Vec3(0, 0, 0), openmm.Vec3(0.38, 0, 0)])
    modeller.addSolvent(app.ForceField(*force_field), boxSize=openmm.Vec3(1.4, 1.4, 1.4))
    path = tmp_path_factory.mktemp("box") / "box.pdb"
    with path.open("w") as file:
        app.PDBFile.writeFile(modeller.topology, modeller.positions, file)
    return path


@pytest.fixture(scope="session")
def system_xml(water_box, force_field) -> Path:
    """A System with a cutoff that fits the small box, and a barostat that must not count."""
    pdb = app.PDBFile(str(water_box))
    system = app.ForceField(*force_field).createSystem(
        pdb.topology, nonbondedMethod=app.CutoffPeriodic, nonbondedCutoff=0.6, rigidWater=True
    )
    system.addForce(openmm.MonteCarloBarostat(1.0, 300.0, 1))
    path = water_box.with_name("system.xml")
    path.write_text(openmm.XmlSerializer.serialize(system))
    return path


@pytest.fixture
def configure(model, water_box, system_xml):
    def make(**changes) -> SimulationConfig:
        values = {
            "structure": str(water_box), "potential": str(model), "force_field": str(system_xml),
            "ml_region": "resname MET", "minimise": False, "heating": 20, "equilibration": 10,
            "steps": 20, "log_interval": 5, "trajectory_interval": 10, "checkpoint_interval": 12,
            "force": "python", "friction": 10.0, "platform": "Reference",
        }  # fmt: skip
        return parse_config(SimulationConfig, values | changes, where="test")

    return make


def mixed_run(config, folder, watcher=None):
    return run(config, folder, load_input(config), watcher or Watcher())


def test_the_run_folder_is_complete(configure, tmp_path):
    watcher = Watcher()
    config = configure(ml_trajectory_interval=5)
    assert mixed_run(config, tmp_path / "run", watcher).finished
    folder = tmp_path / "run"
    assert {path.name for path in folder.iterdir()} == {
        ".lock", "checkpoint", "config.yaml", "final.pdb", "log.txt", "region.dcd", "region.json",
        "state.csv", "topology.pdb", "trajectory.dcd", "versions.json",
    }  # fmt: skip
    assert json.loads((folder / "region.json").read_text()) == {
        "selection": "resname MET",
        "atoms": [0, 1],
    }
    log = read_csv(folder)
    assert log["step"].tolist() == list(range(-30, 21, 5))
    np.testing.assert_allclose(log["time_ps"], log["step"] * 0.5e-3)
    frames = mdtraj.load(folder / "trajectory.dcd", top=folder / "topology.pdb")
    assert len(frames) == 3  # none before step 0
    top = frames.topology.subset(range(2))
    region = mdtraj.load(folder / "region.dcd", top=top)
    assert len(region) == 5
    np.testing.assert_array_equal(region.xyz[::2], frames.xyz[:, :2])
    np.testing.assert_allclose(region.unitcell_lengths[0], 1.4, rtol=1e-6)
    stages = [(p.step, p.stage) for p in watcher.seen]
    assert stages[0] == (-30, "heating")
    assert (-10, "equilibration") in stages
    assert stages[-1] == (20, "production")
    assert watcher.seen[0].first_step == -30
    assert watcher.seen[-1].density == pytest.approx(log["density_g_mL"][-1], abs=1e-6)


@pytest.mark.parametrize("share", [None, 0.0, 0.25])
def test_the_log_has_the_energy_of_the_region(configure, tmp_path, share):
    """By the potential, whatever its share; and what is logged is that of the frames."""
    config = configure(precision="double", log_interval=10, lambda_interpolate=share)
    structure = load_input(config)
    watcher = Watcher()
    run(config, tmp_path / "run", structure, watcher)
    log = read_csv(tmp_path / "run")
    frames = mdtraj.load(tmp_path / "run" / "trajectory.dcd", top=tmp_path / "run" / "topology.pdb")
    whole = config.model_copy(update={"lambda_interpolate": None})
    context = build_simulation(whole, structure).context
    for k, positions in enumerate(frames.xyz.astype(float)):
        context.setPositions(positions)
        state = context.getState(energy=True, groups=1 << ml_group(context.getSystem()))
        energy = state.getPotentialEnergy()._value
        assert log["ml_potential_kJ_mol"][3 + k] == pytest.approx(energy, abs=1e-4)
    assert np.ptp(log["ml_potential_kJ_mol"][3:]) > 5e-3
    last = watcher.seen[-1].reading.ml_potential
    assert last == pytest.approx(log["ml_potential_kJ_mol"][-1], abs=1e-6)


@pytest.mark.parametrize("share", [None, 0.25])
def test_the_domain_is_that_of_the_potential_whatever_its_share(configure, tmp_path, model, share):
    context = build_simulation(configure(), load_input(configure())).context
    group = 1 << ml_group(context.getSystem())
    forces = context.getState(forces=True, groups=group).getForces(asNumpy=True)._value
    largest = np.linalg.norm(forces, axis=1).max() / KJ_PER_MOL_NM
    potential = load(model)
    potential.metadata["domain"] = {"elements": ["H", "C", "O"], "max_force": largest / FORCE / 1.2}
    potential.save(tmp_path / "model.safetensors")
    watcher = Watcher()
    mixed_run(
        configure(potential=str(tmp_path / "model.safetensors"), lambda_interpolate=share, steps=1),
        tmp_path / "run",
        watcher,
    )
    assert "the force on atom" in watcher.messages[0]


def shown(configure, folder, **terminal) -> str:
    """What a mixed run at constant pressure prints."""
    console = Console(file=io.StringIO(), width=120, **terminal)
    with display(console) as observer:
        observer.message("a [bold] word")
        assert mixed_run(configure(ensemble="npt"), folder, observer).finished
    return console.file.getvalue()


def test_lines_show_the_energy_of_the_region_and_the_density(configure, tmp_path, monkeypatch):
    monkeypatch.setattr("openmm_nequip.cli.simulate._PLAIN_SECONDS", np.inf)
    message, *lines = shown(configure, tmp_path / "run").splitlines()
    assert message == "a [bold] word"
    steps = [line.split("of")[0].split()[1] for line in lines]
    assert steps == ["-30", "0", "20"]  # the ends are always shown
    assert all(re.search(r" T +[\d.]+ K  E_ML -?[\d.]+ kJ/mol  [\d.]+ g/mL", x) for x in lines)
    assert "heating" in lines[0]
    assert re.search(r"production  [\d.]+ ns/day  0:00 left$", lines[-1])


def test_a_terminal_shows_a_bar_and_the_same_readings(configure, tmp_path):
    output = shown(configure, tmp_path / "run", force_terminal=True, color_system=None)
    assert "a [bold] word" in output
    last = re.split(r"(?=0\.01 ps)", output)[-1]
    assert re.match(r"0\.01 ps ━+ 100% T +[\d.]+ K  E_ML -?[\d.]+ kJ/mol", last)
    assert re.search(r"[\d.]+ g/mL  production  [\d.]+ ns/day  0:00 left", last)


@pytest.mark.parametrize("at", [-20, -8, 10])
@pytest.mark.parametrize(("ensemble", "ending"), [("nvt", killed), ("nve", interrupted)])
def test_going_on_repeats_the_uninterrupted_run(configure, tmp_path, ensemble, at, ending):
    """Bit by bit, wherever it stopped: while heating, equilibrating, or later."""
    config = configure(
        ensemble=ensemble, ml_trajectory_interval=4, log_interval=4, checkpoint_interval=6,
        lambda_interpolate=0.7,
    )  # fmt: skip
    whole = tmp_path / "whole"
    mixed_run(config, whole)
    if ending is killed:
        with pytest.raises(Killed):
            mixed_run(config, tmp_path / "parts", Watcher(at=at, act=ending))
    else:
        assert not mixed_run(config, tmp_path / "parts", Watcher(at=at, act=ending)).finished
    watcher = Watcher()
    assert mixed_run(config, tmp_path / "parts", watcher).finished
    assert watcher.messages[0].startswith("going on from step")
    assert rows(tmp_path / "parts") == rows(whole)
    assert coordinates(tmp_path / "parts") == coordinates(whole)
    parts = [(tmp_path / name / "region.dcd").read_bytes()[276:] for name in ("parts", "whole")]
    assert parts[0] == parts[1]


def test_heating_warms_up_and_equilibration_holds(configure, tmp_path):
    config = configure(heating=200, equilibration=100, steps=100, friction=100.0, temperature=400)
    mixed_run(config, tmp_path / "run")
    log = read_csv(tmp_path / "run")
    assert log["temperature_K"][0] < 40
    late = (log["time_ps"] > -0.1) & (log["time_ps"] <= -0.05)  # the start was not at rest
    ladder = 400 * (log["time_ps"][late] + 0.15) / 0.1
    assert log["temperature_K"][late].mean() == pytest.approx(ladder.mean(), rel=0.1)
    assert log["temperature_K"][log["time_ps"] >= -0.025].mean() == pytest.approx(400, rel=0.15)


def test_the_barostat_begins_with_equilibration(configure, tmp_path):
    mixed_run(configure(ensemble="npt", pressure=5000, barostat_interval=1), tmp_path / "run")
    log = read_csv(tmp_path / "run")
    volumes = log["volume_nm3"]
    assert set(volumes[log["step"] <= -10]) == {volumes[0]}
    assert len(set(volumes[log["step"] > -10])) == 6
    mixed_run(configure(), tmp_path / "nvt")  # the barostat in system.xml is left out
    assert len(set(read_csv(tmp_path / "nvt")["volume_nm3"])) == 1


def test_energy_is_conserved_after_the_thermostat(configure, tmp_path):
    config = configure(
        ensemble="nve", heating=0, equilibration=50, steps=200, platform="Reference",
        precision="double",
    )  # fmt: skip
    mixed_run(config, tmp_path / "run")
    log = read_csv(tmp_path / "run")
    total = log["total_kJ_mol"]
    assert np.ptp(total[log["step"] >= 0]) < 0.1 * np.ptp(total[log["step"] < 0])


def test_dE_dlambda_is_logged(configure, tmp_path):
    config = configure(lambda_interpolate=0.25, precision="double", log_interval=10)
    structure = load_input(config)
    run(config, tmp_path / "run", structure, Watcher())
    log = read_csv(tmp_path / "run")
    frames = mdtraj.load(tmp_path / "run" / "trajectory.dcd", top=tmp_path / "run" / "topology.pdb")
    context = build_simulation(config, structure).context
    assert context.getParameter("lambda_interpolate") == 0.25
    for k, positions in enumerate(frames.xyz.astype(float)):
        context.setPositions(positions)
        energies = []
        for value in (0.0, 1.0):
            context.setParameter("lambda_interpolate", value)
            energies.append(context.getState(energy=True).getPotentialEnergy()._value)
        found = log["dE_dlambda_kJ_mol"][3 + k]
        assert found == pytest.approx(energies[1] - energies[0], abs=0.02)
        between = 0.75 * energies[0] + 0.25 * energies[1]
        assert log["potential_kJ_mol"][3 + k] == pytest.approx(between, abs=0.1)


def test_replicas_differ_in_their_seed_and_go_on(configure, tmp_path):
    config = configure(replicas=2, heating=0, equilibration=0, steps=10)
    folder = tmp_path / "runs"
    watcher = Watcher(at=5, act=interrupted)
    assert not mixed_run(config, folder, watcher).finished
    watcher = Watcher()
    assert mixed_run(config, folder, watcher).finished
    assert watcher.messages == [
        "replica 1 of 2, seed 1", "going on from step 5", "replica 2 of 2, seed 2",
    ]  # fmt: skip
    assert sorted(path.name for path in folder.iterdir()) == ["replica-1", "replica-2"]
    first, second = (rows(folder / f"replica-{k}") for k in (1, 2))
    assert first != second
    alone = configure(seed=2, heating=0, equilibration=0, steps=10)
    mixed_run(alone, tmp_path / "alone")
    assert rows(tmp_path / "alone") == second
    with pytest.raises(InputError, match="2 finished replicas"):
        mixed_run(config, folder)
    watcher = Watcher()
    assert mixed_run(config.model_copy(update={"replicas": 3}), folder, watcher).finished
    assert watcher.messages == ["replica 3 of 3, seed 3"]
    with pytest.raises(InputError, match=r"temperature is 310\.0"):
        mixed_run(config.model_copy(update={"temperature": 310.0}), folder)
    with pytest.raises(InputError, match="a run without replicas"):
        mixed_run(config, tmp_path / "alone")


def test_problems_stop_a_mixed_run_before_it_begins(configure, tmp_path):
    config = configure(timestep="2 fs", ml_region="resname MET or resid 2")
    with pytest.raises(InputError, match=r"2 fs is too long for atom 3 \(H1 of residue HOH"):
        mixed_run(config, tmp_path / "run")
    assert not (tmp_path / "run" / "state.csv").exists()
    structure = load_input(configure())
    structure.positions[7] = structure.positions[0] + 0.01
    with pytest.raises(InputError, match=r"overlap \(atom 0 .* and atom 7"):
        run(configure(), tmp_path / "other", structure, Watcher())


def test_a_blow_up_of_the_region_names_atoms_and_keeps_both_frames(
    configure, tmp_path, monkeypatch
):
    """A few atoms that fly apart: the temperature of all waters would not tell."""
    velocities = loop.set_velocities

    def kick(context, temperature, seed):
        velocities(context, temperature, seed)
        state = context.getState(velocities=True)
        changed = state.getVelocities(asNumpy=True)._value
        changed[1] = [0, 0, 20]
        context.setVelocities(changed)

    monkeypatch.setattr(loop, "set_velocities", kick)
    config = configure(heating=0, equilibration=0)
    with pytest.raises(InputError, match="the temperature of the ML region is") as error:
        mixed_run(config, tmp_path / "run")
    assert "\n" not in str(error.value)
    assert "Likely causes" in str(error.value)
    assert (tmp_path / "run" / "broken.pdb").exists()


def test_a_failure_while_minimising_is_one_clear_line(configure, tmp_path, monkeypatch):
    def fail(*_):
        raise openmm.OpenMMException("Particle coordinate is NaN")

    monkeypatch.setattr(loop, "minimise", fail)
    with pytest.raises(InputError, match=r"NaN.*no good state to save: check the structure"):
        mixed_run(configure(minimise=True), tmp_path / "run")


def test_a_pair_that_collides_is_named(configure, tmp_path, monkeypatch):
    class Failing:
        def __init__(self, context):
            self.context = context

        def step(self, count):
            positions = self.context.getState(positions=True).getPositions(asNumpy=True)._value
            positions[10] = positions[0] + [0.02, 0, 0]
            self.context.setPositions(positions)
            raise openmm.OpenMMException("Particle coordinate is NaN")

    def build(*arguments):
        simulation = build_simulation(*arguments)
        simulation.integrator = Failing(simulation.context)
        return simulation

    monkeypatch.setattr("openmm_nequip.md.protocol.build_simulation", build)
    with pytest.raises(InputError, match=r"blew up after step -30: .* \(atom 0 .* and atom 10 "):
        mixed_run(configure(), tmp_path / "run")
    good = mdtraj.load(tmp_path / "run" / "last_good.pdb")
    broken = mdtraj.load(tmp_path / "run" / "broken.pdb")
    np.testing.assert_allclose(broken.xyz[0, 10] - broken.xyz[0, 0], [0.02, 0, 0], atol=2e-4)
    moved = np.abs(broken.xyz[0] - good.xyz[0]).max(axis=1) > 1e-3
    assert np.flatnonzero(moved).tolist() == [10]


@contextmanager
def file_size_limit() -> Iterator[Callable[[int], None]]:
    """Let no file grow beyond a size, once it is told."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, limit[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)


def test_a_full_disk_is_said_and_the_run_goes_on_later(configure, tmp_path):
    config = configure(trajectory_interval=1, heating=0, equilibration=0, steps=40)
    mixed_run(config, tmp_path / "whole")
    enough = (tmp_path / "whole" / "trajectory.dcd").stat().st_size
    with file_size_limit() as limit:
        fill = Watcher(at=12, act=lambda: limit(int(0.8 * enough)))
        with pytest.raises(InputError, match=r"disk is full .* saved up to step 24: m") as error:
            mixed_run(config, tmp_path / "run", fill)
    assert "\n" not in str(error.value)
    assert mixed_run(config, tmp_path / "run").finished
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")
    assert coordinates(tmp_path / "run") == coordinates(tmp_path / "whole")


def test_a_full_disk_is_noticed_with_xtc_too(configure, tmp_path):
    simulation = build_simulation(configure(), load_input(configure()))
    writer = TrajectoryWriter(tmp_path / "trajectory.xtc", simulation.topology, 0.0005, 1)
    state = simulation.context.getState(positions=True)

    def write():
        for _ in range(20):
            writer.append(state)

    with file_size_limit() as limit:
        limit(4000)
        with pytest.raises(OSError, match="No space left"):
            write()


def test_a_full_disk_before_the_first_checkpoint(configure, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(loop.StateLog, "append", full)
    with pytest.raises(InputError, match=r"the disk is full .* nothing was saved yet"):
        mixed_run(configure(), tmp_path / "run")


def test_a_cutoff_that_does_not_fit_the_box(configure, tmp_path, force_field):
    with pytest.raises(InputError, match="the cutoff of NonbondedForce, 1 nm, is more than half"):
        mixed_run(configure(force_field=force_field), tmp_path / "run")


def test_another_force_field_does_not_go_on(configure, tmp_path, system_xml, water_box):
    mixed_run(configure(), tmp_path / "run", Watcher(at=5, act=interrupted))
    system = openmm.XmlSerializer.deserialize(system_xml.read_text())
    for force in system.getForces():
        if isinstance(force, openmm.NonbondedForce):
            force.setCutoffDistance(0.55)
    other = tmp_path / "other.xml"
    other.write_text(openmm.XmlSerializer.serialize(system))
    with pytest.raises(InputError, match="another force_field"):
        mixed_run(configure(force_field=str(other)), tmp_path / "run")
    same = tmp_path / "same.xml"  # another name is no other force field
    same.write_text(system_xml.read_text())
    assert mixed_run(configure(force_field=str(same)), tmp_path / "run").finished


def test_selections():
    topology = app.Topology()
    chain = topology.addChain()
    for name in ("LIG", "HOH"):
        residue = topology.addResidue(name, chain)
        topology.addAtom("O", app.element.oxygen, residue)
    assert select(topology, "resname LIG") == [0]
    assert select(topology, "not water") == [0]
    assert select(topology, "all") == [0, 1]
    with pytest.raises(InputError, match="names no atom; the structure has the residues LIG, HOH"):
        select(topology, "resname LGI")
    with pytest.raises(InputError, match="cannot understand the selection 'resnam LIG'"):
        select(topology, "resnam LIG")


def test_long_names_go_into_mmcif(tmp_path):
    topology = app.Topology()
    residue = topology.addResidue("TIP3", topology.addChain())
    topology.addAtom("O", app.element.oxygen, residue)
    assert structure_path(tmp_path, "topology", topology).name == "topology.cif"


def test_amber_files(reference_data, model):
    names = ("toluene-explicit.rst7", "toluene-explicit.prm7", "toluene.pdb")
    folder = reference_data.with_all(*(f"mlmm_inputs/{name}" for name in names)) / "mlmm_inputs"
    config = parse_config(
        SimulationConfig,
        {
            "structure": str(folder / "toluene-explicit.rst7"), "ml_region": "resid 0",
            "force_field": str(folder / "toluene-explicit.prm7"), "steps": 1,
            "potential": str(model),
        },
        where="test",
    )  # fmt: skip
    structure = load_input(config)
    inpcrd = app.AmberInpcrdFile(str(folder / "toluene-explicit.rst7"))
    np.testing.assert_array_equal(structure.positions, inpcrd.getPositions(asNumpy=True)._value)
    box = structure.mm_system.getDefaultPeriodicBoxVectors()
    np.testing.assert_allclose([row._value for row in box], inpcrd.boxVectors._value)
    assert len(ml_region(config, structure)) == 15
    with pytest.raises(InputError, match="15"):
        load_input(config.model_copy(update={"structure": str(folder / "toluene.pdb")}))
    with pytest.raises(InputError, match="give the prmtop file"):
        load_input(config.model_copy(update={"force_field": ["amber14-all.xml"]}))


def test_alanine_dipeptide_by_names_of_force_fields(reference_data, model):
    folder = (reference_data / "mlmm_inputs/alanine-dipeptide-explicit.pdb").parent
    config = parse_config(
        SimulationConfig,
        {
            "structure": "alanine-dipeptide-explicit.pdb", "ml_region": "protein", "steps": 1,
            "force_field": ["amber14-all.xml", "amber14/tip3p.xml"], "potential": str(model),
        },
        where="test",
    )  # fmt: skip
    config = find_files(config, folder)
    structure = load_input(config)
    assert structure.mm_system.usesPeriodicBoundaryConditions()
    assert ml_region(config, structure) == list(range(22))


def test_gromacs_files(tmp_path, model):
    """A molecule in a top file, with coordinates from gro."""
    (tmp_path / "x.top").write_text(
        "[ defaults ]\n1 2 yes 0.5 0.8333\n"
        "[ atomtypes ]\nOW 8 15.9994 0.0 A 0.315 0.636\nHW 1 1.008 0.0 A 0.0 0.0\n"
        "[ moleculetype ]\nSOL 2\n"
        "[ atoms ]\n1 OW 1 SOL OW 1 -0.834 15.9994\n2 HW 1 SOL HW1 1 0.417 1.008\n"
        "3 HW 1 SOL HW2 1 0.417 1.008\n"
        "[ bonds ]\n1 2 1 0.09572 502416\n1 3 1 0.09572 502416\n"
        "[ angles ]\n2 1 3 1 104.52 628.02\n"
        "[ system ]\nwater\n[ molecules ]\nSOL 2\n"
    )
    lines = ["water", "6"]
    water = ase.build.molecule("H2O").positions[[0, 1, 2]] / 10
    for k in range(2):
        for j, (name, point) in enumerate(zip(("OW", "HW1", "HW2"), water, strict=True)):
            x, y, z = point + np.array([0.5 + 0.3 * k, 0.5, 0.5])
            lines.append(
                f"{k + 1:5d}{'SOL':5s}{name:>5s}{3 * k + j + 1:5d}{x:8.3f}{y:8.3f}{z:8.3f}"
            )
    (tmp_path / "x.gro").write_text("\n".join([*lines, "   2.5 2.5 2.5", ""]))
    config = parse_config(
        SimulationConfig,
        {"structure": "x.gro", "force_field": "x.top", "ml_region": "resid 1", "steps": 1,
         "potential": str(model)},
        where="test",
    )  # fmt: skip
    structure = load_input(find_files(config, tmp_path))
    assert structure.box[0, 0] == 2.5
    assert structure.mm_system.getNumParticles() == 6
    assert ml_region(config, structure) == [3, 4, 5]


def test_a_molecule_without_parameters_is_one_clear_line(configure, tmp_path):
    ethanol = ase.build.molecule("CH3CH2OH")
    ase.io.write(tmp_path / "ethanol.xyz", ethanol)
    with pytest.raises(InputError, match=r"cannot be used .* 'openmm-nequip prepare'") as error:
        load_input(
            configure(structure=str(tmp_path / "ethanol.xyz"), force_field=["amber14-all.xml"])
        )
    assert "\n" not in str(error.value)


def test_link_atoms_stay_inside(model, tmp_path):
    """They are in the System, and in no file."""
    ethane = ase.build.molecule("C2H6")
    topology = app.Topology()
    residue = topology.addResidue("ETH", topology.addChain())
    atoms = []
    for k, symbol in enumerate(ethane.get_chemical_symbols()):
        atoms.append(topology.addAtom(f"{symbol}{k}", app.Element.getBySymbol(symbol), residue))
    hydrogens = [k for k, atom in enumerate(atoms) if atom.element.symbol == "H"]
    carbons = [k for k, atom in enumerate(atoms) if atom.element.symbol == "C"]
    near = {h: min(carbons, key=lambda c: ethane.get_distance(h, c)) for h in hydrogens}
    topology.addBond(*(atoms[c] for c in carbons))
    for hydrogen, carbon in near.items():
        topology.addBond(atoms[hydrogen], atoms[carbon])
    system = openmm.System()
    bonds = openmm.HarmonicBondForce()
    for atom in atoms:
        system.addParticle(atom.element.mass)
    for a, b in topology.bonds():
        bonds.addBond(a.index, b.index, ethane.get_distance(a.index, b.index) / 10, 2e5)
    system.addForce(bonds)
    (tmp_path / "system.xml").write_text(openmm.XmlSerializer.serialize(system))
    with (tmp_path / "ethane.cif").open("w") as file:
        app.PDBxFile.writeFile(topology, ethane.positions * unit.angstrom, file)
    region = [carbons[0], *(h for h, c in near.items() if c == carbons[0])]
    config = parse_config(
        SimulationConfig,
        {
            "structure": "ethane.cif", "force_field": "system.xml", "steps": 10,
            "ml_region": "index " + " ".join(map(str, region)), "potential": str(model),
            "heating": 0, "equilibration": 0, "log_interval": 5, "trajectory_interval": 5,
            "ml_trajectory_interval": 5, "force": "python", "minimise": False,
        },
        where="test",
    )  # fmt: skip
    config = find_files(config, tmp_path)
    structure = load_input(config)
    watcher = Watcher()
    assert run(config, tmp_path / "run", structure, watcher).finished
    assert "the ML region cuts 1 bond, capped by hydrogen" in watcher.messages
    frames = mdtraj.load(tmp_path / "run" / "trajectory.dcd", top=tmp_path / "run" / "topology.pdb")
    assert frames.n_atoms == 8
    assert mdtraj.load(tmp_path / "run" / "final.pdb").n_atoms == 8


def test_the_same_force_field_is_the_same_tomorrow(configure, force_field):
    """Another process, where Python orders its sets otherwise, finds the same fingerprint."""
    config = configure(force_field=force_field)
    here = fingerprints(config, load_input(config))["force_field"]
    code = (
        "from openmm_nequip.config import parse_config\n"
        "from openmm_nequip.md.config import SimulationConfig\n"
        "from openmm_nequip.md.folder import fingerprints\n"
        "from openmm_nequip.md.inputs import load_input\n"
        f"config = parse_config(SimulationConfig, {config.model_dump(exclude_none=True)!r}, 'x')\n"
        "print(fingerprints(config, load_input(config))['force_field'])\n"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == here
