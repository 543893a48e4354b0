"""From a run folder to its summary and figures."""

import json

import ase
import numpy as np
import pytest
import yaml
from openmm import LangevinMiddleIntegrator, State, System, Vec3, app, unit
from PIL import Image

from openmm_nequip.analysis.plots import save_plots
from openmm_nequip.analysis.summary import analyze, read_log, save_summary
from openmm_nequip.errors import InputError
from openmm_nequip.md.folder import write_structure
from openmm_nequip.md.reporters import Reading, StateLog, TrajectoryWriter
from openmm_nequip.md.structure import Structure, from_ase, load_structure

FRAMES = 40


def frame(structure: Structure, positions: np.ndarray) -> State:
    """An OpenMM state with these positions (nm)."""
    system = System()
    for _ in positions:
        system.addParticle(1.0)
    if structure.box is not None:
        system.setDefaultPeriodicBoxVectors(*[Vec3(*row) for row in structure.box])
    simulation = app.Simulation(
        structure.topology, system, LangevinMiddleIntegrator(300, 1, 0.001), _reference()
    )
    simulation.context.setPositions(positions)
    return simulation.context.getState(positions=True)


def _reference():
    from openmm import Platform

    return Platform.getPlatform("Reference")


def make_run(folder, structure: Structure, ensemble: str) -> None:
    """A run folder whose contents are known: no simulation behind it."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    config = {
        "structure": "ethanol", "potential": "made-up", "ensemble": ensemble, "temperature": 250,
        "steps": 400, "log_interval": 10, "trajectory_interval": 10,
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    write_structure(folder / "topology.pdb", structure.topology, structure.positions)
    log = StateLog(folder / "state.csv", mass=46.0, periodic=structure.box is not None)
    trajectory = TrajectoryWriter(folder / "trajectory.dcd", structure.topology, 0.0005, 10)
    volume = None if structure.box is None else float(np.linalg.det(structure.box))
    for k in range(FRAMES + 1):
        kinetic = 20 + rng.normal()
        total = -1000 + 0.5 * k * 0.005  # kJ/mol, drifts by 0.5 per ps
        log.append(10 * k, k * 0.005, Reading(total - kinetic, kinetic, 250.0 + k, volume), 3.5)
        shaken = structure.positions + rng.normal(0, 1e-4, structure.positions.shape)
        trajectory.append(frame(structure, shaken))
    trajectory.close()


def test_the_summary_says_what_is_in_the_folder(tmp_path):
    make_run(tmp_path / "run", load_structure("ethanol"), "nve")
    analysis = analyze(tmp_path / "run")
    summary = analysis.summary
    assert (summary["atoms"], summary["formula"], summary["frames"]) == (9, "C2H6O", FRAMES + 1)
    assert summary["finished"] is True
    assert summary["time_ps"] == pytest.approx(0.2)
    assert summary["averages_from_ps"] == pytest.approx(0.04)
    assert summary["temperature_K"]["value"] == pytest.approx(250 + np.arange(8, 41).mean())
    drift = summary["total_energy_drift_kJ_mol_atom_ps"]["value"]
    assert drift == pytest.approx(0.5 / 9, rel=1e-3)
    in_mev = summary["total_energy_drift_meV_atom_ps"]["value"]
    assert in_mev == pytest.approx(drift * 10.364270, rel=1e-6)
    lengths = summary["bond_lengths_A"]
    assert set(lengths) == {"C-C", "C-H", "C-O", "H-O"}
    assert lengths["C-C"]["mean"] == pytest.approx(1.5113, abs=1e-3)
    assert analysis.bond_lengths["C-H"].shape == (FRAMES + 1 - 8, 5)
    np.testing.assert_allclose(analysis.frame_times, np.arange(FRAMES + 1) * 0.005)
    assert "target_temperature_K" not in summary


@pytest.mark.parametrize("ensemble", ["nve", "nvt", "npt"])
def test_figures_and_summaries_are_written(tmp_path, ensemble):
    structure = load_structure("ethanol")
    expected = {"overview", "energy", "temperature", "rmsd", "bonds"}
    if ensemble == "nve":
        expected.add("drift")
    if ensemble == "npt":
        atoms = ase.Atoms("H4O2", np.random.default_rng(1).uniform(0, 6, (6, 3)))
        atoms.set_cell([6.0, 7.0, 8.0])
        atoms.pbc = True
        structure = from_ase(atoms)
        expected |= {"rdf", "density"}
        expected -= {"bonds"} if structure.topology.getNumBonds() == 0 else set()
    make_run(tmp_path / "run", structure, ensemble)
    analysis = analyze(tmp_path / "run")
    plots = save_plots(analysis, tmp_path / "run" / "plots")
    save_summary(analysis, tmp_path / "run", plots)
    assert {path.stem for path in plots} == expected
    for path in plots:
        pixels = np.asarray(Image.open(path).convert("L"))
        assert (pixels < 128).any()
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == analysis.summary
    text = (tmp_path / "run" / "summary.md").read_text()
    assert "plots/overview.png" in text
    assert "made-up" in text
    assert ("thermostat 250 K" in text) == (ensemble != "nve")


def test_density_of_a_box(tmp_path):
    structure = from_ase(ase.Atoms("O", cell=[10, 10, 10], pbc=True))
    make_run(tmp_path / "run", structure, "nvt")
    value = analyze(tmp_path / "run").summary["density_g_mL"]["value"]
    assert value == pytest.approx(46.0 * 1.66053906660e-3, rel=1e-4)  # 46 u in 1 nm³


def test_a_row_in_the_writing_is_left_out(tmp_path):
    make_run(tmp_path / "run", load_structure("ethanol"), "nvt")
    path = tmp_path / "run" / "state.csv"
    path.write_text(path.read_text() + "410,0.20")
    assert read_log(path)["step"][-1] == 400


def test_not_a_run_folder_is_one_clear_line(tmp_path):
    with pytest.raises(InputError, match="not a run folder"):
        analyze(tmp_path)
    make_run(tmp_path / "run", load_structure("ethanol"), "nvt")
    (tmp_path / "run" / "trajectory.dcd").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"cannot read '.*trajectory.dcd'"):
        analyze(tmp_path / "run")
    (tmp_path / "run" / "trajectory.dcd").unlink()
    with pytest.raises(InputError, match="no trajectory"):
        analyze(tmp_path / "run")


def test_positions_come_back_in_angstrom(tmp_path):
    structure = load_structure("ethanol")
    make_run(tmp_path / "run", structure, "nvt")
    deviation = analyze(tmp_path / "run").rmsd
    # Two frames that each differ from the structure by 1e-3 Å per coordinate, less the six
    # rigid motions out of 27 coordinates.
    expected = 1e-3 * np.sqrt(2 * 3 * 21 / 27)
    assert deviation[1:].mean() == pytest.approx(expected, rel=0.15)
    assert structure.positions.max() * unit.nanometer < 3 * unit.angstrom
