"""Statistics against numbers that can be had by hand."""

from dataclasses import replace

import numpy as np
import pytest

from openmm_nequip.data.frame import Frame
from openmm_nequip.data.statistics import Statistics, compute_statistics
from openmm_nequip.errors import InputError

from .make import frames


def molecule(counts, energy, forces=None):
    """Return atoms of (H, C, O) in a row, 1 Å apart."""
    numbers = np.repeat([1, 6, 8], counts)
    positions = np.zeros((len(numbers), 3))
    positions[:, 0] = np.arange(len(numbers))
    return Frame(numbers, positions, energy=energy, forces=forces)


def test_neighbors():
    row = molecule([2, 1, 1], -1.0)  # H H C O
    s = compute_statistics([row], ["H", "C", "O"], 1.5)
    assert s.avg_num_neighbors == 1.5
    assert s.avg_num_neighbors_per_type == {"H": 1.5, "C": 2.0, "O": 1.0}
    assert (s.num_frames, s.num_atoms) == (1, 4)
    s = compute_statistics([row], ["O", "H", "C"], 2.5)
    assert s.avg_num_neighbors_per_type == {"O": 2.0, "H": 2.5, "C": 3.0}


def test_neighbors_with_cutoffs_per_edge_type():
    row = molecule([2, 1, 1], -1.0)
    s = compute_statistics(
        [row], ["H", "C", "O"], 2.5, per_edge_type_cutoff={"C": 1.5, "H": {"O": 0.5}}
    )
    # H0: H1 C2; H1: H0 C2; C: H1 O3; O: H1 C2
    assert s.avg_num_neighbors_per_type == {"H": 2.0, "C": 2.0, "O": 2.0}
    s = compute_statistics([row], ["H", "C", "O"], 2.5, per_edge_type_cutoff={"O": {"C": 0.5}})
    assert s.avg_num_neighbors_per_type == {"H": 2.5, "C": 3.0, "O": 1.0}


def test_periodic_images_count():
    crystal = Frame(np.array([14]), np.zeros((1, 3)), np.eye(3) * 2.0, (True,) * 3, -5.0)
    assert compute_statistics([crystal], ["Si"], 2.1).avg_num_neighbors == 6
    assert compute_statistics(
        [crystal], ["Si"], 3.0, per_edge_type_cutoff={"Si": 2.1}
    ).avg_num_neighbors == 6  # fmt: skip


def test_forces():
    forces = np.array([[3.0, 0, 0], [0, 3.0, 0], [0, 0, 6.0]])
    s = compute_statistics(
        [molecule([2, 1, 0], 0.0, forces), molecule([1, 1, 1], 0.0)], ["H", "C", "O"], 1.5
    )
    assert s.force_rms == pytest.approx(np.sqrt((9 + 9 + 36) / 9), rel=1e-14)
    assert s.force_rms_per_type == pytest.approx({"H": np.sqrt(18 / 6), "C": np.sqrt(36 / 3)})
    s = compute_statistics([molecule([1, 1, 0], 0.0)], ["H", "C"], 1.5)
    assert s.force_rms is None
    assert s.force_rms_per_type == {}


def test_wrong_units_are_suspected():
    forces = np.array([[3.0, 0, 0], [0, 3.0, 0], [0, 0, 6.0]])
    elements = ["H", "C", "O"]
    assert not compute_statistics([molecule([2, 1, 0], 0.0, forces)], elements, 1.5).notes[1:]
    notes = compute_statistics([molecule([2, 1, 0], 0.0, 23 * forces)], elements, 1.5).notes
    assert any("root mean square of 56.3 eV/Å" in note and "energy_unit" in note for note in notes)
    small = molecule([2, 1, 0], 0.0, forces)
    small.positions[:] *= 0.1  # nm
    notes = compute_statistics([small], elements, 1.5).notes
    assert any("two atoms are 0.1 Å apart" in note and "length_unit" in note for note in notes)


def test_closest_pairs_and_largest_force():
    row = molecule([2, 1, 1], -1.0, np.array([[0, 0, 1.0], [3, 4, 0], [0, 2, 0], [0, 0, 0]]))
    near = molecule([0, 1, 1], -1.0, np.array([[-4.0, 0, 0], [4, 0, 0]]))
    near.positions[1, 0] = 0.8
    s = compute_statistics([row, near], ["O", "H", "C"], 2.5)  # H H C O, and C O
    assert s.min_distances == pytest.approx({"H-O": 2.0, "C-O": 0.8, "H-H": 1.0, "C-H": 1.0})
    assert s.max_force == pytest.approx(5.0, rel=1e-14)
    assert s.num_neighbors_range == {"O": [1, 2], "H": [2, 3], "C": [1, 3]}
    # shorter cutoffs of some pairs are the network's affair
    s = compute_statistics([row], ["O", "H", "C"], 2.5, per_edge_type_cutoff={"O": 0.5})
    assert s.min_distances == pytest.approx({"H-O": 2.0, "C-O": 1.0, "H-H": 1.0, "C-H": 1.0})
    crystal = Frame(np.array([14]), np.zeros((1, 3)), np.eye(3) * 2.0, (True,) * 3, -5.0)
    s = compute_statistics([crystal], ["Si"], 2.1)
    assert (s.min_distances, s.max_force) == (pytest.approx({"Si-Si": 2.0}), None)
    assert s.num_neighbors_range == {"Si": [6, 6]}
    alone = compute_statistics([row, composed([1, 0, 0])], ["H", "C", "O"], 2.5)
    assert alone.num_neighbors_range["H"] == [2, 3]
    assert compute_statistics([crystal], ["Si"], 1.9).min_distances == {}


REFERENCES = {"H": -13.6, "C": -1030.0, "O": -2042.5}


def composed(counts):
    return molecule(counts, float(np.dot(counts, list(REFERENCES.values()))))


def test_least_squares():
    data = [composed(c) for c in ([4, 1, 0], [2, 0, 1], [6, 2, 1], [2, 1, 1])]
    s = compute_statistics(data, list(REFERENCES), 1.5)
    assert s.reference_energies == pytest.approx(REFERENCES, rel=1e-9)
    assert s.reference_source == "least squares"
    assert s.energy_rms_per_atom == pytest.approx(0.0, abs=1e-9)
    assert s.notes == []


def test_rank_deficient_composition():
    data = [composed([6, 2, 1]), composed([6, 2, 1])]
    s = compute_statistics(data, list(REFERENCES), 1.5)
    expected = np.array([6, 2, 1]) * data[0].energy / (36 + 4 + 1)
    np.testing.assert_allclose(list(s.reference_energies.values()), expected, rtol=1e-12)
    assert s.energy_rms_per_atom == pytest.approx(0.0, abs=1e-9)
    assert "determine 1 of 3 reference energies (H, C, O)" in s.notes[0]
    absent = compute_statistics([composed([4, 1, 0]), composed([2, 2, 0])], list(REFERENCES), 1.5)
    assert absent.reference_energies["O"] == pytest.approx(0.0, abs=1e-9)
    assert absent.reference_energies["C"] == pytest.approx(-1030.0, rel=1e-9)
    assert "determine 2 of 3" in absent.notes[0]


def test_isolated_atoms():
    atoms = [composed(c) for c in np.eye(3, dtype=int)]
    data = [molecule([6, 2, 1], -4200.0)]
    inside = compute_statistics([*data, *atoms], list(REFERENCES), 1.5)
    beside = compute_statistics(data, list(REFERENCES), 1.5, isolated_atoms=atoms)
    for s in (inside, beside):
        assert s.reference_energies == REFERENCES
        assert s.reference_source == "isolated atoms"
    assert beside.energy_rms_per_atom == pytest.approx(abs(-4200 - composed([6, 2, 1]).energy) / 9)
    fitted = compute_statistics(
        [*data, *atoms], list(REFERENCES), 1.5, reference_energies="least-squares"
    )
    assert fitted.reference_source == "least squares"
    with pytest.raises(InputError, match="no isolated-atom frame for C, O"):
        compute_statistics([*data, atoms[0]], list(REFERENCES), 1.5, reference_energies="isolated")
    with pytest.raises(InputError, match=r"isolated H atoms have different energies: -13.6000 eV"):
        compute_statistics([*atoms, molecule([1, 0, 0], -13.5)], list(REFERENCES), 1.5)


@pytest.mark.parametrize("request_", ["least-squares", REFERENCES])
def test_isolated_atoms_that_are_not_used_may_differ(request_):
    """In spin, for example."""
    atoms = [composed(c) for c in np.eye(3, dtype=int)]
    data = [*atoms, molecule([1, 0, 0], -13.5), composed([6, 2, 1])]
    s = compute_statistics(data, list(REFERENCES), 1.5, reference_energies=request_)
    assert s.reference_energies["O"] == pytest.approx(REFERENCES["O"], abs=0.2)


def test_isolated_atoms_of_some_elements_are_said_not_to_be_used():
    data = [composed([1, 0, 0]), composed([2, 0, 1]), composed([0, 1, 1]), composed([4, 1, 0])]
    s = compute_statistics(data, list(REFERENCES), 1.5)
    assert s.reference_source == "least squares"
    assert s.notes[0] == (
        "isolated atoms of H are no reference energies, because there is none of C, O: all were "
        "fitted by least squares"
    )


def test_a_periodic_single_atom_is_not_isolated():
    crystal = Frame(np.array([1]), np.zeros((1, 3)), np.eye(3) * 2.0, (True,) * 3, -5.0)
    assert compute_statistics([crystal], ["H"], 1.0).reference_source == "least squares"


def test_given_reference_energies():
    s = compute_statistics([composed([1, 1, 0])], ["H", "C"], 1.5, reference_energies=REFERENCES)
    assert s.reference_energies == {"H": -13.6, "C": -1030.0}
    assert s.reference_source == "given"
    with pytest.raises(InputError, match="reference energies lack N"):
        compute_statistics(
            [composed([1, 1, 0])], ["H", "C", "N"], 1.5, reference_energies=REFERENCES
        )
    with pytest.raises(InputError, match="'mean' is not 'auto'"):
        compute_statistics([composed([1, 1, 0])], ["H", "C"], 1.5, reference_energies="mean")


def test_without_energies():
    s = compute_statistics([replace(composed([1, 1, 0]), energy=None)], ["H", "C"], 1.5)
    assert s.reference_energies == {"H": 0.0, "C": 0.0}
    assert s.reference_source == "none"
    assert s.energy_rms_per_atom is None


def test_json_and_errors():
    s = compute_statistics(iter(frames(3)), ["H", "O"], 2.0)
    assert Statistics.from_json(s.to_json()) == s
    with pytest.raises(InputError, match="no frames"):
        compute_statistics([], ["H"], 2.0)
    with pytest.raises(InputError, match="made:0 contains O, which is not among the elements: H"):
        compute_statistics(frames(1), ["H"], 2.0)
