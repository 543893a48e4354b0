"""The command line as a whole: help is instant and complete, mistakes are one line."""

import subprocess
import sys

import pytest

COMMANDS = ["train", "evaluate", "simulate", "analyze", "info", "models", "doctor"]


def openmm_nequip(*arguments, cwd=None):
    code = "from openmm_nequip.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=cwd
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_a_worked_example(command):
    result = openmm_nequip(command, "--help")
    assert result.returncode == 0, result.stderr
    assert f"openmm-nequip {command}" in result.stdout.replace("\n", " ")


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
    ],
)
def test_bad_input_is_one_line(arguments, message, tmp_path):
    result = openmm_nequip(*arguments, cwd=tmp_path)
    assert result.returncode != 0
    assert result.stdout == ""
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
