"""Simulations as a user meets them: outputs, stopping, going on, and clear refusals."""

import io
import json
import os
import re
import shutil
import signal
import struct
from datetime import datetime
from pathlib import Path

import ase
import mdtraj
import numba
import numpy as np
import openmm
import pytest
import torch
from openmm import app, unit

from openmm_nequip import load
from openmm_nequip.analysis.folder import read_log
from openmm_nequip.architectures.nequip import NequIPConfig
from openmm_nequip.config import parse_config
from openmm_nequip.data.frame import Frame
from openmm_nequip.errors import InputError
from openmm_nequip.kernels.engine import set_num_threads
from openmm_nequip.locks import lock
from openmm_nequip.md import preparation, protocol
from openmm_nequip.md.checkpoint import Checkpoint
from openmm_nequip.md.config import SimulationConfig
from openmm_nequip.md.folder import write_structure
from openmm_nequip.md.loop import Run
from openmm_nequip.md.preparation import build_simulation, degrees_of_freedom, set_velocities
from openmm_nequip.md.protocol import Progress, Result, run
from openmm_nequip.md.python_force import Computation
from openmm_nequip.md.reporters import Length, temperature_of
from openmm_nequip.md.structure import Structure, from_ase, load_structure
from openmm_nequip.potential import Potential

DCD_HEADER = 276  # bytes; the header holds the date


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights with gentle forces, nothing physical, but smooth."""
    torch.manual_seed(0)
    config = NequIPConfig(
        type_names=["H", "C", "O"], r_max=4.0, num_layers=2, num_features=8, radial_mlp_width=16,
        avg_num_neighbors=6.0, per_type_energy_scales=0.02,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("model") / "gentle.safetensors"
    Potential(config).save(path)
    return path


class Watcher:
    """Keeps what it is told; interferes when a step is reached."""

    def __init__(self, at: int | None = None, act=lambda: None):
        self.at, self.act = at, act
        self.messages: list[str] = []
        self.seen: list[Progress] = []

    def message(self, text: str) -> None:
        self.messages.append(text)

    def progress(self, progress: Progress) -> None:
        self.seen.append(progress)
        if progress.step == self.at:
            self.act()


class Killed(Exception):
    pass


def killed() -> None:
    raise Killed


def interrupted() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def interrupted_twice() -> None:
    interrupted()
    interrupted()


@pytest.fixture
def configure(model):
    def make(**changes) -> SimulationConfig:
        values = {
            "structure": "ethanol", "potential": str(model), "minimise": False, "steps": 40,
            "log_interval": 4, "trajectory_interval": 8, "checkpoint_interval": 12,
            "force": "python", "friction": 10.0,
        }  # fmt: skip
        return parse_config(SimulationConfig, values | changes, where="test")

    return make


def ethanol_run(config: SimulationConfig, folder: Path, watcher: Watcher | None = None) -> Result:
    return run(config, folder, load_structure("ethanol"), watcher or Watcher())


def periodic_box() -> Structure:
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(2)] * 3), axis=-1).reshape(-1, 3) * 4.5
    positions = grid + rng.uniform(-0.2, 0.2, (8, 3))
    return from_ase(ase.Atoms("C8", positions, cell=[9.0, 9.0, 9.0], pbc=True))


def coordinates(folder: Path) -> bytes:
    path = next(folder.glob("trajectory.*"))
    return path.read_bytes()[DCD_HEADER if path.suffix == ".dcd" else 0 :]


def rows(folder: Path) -> list[str]:
    """The state log without the speed, which is never the same twice."""
    return [line.rpartition(",")[0] for line in (folder / "state.csv").read_text().splitlines()]


def test_the_run_folder_is_complete(configure, tmp_path):
    watcher = Watcher()
    result = ethanol_run(configure(), tmp_path / "run", watcher)
    assert (result.finished, result.step) == (True, 40)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        ".lock", "checkpoint", "config.yaml", "final.pdb", "log.txt", "state.csv", "topology.pdb",
        "trajectory.dcd", "versions.json",
    }  # fmt: skip
    versions = json.loads((tmp_path / "run" / "versions.json").read_text())
    assert {"openmm-nequip", "OpenMM", "torch", "numba", "platform"} <= set(versions)
    assert versions["engine"] == "fused"
    log = read_log(tmp_path / "run" / "state.csv")
    assert log["step"].tolist() == list(range(0, 41, 4))
    np.testing.assert_allclose(log["time_ps"], log["step"] * 0.5e-3)
    np.testing.assert_allclose(
        log["total_kJ_mol"], log["potential_kJ_mol"] + log["kinetic_kJ_mol"], atol=2e-6
    )
    kelvin = 2 * log["kinetic_kJ_mol"] / ((27 - 3) * 8.31446261815324e-3)
    np.testing.assert_allclose(log["temperature_K"], kelvin, atol=1e-3)
    assert watcher.seen[-1].step == 40
    frames = mdtraj.load(tmp_path / "run" / "trajectory.dcd", top=tmp_path / "run" / "topology.pdb")
    assert len(frames) == 6
    final = mdtraj.load(tmp_path / "run" / "final.pdb")
    np.testing.assert_allclose(frames.xyz[-1], final.xyz[0], atol=1e-4)
    np.testing.assert_allclose(frames.xyz[0], load_structure("ethanol").positions, atol=1e-6)


@pytest.mark.parametrize(
    ("ensemble", "trajectory", "platform"),
    [("nvt", "dcd", "CPU"), ("nvt", "xtc", "Reference"), ("nve", "dcd", "Reference")],
)
@pytest.mark.parametrize("ending", [killed, interrupted])
def test_going_on_repeats_the_uninterrupted_run_bit_by_bit(
    configure, tmp_path, ensemble, trajectory, platform, ending
):
    config = configure(ensemble=ensemble, trajectory=trajectory, platform=platform)
    ethanol_run(config, tmp_path / "whole")
    # The checkpoint is of step 12, the last frame of step 16 and the last row of step 20.
    watcher = Watcher(at=20, act=ending)
    if ending is killed:
        with pytest.raises(Killed):
            ethanol_run(config, tmp_path / "parts", watcher)
    else:
        result = ethanol_run(config, tmp_path / "parts", watcher)
        assert (result.finished, result.step) == (False, 20)
    watcher = Watcher()
    assert ethanol_run(config, tmp_path / "parts", watcher).finished
    assert watcher.messages == [f"going on from step {12 if ending is killed else 20}"]

    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    assert coordinates(tmp_path / "parts") == coordinates(tmp_path / "whole")
    final = [(tmp_path / run / "checkpoint" / "40.xml").read_text() for run in ("whole", "parts")]
    assert final[0] == final[1]
    if trajectory == "dcd":
        head = (tmp_path / "parts" / "trajectory.dcd").read_bytes()
        assert struct.unpack("<i", head[8:12]) == (6,)


def test_stopping_between_two_rows_loses_nothing(configure, tmp_path):
    config = configure(log_interval=20, trajectory_interval=20)
    ethanol_run(config, tmp_path / "whole")
    watcher = Watcher(at=12, act=interrupted)  # a checkpoint only
    assert ethanol_run(config, tmp_path / "parts", watcher).step == 12
    ethanol_run(config, tmp_path / "parts")
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    assert coordinates(tmp_path / "parts") == coordinates(tmp_path / "whole")


def test_a_signal_just_before_the_next_step_repeats_no_frame(configure, tmp_path, monkeypatch):
    """The run has seen that nobody wants it to stop, and has not begun to step."""
    ethanol_run(configure(), tmp_path / "whole")
    next_stop = Run._next_stop

    def interrupt_and_go_on(this: Run) -> int:
        if this.step == 16:  # where a row and a frame were written
            interrupted()
        return next_stop(this)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_next_stop", interrupt_and_go_on)
        assert not ethanol_run(configure(), tmp_path / "parts").finished
    ethanol_run(configure(), tmp_path / "parts")
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    assert coordinates(tmp_path / "parts") == coordinates(tmp_path / "whole")


def test_a_second_signal_stops_at_once_with_what_was_saved(configure, tmp_path):
    ethanol_run(configure(), tmp_path / "whole")
    result = ethanol_run(configure(), tmp_path / "parts", Watcher(at=20, act=interrupted_twice))
    assert (result.finished, result.step, result.total) == (False, 12, 40)
    ethanol_run(configure(), tmp_path / "parts")
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):  # there is nothing to go on from
        ethanol_run(configure(), tmp_path / "new", Watcher(at=0, act=interrupted_twice))


def test_a_second_signal_while_the_force_is_computed_is_no_blow_up(
    configure, tmp_path, monkeypatch
):
    """OpenMM turns what is raised in a force in Python into an exception of its own."""
    compute = Computation.__call__

    def compute_and_interrupt(*arguments):
        if watcher.seen and watcher.seen[-1].step == 20:
            interrupted_twice()
        return compute(*arguments)

    watcher = Watcher()
    monkeypatch.setattr(Computation, "__call__", compute_and_interrupt)
    result = ethanol_run(configure(), tmp_path / "run", watcher)
    assert (result.finished, result.step) == (False, 12)
    assert not list((tmp_path / "run").glob("broken.*"))


def test_the_log_file_has_versions_seed_and_messages_of_each_part(configure, tmp_path):
    config = configure(minimise=True, seed=7)
    ethanol_run(config, tmp_path / "run", Watcher(at=20, act=interrupted))
    ethanol_run(config, tmp_path / "run")
    lines = (tmp_path / "run" / "log.txt").read_text().splitlines()
    times, texts = zip(*(line.split("  ", 1) for line in lines), strict=True)
    assert all(datetime.fromisoformat(time).tzinfo for time in times)
    assert texts[0] == texts[3]
    assert re.match(r"python 3.*OpenMM \d.*platform \w+.*engine fused.*seed 7$", texts[0])
    assert texts[1].startswith("minimised: ")
    assert texts[2] == "stopped at step 20 of 40"
    assert texts[4:] == ("going on from step 20", "finished at step 40 of 40")


class Clock:
    """Tells a second more each time a step is done, whatever the machine does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 1000.0
        step = openmm.LangevinMiddleIntegrator.step

        def tick(integrator: openmm.Integrator, count: int) -> None:
            step(integrator, count)
            self.now += count

        monkeypatch.setattr(openmm.LangevinMiddleIntegrator, "step", tick)
        monkeypatch.setattr("openmm_nequip.md.loop.time.monotonic", lambda: self.now)


def test_checkpoints_by_the_clock(configure, tmp_path, monkeypatch):
    ethanol_run(configure(), tmp_path / "whole")
    saved = []
    save = Checkpoint.save

    def note(checkpoint: Checkpoint, *arguments) -> None:
        saved.append(checkpoint.step)
        save(checkpoint, *arguments)

    monkeypatch.setattr(Checkpoint, "save", note)
    Clock(monkeypatch)
    config = configure(checkpoint_interval="10 s")
    with pytest.raises(Killed):
        ethanol_run(config, tmp_path / "parts", Watcher(at=36, act=killed))
    assert saved == [0, 10, 20, 30]  # a step is a second here; rows are each 4 steps
    watcher = Watcher()
    ethanol_run(config, tmp_path / "parts", watcher)
    assert watcher.messages == ["going on from step 30"]
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    assert coordinates(tmp_path / "parts") == coordinates(tmp_path / "whole")


@pytest.mark.parametrize("twice", [False, True])
def test_residues_keep_their_numbers(tmp_path, twice):
    """So that 'residue 105' means the same in what a run leaves; unless two have the same."""
    topology = app.Topology()
    for chain in ("H", "L"):
        own = topology.addChain(chain)
        for number in ("105", "105" if twice else "106"):
            topology.addAtom("C", app.element.carbon, topology.addResidue("LIG", own, number))
    write_structure(tmp_path / "x.pdb", topology, 0.5 * np.eye(4)[:, :3], None)
    found = app.PDBFile(str(tmp_path / "x.pdb")).topology
    assert found.getNumResidues() == 4
    if not twice:
        assert [(r.chain.id, r.id) for r in found.residues()] == [
            ("H", "105"), ("H", "106"), ("L", "105"), ("L", "106")
        ]  # fmt: skip


def test_a_damaged_checkpoint_is_one_clear_line(configure, tmp_path):
    config = configure()
    ethanol_run(config, tmp_path / "run", Watcher(at=20, act=interrupted))
    folder = tmp_path / "run" / "checkpoint"
    record, portable = (folder / name for name in ("checkpoint.json", "20.xml"))
    texts = record.read_bytes(), portable.read_bytes()
    before = (tmp_path / "run" / "state.csv").read_bytes()
    (folder / "20.chk").write_bytes(b"cut short")
    for half in (texts[1][: len(texts[1]) // 2], b"\xff", b""):
        portable.write_bytes(half)
        with pytest.raises(InputError, match=r"20\.xml' is damaged .*: move the run folder away"):
            ethanol_run(config, tmp_path / "run")
    portable.unlink()
    with pytest.raises(InputError, match=r"20\.xml' is damaged"):
        ethanol_run(config, tmp_path / "run")
    for half in (texts[0][:40], b"[]", b"\xff"):
        record.write_bytes(half)
        with pytest.raises(InputError, match=r"checkpoint\.json' is damaged"):
            ethanol_run(config, tmp_path / "run")
    assert (tmp_path / "run" / "state.csv").read_bytes() == before
    record.write_bytes(texts[0])
    portable.write_bytes(texts[1])
    watcher = Watcher()
    assert ethanol_run(config, tmp_path / "run", watcher).finished
    assert "another platform" in watcher.messages[0]


def test_killed_before_the_first_checkpoint_starts_again(configure, tmp_path):
    config = configure()
    with pytest.raises(Killed):
        ethanol_run(config, tmp_path / "run", Watcher(at=0, act=killed))
    watcher = Watcher()
    assert ethanol_run(config, tmp_path / "run", watcher).finished
    assert watcher.messages == []


def test_another_platform_goes_on_from_the_portable_state(configure, tmp_path):
    stop = Watcher(at=20, act=interrupted)
    ethanol_run(configure(platform="Reference", ensemble="nve"), tmp_path / "run", stop)
    watcher = Watcher()
    ethanol_run(configure(platform="CPU", ensemble="nve"), tmp_path / "run", watcher)
    assert "another platform" in watcher.messages[0]
    versions = json.loads((tmp_path / "run" / "versions.json").read_text())
    assert versions["platform"] == "Reference"
    assert {name: value for name, value in versions.items() if "from step" in name} == {
        "platform from step 20": "CPU"
    }
    ethanol_run(configure(platform="Reference", ensemble="nve"), tmp_path / "whole")
    there, here = (read_log(tmp_path / run / "state.csv") for run in ("whole", "run"))
    np.testing.assert_allclose(here["total_kJ_mol"], there["total_kJ_mol"], atol=2e-6)


def test_nothing_is_overwritten(configure, tmp_path):
    config = configure(steps=8)
    ethanol_run(config, tmp_path / "run")
    before = (tmp_path / "run" / "state.csv").read_bytes()
    with pytest.raises(InputError, match="finished run"):
        ethanol_run(config, tmp_path / "run")
    assert (tmp_path / "run" / "state.csv").read_bytes() == before
    shutil.rmtree(tmp_path / "run" / "checkpoint")
    for again in (config, configure(steps=16)):
        with pytest.raises(InputError, match="a run without its checkpoint"):
            ethanol_run(again, tmp_path / "run")
    assert (tmp_path / "run" / "state.csv").read_bytes() == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(InputError, match="not a run folder"):
        ethanol_run(config, tmp_path / "other")


@pytest.mark.parametrize("trajectory", ["dcd", "xtc"])
@pytest.mark.parametrize("end", [24, 21])
def test_a_finished_run_is_made_longer(end, trajectory, configure, tmp_path):
    """As if it had been as long from the start, wherever it had ended."""
    ethanol_run(configure(steps=end, trajectory=trajectory), tmp_path / "run")
    watcher = Watcher()
    longer = configure(steps=40, trajectory=trajectory)
    assert ethanol_run(longer, tmp_path / "run", watcher).finished
    assert watcher.messages == [f"going on from step {end}"]
    ethanol_run(longer, tmp_path / "whole")
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")
    assert coordinates(tmp_path / "run") == coordinates(tmp_path / "whole")
    for name in ("final.pdb", "config.yaml"):
        there, here = ((tmp_path / run / name).read_text() for run in ("whole", "run"))
        assert here == there
    with pytest.raises(InputError, match="a run of 40 steps, and 39 are asked for"):
        ethanol_run(configure(steps=39, trajectory=trajectory), tmp_path / "run")


def test_an_interrupt_at_once_of_a_run_made_longer_says_that_it_is_not_finished(
    configure, tmp_path
):
    ethanol_run(configure(steps=16), tmp_path / "run")

    def insist() -> None:
        raise KeyboardInterrupt

    result = ethanol_run(configure(), tmp_path / "run", Watcher(at=20, act=insist))
    assert (result.finished, result.step, result.total) == (False, 16, 40)
    assert ethanol_run(configure(), tmp_path / "run").finished


def test_a_stop_at_the_end_of_a_replica_stops_before_the_next(configure, tmp_path):
    config = configure(steps=8, replicas=2)
    result = ethanol_run(config, tmp_path / "run", Watcher(at=8, act=interrupted))
    assert not result.finished
    assert not (tmp_path / "run" / "replica-2").exists()
    assert ethanol_run(config, tmp_path / "run").finished
    assert (tmp_path / "run" / "replica-2" / "final.pdb").exists()


@pytest.mark.parametrize("ensemble", ["nvt", "npt", "nve"])
def test_going_on_from_the_portable_state_has_other_random_numbers(configure, tmp_path, ensemble):
    equilibration = 8 if ensemble == "nve" else 0  # a compound of two integrators
    config = configure(ensemble=ensemble, platform="Reference", equilibration=equilibration)
    context = build_simulation(config, periodic_box()).context
    context.setVelocitiesToTemperature(300, 1)
    context.getIntegrator().step(3)
    nothing = Length(0, 0)
    checkpoint = Checkpoint(3, nothing, nothing, 0.0)
    checkpoint.save(tmp_path, context)
    saved = context.getState(positions=True, velocities=True)
    seeds = random_seeds(context)
    assert set(seeds) == {1}
    (tmp_path / "3.chk").write_bytes(b"of another machine")
    assert not checkpoint.restore(tmp_path, context)
    assert all(seed not in (0, 1) for seed in random_seeds(context))
    assert len(random_seeds(context)) == len(seeds) == (2 if ensemble == "npt" else 1)
    state = context.getState(positions=True, velocities=True)
    for quantity in ("Positions", "Velocities"):
        here, there = (getattr(s, f"get{quantity}")(asNumpy=True)._value for s in (state, saved))
        np.testing.assert_array_equal(here, there)


def random_seeds(context: openmm.Context) -> list[int]:
    integrator = context.getIntegrator()
    if isinstance(integrator, openmm.CompoundIntegrator):
        integrator = integrator.getIntegrator(0)
    forces = context.getSystem().getForces()
    barostats = [force for force in forces if isinstance(force, openmm.MonteCarloBarostat)]
    return [random.getRandomNumberSeed() for random in (integrator, *barostats)]


def test_gpu_platforms_have_the_precision_and_device_of_the_run(configure, monkeypatch):
    class Gpu:
        def __init__(self):
            self.values = {"Precision": "single", "DeviceIndex": "", "Threads": "3"}

        def getPropertyNames(self):
            return tuple(self.values)

        def getPropertyDefaultValue(self, name):
            return self.values[name]

        def setPropertyDefaultValue(self, name, value):
            self.values[name] = value

    gpu, cpu = Gpu(), Gpu()
    del cpu.values["Precision"]
    monkeypatch.setattr(preparation, "_platforms", lambda: [cpu, gpu])
    with preparation.on_the_gpu(configure(device="cuda:1")):
        assert gpu.values == {"Precision": "mixed", "DeviceIndex": "1", "Threads": "3"}
    with preparation.on_the_gpu(configure(precision="double")):
        assert gpu.values["Precision"] == "double"
    assert gpu.values == Gpu().values
    assert cpu.values == {"DeviceIndex": "", "Threads": "3"}


def test_replicas_are_made_longer_and_hdf5_is_not(configure, tmp_path):
    ethanol_run(configure(steps=8, replicas=2), tmp_path / "run")
    ethanol_run(configure(steps=16, replicas=2), tmp_path / "run")
    for k in (1, 2):
        assert rows(tmp_path / "run" / f"replica-{k}")[-1].startswith("16,")
    pytest.importorskip("tables")
    ethanol_run(configure(steps=8, trajectory="h5"), tmp_path / "h5")
    with pytest.raises(InputError, match="HDF5, to which nothing can be added"):
        ethanol_run(configure(steps=16, trajectory="h5"), tmp_path / "h5")


def test_times_are_compared_and_not_how_they_are_written(configure, tmp_path):
    first = configure(steps=None, time="20 fs", equilibration="2 fs", log_interval=4)
    ethanol_run(first, tmp_path / "run", Watcher(at=12, act=interrupted))
    same = configure(steps=40, equilibration="0.002ps", log_interval="2.0 fs")
    assert ethanol_run(same, tmp_path / "run").finished
    with pytest.raises(InputError, match=r"log_interval is 3 fs, was 2\.0 fs"):
        ethanol_run(configure(log_interval="3 fs", equilibration=4), tmp_path / "run")


def test_a_different_run_does_not_go_on_in_the_folder(configure, tmp_path):
    ethanol_run(configure(), tmp_path / "run", Watcher(at=20, act=interrupted))
    with pytest.raises(InputError, match=r"temperature is 310\.0, was 300\.0"):
        ethanol_run(configure(temperature=310), tmp_path / "run")
    with pytest.raises(InputError, match="another structure"):
        run(configure(), tmp_path / "run", load_structure("methane"), Watcher())
    with pytest.raises(InputError, match=r"another run \(timestep is 0\.25, was 0\.5\)"):
        ethanol_run(configure(timestep=0.25), tmp_path / "run")


def test_a_shortened_trajectory_is_noticed(configure, tmp_path):
    ethanol_run(configure(), tmp_path / "run", Watcher(at=20, act=interrupted))
    os.truncate(tmp_path / "run" / "trajectory.dcd", 300)
    with pytest.raises(InputError, match="shorter"):
        ethanol_run(configure(), tmp_path / "run")


def test_one_process_at_a_time(configure, tmp_path):
    with lock(tmp_path, "running"), pytest.raises(InputError, match="another process"):
        ethanol_run(configure(), tmp_path)


def test_a_blow_up_stops_with_the_last_good_state(model, configure, tmp_path):
    hard = load(model).config.model_copy(update={"pair_potential": "zbl"})
    Potential(hard).save(tmp_path / "hard.safetensors")
    config = configure(potential=str(tmp_path / "hard.safetensors"))
    with pytest.raises(InputError, match=r"blew up after step 4: the temperature") as error:
        ethanol_run(config, tmp_path / "run")
    assert "\n" not in str(error.value)
    assert "last good state (0.0000 ps)" in str(error.value)
    good = mdtraj.load(tmp_path / "run" / "last_good.pdb")
    np.testing.assert_allclose(good.xyz[0], load_structure("ethanol").positions, atol=6e-5)
    assert read_log(tmp_path / "run" / "state.csv")["step"].tolist() == [0]


@pytest.fixture
def fail_after(monkeypatch):
    """Let the integrators of the runs to come fail after a number of steps."""

    class Failing:
        def __init__(self, integrator, last):
            self.integrator, self.left = integrator, last

        def step(self, count):
            self.left -= count
            if self.left < 0:
                raise openmm.OpenMMException("Particle coordinate\nis NaN")
            self.integrator.step(count)

    def prepare(steps: int) -> None:
        def build(*arguments):
            simulation = build_simulation(*arguments)
            simulation.integrator = Failing(simulation.integrator, steps)
            return simulation

        monkeypatch.setattr(protocol, "build_simulation", build)

    return prepare


def test_an_error_in_the_force_stops_with_the_last_good_state(configure, tmp_path, fail_after):
    fail_after(8)
    with pytest.raises(InputError, match="blew up after step 8: Particle coordinate is NaN"):
        ethanol_run(configure(), tmp_path / "run")
    assert (tmp_path / "run" / "last_good.xml").exists()
    assert "error: the simulation blew up" in (tmp_path / "run" / "log.txt").read_text()


def test_an_error_after_going_on_leaves_the_checkpoint_as_the_good_state(
    configure, tmp_path, fail_after
):
    ethanol_run(configure(), tmp_path / "run", Watcher(at=20, act=interrupted))
    fail_after(0)
    with pytest.raises(InputError, match=r"after step 20: .* last good state \(0\.0100 ps\)"):
        ethanol_run(configure(), tmp_path / "run")
    assert (tmp_path / "run" / "last_good.xml").exists()


def test_the_last_good_state_has_its_own_box(configure, tmp_path, fail_after):
    fail_after(20)
    config = configure(ensemble="npt", pressure=10_000, barostat_interval=2)
    with pytest.raises(InputError, match="blew up after step 20"):
        run(config, tmp_path / "run", periodic_box(), Watcher())
    good = mdtraj.load(tmp_path / "run" / "last_good.pdb")
    volume = read_log(tmp_path / "run" / "state.csv")["volume_nm3"][-1]
    assert volume != pytest.approx(0.9**3, rel=1e-3)
    assert good.unitcell_volumes[0] == pytest.approx(volume, rel=1e-3)


def test_problems_are_warnings_where_all_is_the_potentials(configure, tmp_path):
    watcher = Watcher()
    assert ethanol_run(configure(timestep="1.5 fs", steps=2), tmp_path / "run", watcher).finished
    (message,) = watcher.messages
    assert message.startswith("warning: a time step of 1.5 fs is too long for atom")


def test_a_pure_run_can_be_heated_and_equilibrated_too(configure, tmp_path):
    config = configure(heating="5 fs", equilibration="5 fs", ensemble="nve")
    ethanol_run(config, tmp_path / "run")
    log = read_log(tmp_path / "run" / "state.csv")
    assert log["step"].tolist() == list(range(-20, 41, 4))
    assert log["temperature_K"][0] == pytest.approx(15, rel=0.6)
    frames = mdtraj.load(tmp_path / "run" / "trajectory.dcd", top=tmp_path / "run" / "topology.pdb")
    assert len(frames) == 6


def test_bad_coordinates_are_one_clear_line(configure, tmp_path):
    structure = load_structure("ethanol")
    structure.positions[2, 1] = np.nan
    with pytest.raises(InputError, match="position of atom 2 is not finite"):
        run(configure(), tmp_path / "run", structure, Watcher())


def test_npt_needs_a_box(configure, tmp_path):
    with pytest.raises(InputError, match="'npt' needs a periodic structure"):
        ethanol_run(configure(ensemble="npt"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_is_configured_reaches_openmm(configure):
    config = configure(
        ensemble="npt", pressure=250.0, temperature=345.0, friction=7.0, timestep="0.4 fs",
        barostat_interval=13, seed=11, platform="Reference",
    )  # fmt: skip
    simulation = build_simulation(config, periodic_box())
    (barostat,) = (
        f for f in simulation.system.getForces() if isinstance(f, openmm.MonteCarloBarostat)
    )
    assert barostat.getDefaultPressure().value_in_unit(unit.bar) == pytest.approx(250, rel=1e-12)
    assert barostat.getDefaultTemperature() == 345 * unit.kelvin
    assert (barostat.getFrequency(), barostat.getRandomNumberSeed()) == (13, 11)
    integrator = simulation.integrator
    assert integrator.getTemperature() == 345 * unit.kelvin
    assert integrator.getFriction() == 7 / unit.picosecond
    assert integrator.getRandomNumberSeed() == 11
    simulation.step(5)
    time = simulation.context.getState().getTime().value_in_unit(unit.femtosecond)
    assert time == pytest.approx(2.0, rel=1e-12)


def test_pressure_of_openmm_is_that_of_the_potentials_stress(configure, model):
    config = configure(ensemble="npt", platform="Reference", precision="double")
    structure = periodic_box()
    structure.positions[1] = structure.positions[0] + [0.15, 0.02, 0.0]  # nm: forces
    simulation = build_simulation(config, structure)
    barostat = next(
        f for f in simulation.system.getForces() if isinstance(f, openmm.MonteCarloBarostat)
    )
    set_velocities(simulation.context, 1.0, 1)
    state = simulation.context.getState(energy=True)
    potential = load(model)
    frame = Frame(np.full(8, 6), structure.positions * 10, structure.box * 10, (True,) * 3)
    stress = potential(potential.to_graph(frame), stress=True).stress[0]
    virial = -float(stress.trace()) / 3 * 160.21766208 * 1e4  # eV/Å³ in bar
    volume = np.linalg.det(structure.box)  # nm³
    kinetic = state.getKineticEnergy().value_in_unit(unit.kilojoule_per_mole)
    ideal = 2 / 3 * kinetic / volume * 16.6053906660  # kJ/mol/nm³ in bar
    found = barostat.computeCurrentPressure(simulation.context).value_in_unit(unit.bar)
    assert abs(virial) > ideal > 1
    assert found == pytest.approx(ideal + virial, rel=1e-3)


def test_temperature_counts_what_can_move(configure):
    """Rigid water with a virtual site: 9 - 3 of each molecule, less 3 of the centre of mass."""
    forcefield = app.ForceField("amber14/tip4pew.xml")
    modeller = app.Modeller(app.Topology(), [])
    modeller.addSolvent(forcefield, model="tip4pew", boxSize=openmm.Vec3(1.8, 1.8, 1.8))
    system = forcefield.createSystem(modeller.topology, app.PME, 0.7 * unit.nanometer)
    waters = modeller.topology.getNumResidues()
    assert degrees_of_freedom(system) == 6 * waters - 3
    simulation = app.Simulation(
        modeller.topology, system, openmm.VerletIntegrator(0.001),
        openmm.Platform.getPlatformByName("Reference"),
    )  # fmt: skip
    simulation.context.setPositions(modeller.positions)
    simulation.context.setVelocitiesToTemperature(300, 1)
    text = io.StringIO()
    theirs = app.StateDataReporter(text, 1, temperature=True)
    state = simulation.context.getState(energy=True, positions=True, velocities=True)
    theirs.report(simulation, state)
    kinetic = state.getKineticEnergy().value_in_unit(unit.kilojoule_per_mole)
    found = temperature_of(kinetic, degrees_of_freedom(system))
    assert found == pytest.approx(float(text.getvalue().splitlines()[-1]), rel=1e-9)
    without = forcefield.createSystem(modeller.topology, app.PME, removeCMMotion=False)
    assert degrees_of_freedom(without) == degrees_of_freedom(system) + 3


@pytest.mark.parametrize("trajectory", ["dcd", "xtc"])
def test_npt_changes_the_box_and_logs_it(configure, tmp_path, trajectory):
    config = configure(ensemble="npt", pressure=1000, barostat_interval=2, trajectory=trajectory)
    run(config, tmp_path / "run", periodic_box(), Watcher())
    log = read_log(tmp_path / "run" / "state.csv")
    assert len(set(log["volume_nm3"])) > 3
    expected = 8 * 12.01078 * 1.66053906660e-3 / log["volume_nm3"]
    np.testing.assert_allclose(log["density_g_mL"], expected, atol=1e-6)
    frames = mdtraj.load(
        tmp_path / "run" / f"trajectory.{trajectory}", top=tmp_path / "run" / "topology.pdb"
    )
    np.testing.assert_allclose(frames.unitcell_volumes, log["volume_nm3"][::2], rtol=1e-5)


def test_coordinates_are_never_wrapped(configure, tmp_path):
    structure = periodic_box()
    structure.positions[0] += [1.8, -2.7, 0.9]  # whole boxes away
    run(configure(), tmp_path / "run", structure, Watcher())
    frames = mdtraj.load(tmp_path / "run" / "trajectory.dcd", top=tmp_path / "run" / "topology.pdb")
    np.testing.assert_allclose(frames.xyz[0], structure.positions, atol=1e-6)


def test_hdf5_is_written_at_the_end(configure, tmp_path):
    pytest.importorskip("tables")
    ethanol_run(configure(trajectory="h5"), tmp_path / "h5")
    ethanol_run(configure(), tmp_path / "dcd")
    assert not (tmp_path / "h5" / "trajectory.dcd").exists()
    h5 = mdtraj.load(tmp_path / "h5" / "trajectory.h5")
    dcd = mdtraj.load(tmp_path / "dcd" / "trajectory.dcd", top=tmp_path / "dcd" / "topology.pdb")
    np.testing.assert_array_equal(h5.xyz, dcd.xyz)
    np.testing.assert_allclose(h5.time, np.arange(6) * 8 * 0.5e-3, rtol=1e-6)
    assert h5.topology.n_bonds == 8


def test_velocities_have_the_temperature_and_no_drift(configure):
    simulation = build_simulation(configure(ensemble="nve"), load_structure("ethanol"))
    masses = np.array([atom.element.mass._value for atom in simulation.topology.atoms()])
    kinetic = []
    for seed in range(1, 201):
        set_velocities(simulation.context, 300.0, seed)
        state = simulation.context.getState(velocities=True)
        velocities = state.getVelocities(asNumpy=True).value_in_unit(
            unit.nanometer / unit.picosecond
        )
        assert np.abs(masses @ velocities).max() < 1e-10
        kinetic.append(0.5 * (masses[:, None] * velocities**2).sum())
    expected = 0.5 * 24 * 8.31446261815324e-3 * 300
    error = expected * np.sqrt(2 / 24 / 200)  # of the mean of 200 samples of chi² with 24
    assert abs(np.mean(kinetic) - expected) < 4 * error


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temprature": 300}, "did you mean 'temperature'"),
        ({"time": "10 ps"}, "either 'time: 10 ps' or 'steps: 20000'"),
        ({"steps": None}, "either 'time: 10 ps' or 'steps: 20000'"),
        ({"steps": None, "time": "10"}, "number and one of the units"),
        ({"steps": None, "time": 10}, "number and one of the units"),
        ({"log_interval": "10 minutes"}, "number and one of the units"),
        ({"timestep": "half"}, "number and one of the units"),
        ({"timestep": "0.5 ps"}, r"500 fs is longer than atoms vibrate: 0\.5 fs is usual"),
        ({"steps": None, "time": "0.4 fs"}, "is less than a time step, 0\\.5 fs"),
        ({"ensemble": "nvpt"}, "ensemble"),
        ({"trajectory_interval": 0}, "trajectory_interval"),
    ],
)
def test_bad_values_are_one_clear_line(configure, changes, message):
    with pytest.raises(InputError, match=message) as error:
        configure(**changes)
    assert "\n" not in str(error.value)


def test_times_become_steps(configure):
    config = configure(
        steps=None, time="1.5 ps", timestep="0.25 fs", ensemble="NVE", log_interval="10 fs",
        trajectory_interval=7, checkpoint_interval="2min",
    )  # fmt: skip
    assert (config.total_steps, config.log_steps, config.trajectory_steps) == (6000, 40, 7)
    assert (config.checkpoint_steps, config.checkpoint_seconds) == (None, 120.0)
    by_steps = configure(checkpoint_interval="1 ps")
    assert (by_steps.checkpoint_steps, by_steps.checkpoint_seconds) == (2000, None)


def test_a_bond_that_minimisation_tears_is_said(configure, tmp_path):
    """Repulsion of all atoms tears all bonds."""
    config = NequIPConfig(
        type_names=["H", "C", "O"], r_max=4.0, num_layers=1, num_features=4,
        avg_num_neighbors=6.0, per_type_energy_scales=1e-4, pair_potential="zbl",
    )  # fmt: skip
    path = tmp_path / "repulsive.safetensors"
    Potential(config).save(path)
    watcher = Watcher()
    ethanol_run(configure(potential=str(path), minimise=True, steps=4), tmp_path / "run", watcher)
    assert any(m.startswith("warning: minimisation has torn 8 bonds (atom 0 ") for m in
               watcher.messages), watcher.messages  # fmt: skip


def test_an_unknown_platform_names_those_there_are(configure, tmp_path):
    with pytest.raises(InputError, match="Reference, CPU"):
        ethanol_run(configure(platform="GPU"), tmp_path / "run")


def test_the_engine_is_the_configurations(configure, tmp_path):
    """Both engines run the same simulation, up to rounding."""
    energies = {}
    for engine in ("fused", "reference"):
        config = configure(engine=engine, precision="double")
        ethanol_run(config, tmp_path / engine, Watcher())
        versions = json.loads((tmp_path / engine / "versions.json").read_text())
        assert versions["engine"] == engine
        energies[engine] = read_log(tmp_path / engine / "state.csv")["total_kJ_mol"]
    np.testing.assert_allclose(energies["fused"], energies["reference"], rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("environment", "num_threads", "expected"), [(None, None, 1), ("2", None, 2), ("2", 1, 1)]
)
def test_small_systems_take_one_thread_unless_told(
    configure, monkeypatch, environment, num_threads, expected
):
    if environment is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", environment)
    before = torch.get_num_threads()
    set_num_threads(2)
    try:
        build_simulation(configure(num_threads=num_threads), load_structure("ethanol"))
        assert torch.get_num_threads() == expected
        assert numba.get_num_threads() == min(expected, numba.config.NUMBA_NUM_THREADS)
    finally:
        set_num_threads(before)
