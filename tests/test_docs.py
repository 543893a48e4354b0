"""The documentation points at things that exist, and its examples are valid."""

import ast
import importlib
import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from openmm_nequip.config import parse_config
from openmm_nequip.md.config import SimulationConfig
from openmm_nequip.training.config import (
    DataConfig,
    LossWeights,
    ModelConfig,
    TrainConfig,
    TrainingConfig,
)

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        ROOT / "README.md",
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("models/*/*.md"),
        *ROOT.glob("simulations/*/*.md"),
    ]
)
RECIPES = sorted([*ROOT.glob("models/*/*.yaml"), *ROOT.glob("simulations/*/*.yaml")])
SECTIONS = {"data": DataConfig, "model": ModelConfig, "training": TrainingConfig}
#: Page, heading of the first column of a table of keys, whose keys these are.
TABLES = [("train", "key", TrainingConfig), ("openmm", "other keys", SimulationConfig)]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


every_page = pytest.mark.parametrize("page", PAGES, ids=name)


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced examples in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Return what GitHub makes of the headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_links_resolve(page):
    for link in re.findall(r"\]\(([^):]+)\)", page.read_text()):
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_anchors_are_those_of_the_headings(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One `two`, three: *4*\n## A-b_c\n\n```bash\n# a comment\n```\n")
    assert anchors(page) == {"one-two-three-4", "a-b_c"}


def valid(values: dict) -> None:
    kind = TrainConfig if "data" in values else SimulationConfig
    parse_config(kind, values, where="example")


@every_page
def test_examples_are_valid(page):
    for text in blocks(page, "yaml"):
        valid(yaml.safe_load(text))


@every_page
def test_python_is_python_and_imports_what_there_is(page):
    for text in blocks(page, "python"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                imported = [(alias.name, None) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                imported = [(node.module, alias.name) for alias in node.names]
            else:
                continue
            for module, attribute in imported:
                if module.partition(".")[0] != "openmm_nequip":
                    continue
                found = importlib.import_module(module)
                if attribute is not None and not hasattr(found, attribute):
                    importlib.import_module(f"{module}.{attribute}")


@every_page
def test_keys_with_their_section_exist(page):
    text = page.read_text()
    for section, key in re.findall(r"\b(data|model|training)\.(\w+)=", text):
        assert key in SECTIONS[section].model_fields, f"{section}.{key}"


def keys_in_table(page: Path, heading: str) -> list[str]:
    """Return the keys in the first column of the table with this heading there."""
    (table,) = re.findall(rf"^\| {heading} \|.*\n\|[-|]+\n((?:\|.*\n)+)", page.read_text(), re.M)
    return [key for row in table.splitlines() for key in re.findall(r"`(.+?)`", row.split("|")[1])]


@pytest.mark.parametrize(("page", "heading", "config"), TABLES, ids=["train", "simulate"])
def test_keys_in_tables_exist(page, heading, config):
    keys = keys_in_table(ROOT / f"docs/{page}.md", heading)
    assert len(keys) > 10
    assert [key for key in keys if key not in config.model_fields] == []


def words_in_code(page: Path) -> set[str]:
    """Return the words of everything that is set as code."""
    text = page.read_text()
    fenced = re.findall(r"^```.*?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    inline = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.M))
    return set(re.findall(r"\w+", "\n".join([*fenced, *inline])))


@pytest.mark.parametrize(
    ("page", "config"),
    [
        ("train", TrainConfig),
        ("train", DataConfig),
        ("train", ModelConfig),
        ("train", TrainingConfig),
        ("train", LossWeights),
        ("openmm", SimulationConfig),
    ],
)
def test_every_key_is_on_the_page(page: str, config: type[BaseModel]):
    assert set(config.model_fields) - words_in_code(ROOT / f"docs/{page}.md") == set()


@every_page
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


@pytest.mark.parametrize("recipe", RECIPES, ids=name)
def test_recipes_are_valid(recipe, monkeypatch):
    monkeypatch.setenv("OPENMM_NEQUIP_DATA", "data")
    monkeypatch.setenv("ORGANIC", "data")
    valid(yaml.safe_load(recipe.read_text()))
