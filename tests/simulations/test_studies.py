"""The studies under simulations/ run as their pages say, in their short form."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

STUDIES = Path(__file__).parents[2] / "simulations"
CASES = {
    "ethanol_vacuum": (["python", "run.py"], ["ethanol.dcd", "ethanol.csv"]),
    "ethanol_in_water": (
        ["./run.sh"],
        ["ethanol-in-water/prepared.json", "runs/ethanol-in-water-2ps/report.html"],
    ),
    "alanine_dipeptide_in_water": (
        ["python", "run.py"],
        ["trajectory.dcd", "ramachandran.png"],
    ),
    "torsion_profile": (["python", "run.py"], ["profiles.png", "profiles.csv"]),
    "metadynamics": (["python", "run.py"], ["profile.png", "profile.csv"]),
    "force_field_to_potential": (
        ["./run.sh"],
        ["runs/vacuum-0.5ps/free_energy.json", "runs/water-0.5ps/free_energy.png"],
    ),
}


def test_every_study_is_run():
    assert {path.parent.name for path in STUDIES.glob("*/README.md")} == set(CASES)


@pytest.mark.slow
@pytest.mark.parametrize("study", CASES)
def test_study(study, tmp_path):
    command, files = CASES[study]
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
    for name in files:
        assert (folder / name).stat().st_size > 0, name
