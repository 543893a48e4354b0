"""Every option of ``openmm-nequip prepare`` arrives where it is meant to, with its value."""

from dataclasses import asdict, fields
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from openmm_nequip.cli import app, commands  # noqa: F401 - registers the command
from openmm_nequip.errors import InputError
from openmm_nequip.md import prepare as module
from openmm_nequip.md.choices import Choices

RECORD = {
    "num_atoms": 9, "waters": 0, "ions": {}, "box_nm": None, "formula": "C2H6O", "force_fields": [],
    "total_charge": 0.0, "bonded_terms": True, "potential": {"name": "organic-small"},
    "ml_region": {"selection": "all", "atoms": list(range(9)), "charge": 0},
    "small_molecules": [{"smiles": "CCO"}],
}  # fmt: skip
#: Arguments behind the structure, and what they are for `Choices`.
OPTIONS = {
    "system.rst7": {"coordinates": "system.rst7"},
    "--padding 1.5nm": {"padding": 1.5},
    "--box 3.5nm": {"width": 3.5},
    "--cutoff 9A": {"cutoff": 0.9},
    "--salt 0.15": {"salt": 0.15},
    "--water opc3": {"water": "opc3"},
    "--ligand a.sdf --ligand CCO": {"ligands": ["a.sdf", "CCO"]},
    "--ml-region resname=LIG": {"region": "resname=LIG"},
    "--charges xtb": {"charges": "xtb"},
    "--charge -1": {"charge": -1},
    "--shape octahedron": {"shape": "octahedron"},
    "--ph 5.5": {"ph": 5.5},
    "--force-field a.xml --force-field b.xml": {"force_fields": ["a.xml", "b.xml"]},
    "--small-molecules openff": {"small_molecules": "openff"},
    "--potential ethanol-pbe": {"potential": "ethanol-pbe"},
    "--seed 7": {"seed": 7},
}


@pytest.fixture
def prepare(tmp_path, monkeypatch):
    """Return the choices that a command makes, and the folders it writes."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[Choices, list[Path]]:
        chosen, written = [], []

        def note(choices: Choices, say) -> SimpleNamespace:
            chosen.append(choices)
            return SimpleNamespace(record=RECORD, write=written.append)

        monkeypatch.setattr(module, "prepare", note)
        result = CliRunner().invoke(app, ["prepare", *arguments])
        if result.exception is not None:
            raise result.exception
        assert result.exit_code == 0
        (choices,) = chosen
        return choices, written

    return call


def plain(choices: Choices) -> dict:
    return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(choices).items()}


@pytest.mark.parametrize("options", OPTIONS)
def test_option_is_the_choice(prepare, options):
    choices, _ = prepare("CCO", *options.split())
    expected = plain(Choices("CCO")) | OPTIONS[options]
    assert plain(choices) == expected


def test_without_options_the_choices_are_the_defaults(prepare):
    choices, written = prepare("CCO")
    assert plain(choices) == plain(Choices("CCO"))
    assert written == [Path("ethanol")]


def test_every_choice_has_an_option():
    tested = {name for values in OPTIONS.values() for name in values}
    assert tested == {field.name for field in fields(Choices)} - {"source"}


def test_output_is_the_folder(prepare):
    for option in ("-o", "--output"):
        assert prepare("CCO", option, "mine")[1] == [Path("mine")]
    Path("complex.pdb").touch()
    assert prepare("complex.pdb")[1] == [Path("complex")]


def test_there_is_no_negative_salt(prepare):
    with pytest.raises(InputError, match=r"--salt is -0\.1 mol/L"):
        prepare("CCO", "--salt", "-0.1")
