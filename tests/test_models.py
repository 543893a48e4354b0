"""What is true of every bundled potential."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase.data import chemical_symbols

from openmm_nequip import list_models
from openmm_nequip.domain import pair_name, read_domain
from openmm_nequip.modelfile import DEFAULT_MODEL, find_model, read_header

from .bundled import PATH, evaluate, frame_of

FOLDER = Path(__file__).parents[1] / "models"
SECTIONS = ("| for |", "| not for |", "| level of theory |", "| licence |", "| cite |")


def test_they_are_those_of_the_folder_and_the_default_is_first():
    names = list_models()
    assert sorted(names) == sorted(folder.name for folder in FOLDER.iterdir() if folder.is_dir())
    assert names[0] == DEFAULT_MODEL


def test_together_they_are_small_enough_for_a_wheel():
    assert sum(find_model(name).stat().st_size for name in list_models()) < 25e6


@pytest.mark.parametrize("name", list_models())
def test_card_and_file_say_what_it_is(name):
    card = (FOLDER / name / "card.md").read_text()
    assert card.startswith(f"# {name}\n")
    assert [section for section in SECTIONS if section not in card] == []
    assert "## Fine-tuning" in card
    header = read_header(find_model(name))
    metadata = header["metadata"]
    assert all(metadata[key] for key in ("description", "licence", "citation"))
    assert metadata["errors"]["test"]["frames"] > 0
    domain = read_domain(header["config"]["elements"], metadata)
    elements = domain.elements
    row = next(line for line in card.splitlines() if line.startswith("| elements, cutoff |"))
    listed = row.split("|")[2].partition(";")[0].replace(" ", "").split(",")
    assert set(listed) == set(elements)
    assert f"{header['config']['r_max']:g} Å" in row


@pytest.mark.parametrize("name", list_models())
def test_all_of_the_domain_is_recorded(name):
    header = read_header(find_model(name))
    domain = read_domain(header["config"]["elements"], header["metadata"])
    assert (domain.charge, domain.multiplicity) == (0, 1)
    assert domain.limited(domain.elements) == domain  # nothing of elements that are refused
    assert set(domain.num_neighbors) == set(domain.elements)
    assert all(pair_name(element, "H") in domain.min_distances for element in domain.elements)
    assert domain.max_force > 1
    assert set(header["metadata"]["reference_energies"]) == set(domain.elements)


@pytest.mark.parametrize("name", list_models())
def test_it_computes_what_it_did(name):
    """A change of the code must not change the function of a released potential."""
    entries = json.loads(PATH.read_text())[name]
    domain = read_domain(
        read_header(find_model(name))["config"]["elements"],
        read_header(find_model(name))["metadata"],
    )
    seen = {int(number) for entry in entries.values() for number in entry["numbers"]}
    assert {chemical_symbols[number] for number in seen} == set(domain.elements)
    for entry in entries.values():
        energy, forces = evaluate(name, frame_of(entry))
        assert np.abs(entry["forces"]).max() > 0.5
        assert energy == pytest.approx(entry["energy"], abs=1e-8)
        np.testing.assert_allclose(forces, entry["forces"], atol=1e-8)
