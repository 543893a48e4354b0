"""The studies under simulations/ run as their pages say, in their short form, and make sense."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mdtraj
import numpy as np
import pytest

STUDIES = Path(__file__).parents[2] / "simulations"


def density(frames: mdtraj.Trajectory) -> np.ndarray:
    """Return g/mL."""
    mass = sum(atom.element.mass for atom in frames.topology.atoms)
    return mass * 1.66054e-3 / frames.unitcell_volumes


def check_ethanol_in_vacuum(folder: Path) -> None:
    frames = mdtraj.load(folder / "ethanol.dcd", top=folder / "ethanol.pdb")
    assert len(frames) == 100
    moved = mdtraj.rmsd(frames, frames) * 10
    assert 0.05 < moved[1:].mean() < 1.0  # it moves and stays whole
    steps, _, temperature = np.loadtxt(folder / "ethanol.csv", delimiter=",", skiprows=1).T
    assert steps[-1] == 2000
    assert 150 < temperature[5:].mean() < 450  # nine atoms


def check_ethanol_in_water(folder: Path) -> None:
    prepared = json.loads((folder / "ethanol-in-water" / "prepared.json").read_text())
    assert prepared["ml_region"]
    run = folder / "runs" / "ethanol-in-water-2ps"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["finished"]
    assert summary["ml_region"]["formula"] == "C2H6O"
    results = {name: found["value"] for name, found in summary["results"].items()}
    assert 230 < results["temperature"] < 330  # 1 ps of heating is too short for 300 K
    assert 0.85 < results["density"] < 1.1
    assert 1.38 < results["bond length C-O"] < 1.48
    assert (
        0.5
        < results["hydrogen bonds to water, given"] + results["hydrogen bonds to water, taken"]
        < 4
    )
    assert (run / "report.html").stat().st_size > 0


def check_alanine_dipeptide_in_water(folder: Path) -> None:
    frames = mdtraj.load(folder / "trajectory.dcd", top=folder / "topology.pdb")
    # the box that was built is too large, and shrinks
    assert density(frames)[-10:].mean() == pytest.approx(1.0, abs=0.15)
    check_alanine_dipeptide(frames)
    assert (folder / "ramachandran.png").stat().st_size > 0


def check_alanine_dipeptide(frames: mdtraj.Trajectory) -> None:
    peptide = frames.atom_slice(frames.topology.select("protein and element != H"))
    assert peptide.n_atoms == 10
    assert mdtraj.rmsd(peptide, peptide).max() * 10 < 2.5
    amide = mdtraj.compute_dihedrals(frames, [omega(frames.topology)], periodic=True)
    assert np.abs(np.degrees(amide)).min() > 130  # trans


def omega(topology: mdtraj.Topology) -> list[int]:
    """Atoms of the amide bond before alanine."""
    atoms = {(atom.residue.name, atom.name): atom.index for atom in topology.atoms}
    return [atoms[pair] for pair in (("ACE", "CH3"), ("ACE", "C"), ("ALA", "N"), ("ALA", "CA"))]


def check_torsion_profile(folder: Path) -> None:
    angle, *profiles = np.loadtxt(folder / "profiles.csv", delimiter=",", skiprows=1).T
    assert angle.tolist() == list(range(-180, 180, 30))
    phi, psi = profiles[:2], profiles[2:]
    for mm, ml in (phi, psi):
        for profile in (mm, ml):
            assert profile.min() == 0
            assert 10 < profile.max() < 80
        assert 1 < np.abs(mm - ml).max() < 40  # alike, and not the same
        assert np.corrcoef(mm, ml)[0, 1] > 0.7
    assert (folder / "profiles.png").stat().st_size > 0


def check_metadynamics(folder: Path) -> None:
    angle, energy = np.loadtxt(folder / "profile.csv", delimiter=",").T
    assert np.isfinite(energy).all()
    assert energy.min() == 0
    assert 2 < energy.max() < 12  # hills were added everywhere
    trans, gauche = energy[np.abs(angle) > 150].min(), energy[np.abs(np.abs(angle) - 60) < 30].min()
    barrier = energy[np.abs(np.abs(angle) - 120) < 15].max()
    assert barrier > max(trans, gauche) + 0.5
    assert (folder / "profile.png").stat().st_size > 0


def check_force_field_to_potential(folder: Path) -> None:
    water, vacuum = (
        json.loads((folder / "runs" / name / "free_energy.json").read_text())["free_energy_kJ_mol"]
        for name in ("water-0.5ps", "vacuum-0.5ps")
    )
    assert all(np.isfinite(found["error"]) for found in (water, vacuum))
    assert vacuum["value"] < -1e5  # the zero of the potential
    assert abs(water["value"] - vacuum["value"]) < 60  # cancels
    assert (folder / "runs" / "water-0.5ps" / "free_energy.png").stat().st_size > 0


CASES = {
    "ethanol_vacuum": (["python", "run.py"], check_ethanol_in_vacuum),
    "ethanol_in_water": (["./run.sh"], check_ethanol_in_water),
    "alanine_dipeptide_in_water": (["python", "run.py"], check_alanine_dipeptide_in_water),
    "torsion_profile": (["python", "run.py"], check_torsion_profile),
    "metadynamics": (["python", "run.py"], check_metadynamics),
    "force_field_to_potential": (["./run.sh"], check_force_field_to_potential),
}


def run(study: str, command: list[str], tmp_path: Path) -> Path:
    """Run a command in a copy of a study and return its folder."""
    shutil.copytree(STUDIES, tmp_path / "simulations")
    folder = tmp_path / "simulations" / study
    bin_folder = str(Path(sys.executable).parent)
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder


def test_every_study_is_run():
    assert {path.parent.name for path in STUDIES.glob("*/README.md")} == set(CASES)


@pytest.mark.slow
@pytest.mark.parametrize("study", CASES)
def test_study(study, tmp_path):
    command, check = CASES[study]
    check(run(study, command, tmp_path))


@pytest.mark.slow
def test_a_solvated_peptide_is_simulated_as_it_is(reference_data, tmp_path):
    given = reference_data / "mlmm_inputs/alanine-dipeptide-explicit.pdb"
    study, command = "alanine_dipeptide_in_water", ["python", "run.py", str(given)]
    folder = run(study, [*command, "--picoseconds", "0.2"], tmp_path)
    frames = mdtraj.load(folder / "trajectory.dcd", top=folder / "topology.pdb")
    assert (len(frames), frames.n_atoms) == (4, mdtraj.load(given).n_atoms)
    first, *_, last = density(frames)
    assert first < last  # a third of the box is empty: it shrinks
    check_alanine_dipeptide(frames)
