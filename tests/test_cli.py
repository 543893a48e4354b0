"""The command line as a whole: help is instant and complete, mistakes are one line."""

import os
import re
import subprocess
import sys

import pytest
import torch

from openmm_nequip.architectures.nequip import NequIPConfig
from openmm_nequip.potential import Potential

COMMANDS = [
    "train",
    "evaluate",
    "prepare",
    "free-energy",
    "simulate",
    "analyze",
    "info",
    "models",
    "benchmark",
    "doctor",
]


#: What makes typer and rich colour their output, or take another width.
STYLES = ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "TERMINAL_WIDTH", "TTY_COMPATIBLE")


def openmm_nequip(*arguments, cwd=None):
    code = "from openmm_nequip.cli import main; main()"
    environment = {key: value for key, value in os.environ.items() if key not in STYLES}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment | {"COLUMNS": "80", "NO_COLOR": "1"},
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_a_worked_example(command):
    result = openmm_nequip(command, "--help")
    assert result.returncode == 0, result.stderr
    assert f"openmm-nequip {command}" in result.stdout.replace("\n", " ")


def test_the_version():
    from importlib.metadata import version

    result = openmm_nequip("--version")
    assert result.stdout == f"openmm-nequip {version('openmm-nequip')}\n"
    assert result.returncode == 0


def test_defaults_of_benchmark_are_shown():
    help_text = openmm_nequip("benchmark", "--help").stdout
    for default in ("[energy, md]", "[all]", "[the fastest]", "[synthetic]"):
        assert default in help_text


def test_lists_in_examples_are_shown():
    assert "force_field: [amber14-all.xml," in openmm_nequip("simulate", "--help").stdout


def test_help_lists_every_command():
    result = openmm_nequip("--help")
    assert all(f" {command} " in result.stdout for command in COMMANDS)


def test_help_imports_nothing_heavy():
    code = (
        "import sys; import openmm_nequip.cli.commands; "
        "print([m for m in ('torch', 'e3nn', 'lightning', 'mdtraj') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "nothing.safetensors"], "model file 'nothing.safetensors' does not exist"),
        (["info", "no-such-model"], "no bundled potential is called 'no-such-model'"),
        (["train", "nothing.yaml"], "'nothing.yaml' does not exist"),
        (["simulate", "nothing.yaml"], "'nothing.yaml' does not exist"),
        (["evaluate", "nothing.safetensors", "data.xyz"], "does not exist"),
        (["analyze", "no-such-folder"], "no-such-folder"),
        (["train", "a[b].yaml"], "'a[b].yaml' does not exist"),
    ],
)
def test_bad_input_is_one_line(arguments, message, tmp_path):
    result = openmm_nequip(*arguments, cwd=tmp_path)
    assert result.returncode != 0
    assert result.stdout == ""
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr


@pytest.fixture
def water_model(tmp_path):
    """A model file with a domain, and a card."""
    torch.manual_seed(0)
    config = NequIPConfig(
        type_names=["H", "O"], avg_num_neighbors=2.0, num_layers=1, num_features=4
    )
    domain = {
        "elements": ["H", "O"], "charge": 0, "multiplicity": 1,
        "min_distances": {"H-H": 1.31, "H-O": 0.82}, "max_force": 12.34,
        "num_neighbors": {"H": [3, 17], "O": [2, 16]},
    }  # fmt: skip
    Potential(config, {"domain": domain}).save(tmp_path / "water.safetensors")
    (tmp_path / "here.png").touch()
    card = "# water\n\nGood for tests.\n\n![Here it is](here.png)\n\n![Elsewhere](x/there.png)\n"
    (tmp_path / "card.md").write_text(card)
    return tmp_path


def test_info_shows_domain_and_card(water_model):
    result = openmm_nequip("info", "water.safetensors", cwd=water_model)
    assert result.returncode == 0, result.stderr
    shown = " ".join(result.stdout.split())
    for text in (
        "│ elements │ H O │", "│ meant for │ charge 0, multiplicity 1 │",
        "│ closest in training, Å │ H-H 1.31 H-O 0.82 │", "│ neighbours there │ H 3-17, O 2-16 │",
        "│ largest force there │ 12.3 eV/Å │",
        "Good for tests.", "Figure: Here it is, ",
        "Figure: Elsewhere, in the card of the online repository",
    ):  # fmt: skip
        assert text in shown
    assert str(water_model / "here.png") in result.stdout.replace("\n", "")
    assert max(map(len, result.stdout.splitlines())) <= 80
    without = openmm_nequip("info", "water.safetensors", "--no-card", cwd=water_model)
    assert "Good for tests" not in without.stdout


def test_info_and_models_of_the_bundled_potential():
    info = openmm_nequip("info", "ethanol-pbe", "--no-card").stdout
    assert "H C O" in info
    assert all(word in info for word in ("charge 0", "closest in", "largest force"))
    assert "None" not in info
    listed = openmm_nequip("models").stdout
    assert all(word in listed for word in ("ethanol-pbe", "H C O", "charge", "8.1"))
    assert max(map(len, listed.splitlines())) <= 80


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "run.yaml").write_text(f"structure: water\nsteps: 1\noutput: {tmp_path}/file/run")
    result = openmm_nequip("simulate", "run.yaml", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.strip() == f"error: Not a directory: '{tmp_path}/file/run'"


def test_a_run_too_short_to_analyse_is_no_error(tmp_path):
    torch.manual_seed(0)
    config = NequIPConfig(
        type_names=["H", "O"], avg_num_neighbors=2.0, num_layers=1, num_features=4
    )
    Potential(config).save(tmp_path / "water.safetensors")
    (tmp_path / "run.yaml").write_text(
        "structure: water\npotential: water.safetensors\nsteps: 1\nminimise: false\n"
        "force: python\nplatform: Reference\n"
    )
    result = openmm_nequip("simulate", "run.yaml", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "finished, not analysed: 'runs/run/state.csv' has 1 rows" in result.stdout
    assert (tmp_path / "runs/run/final.pdb").exists()
    first, *_, last = [line for line in result.stdout.splitlines() if line.startswith("step ")]
    assert "ns/day" not in first  # nothing is known of it yet
    assert re.search(r"[\d.]+ ns/day  0:00 left$", last)
