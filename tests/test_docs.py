"""The documentation points at things that exist, and its examples are valid."""

import re
from pathlib import Path

import pytest
import yaml

from openmm_nequip.config import parse_config
from openmm_nequip.md.config import SimulationConfig
from openmm_nequip.training.config import TrainConfig

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("models/*/*.md")])
RECIPES = sorted([*ROOT.glob("models/*/*.yaml"), *ROOT.glob("simulations/*/*.yaml")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page):
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def valid(values: dict) -> None:
    kind = TrainConfig if "data" in values else SimulationConfig
    parse_config(kind, values, where="example")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_are_valid(page):
    for text in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL):
        valid(yaml.safe_load(text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_do_not_meet_in_a_run_folder(page):
    """A run folder is never overwritten: what follows a page in order must not come upon one."""
    made: dict[str, str] = {}
    commands = re.findall(
        r"^openmm-nequip (simulate|train) (\S+)\.yaml\b(.*)$", page.read_text(), re.M
    )
    for command, config, rest in commands:
        output = re.search(r"output=(\S+)", rest)
        folder = output[1] if output else f"runs/{Path(config).name}"
        assert made.setdefault(folder, command) == command, folder


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_recipes_are_valid(recipe, monkeypatch):
    monkeypatch.setenv("OPENMM_NEQUIP_DATA", "data")
    monkeypatch.setenv("ORGANIC", "data")
    valid(yaml.safe_load(recipe.read_text()))
