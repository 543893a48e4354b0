"""What the options of ``openmm-nequip benchmark`` ask for; nothing is measured."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from openmm_nequip.benchmarking import run as module
from openmm_nequip.benchmarking.results import PARTS
from openmm_nequip.benchmarking.run import Settings
from openmm_nequip.cli import app, commands  # noqa: F401 - registers the command


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Return the settings with which a command would measure."""
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        monkeypatch.setenv(name, "1")  # the command sets them
    monkeypatch.chdir(tmp_path)

    def call(arguments: str) -> Settings:
        asked = []

        def note(settings, folder, overwrite, observer, stage) -> dict:
            asked.append(settings)
            assert (folder, overwrite) == (Path("out"), False)
            return {"rows": [], "machine": {}, "versions": {}}

        monkeypatch.setattr(module, "run", note)
        result = CliRunner().invoke(app, ["benchmark", "out", "--threads", "1", *arguments.split()])
        assert result.exit_code == 0, result.exception
        return asked[0]

    return call


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ("", ["energy", "md"]),
        ("--profile", ["energy", "md", "profile"]),
        ("--part md", ["md"]),
        ("--part training --profile", ["training", "profile"]),
        ("--part profile --profile", ["profile"]),
        ("--full", list(PARTS)),
        ("--full --profile", list(PARTS)),
        ("--full --part md --profile", ["md", "profile"]),
    ],
)
def test_a_profile_comes_on_top_of_the_parts(settings, arguments, parts):
    assert settings(arguments).parts == parts


def test_what_is_measured_is_chosen(settings):
    chosen = settings(
        "--model S --model L --atoms 21 --atoms 96 --engine fused --engine nequip --repeats 3 "
        "--minutes 4 --device cpu --platform Reference --data frames.xyz"
    )
    assert chosen == Settings(
        models=["S", "L"], atoms=[21, 96], engines=["fused", "nequip"], repeats=3, minutes=4.0,
        device="cpu", platform="Reference", data=Path("frames.xyz"), threads=1,
    )  # fmt: skip
    assert not chosen.compile
    assert settings("--engine nequip-aotinductor").compile
