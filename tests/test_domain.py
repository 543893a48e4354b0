"""The domain of a potential: what is refused, and what is not."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from openmm_nequip.domain import Domain, net_charge, pair_name, read_domain
from openmm_nequip.errors import InputError

NEUTRAL = Domain(elements=["H", "C", "N", "O"], charge=0, multiplicity=1)
AMMONIUM = [7, 1, 1, 1, 1]


def test_what_belongs_to_the_domain():
    for name in ("CH3CH2OH", "H2O", "N2", "CH3CONH2"):
        NEUTRAL.check(molecule(name).numbers)
        NEUTRAL.check(molecule(name).numbers, 0)
    NEUTRAL.check(np.concatenate([molecule("H2O").numbers] * 3))


def test_elements():
    with pytest.raises(InputError, match="not trained on F, Cl; it knows H, C, N, O"):
        NEUTRAL.check([6, 17, 1, 9, 1])


@pytest.mark.parametrize(("charge", "shown"), [(1, r"\+1"), (-2, "-2")])
def test_another_charge(charge, shown):
    # acetic acid: an even number of electrons, and two less or more do not change that
    message = f"meant for systems of charge 0, and the atoms have {shown} in all"
    with pytest.raises(InputError, match=message) as error:
        NEUTRAL.check(molecule("CH3COOH").numbers, charge)
    assert "\n" not in str(error.value)


def test_the_number_of_electrons_betrays_ions_and_radicals():
    for numbers, formula, electrons in ((AMMONIUM, "H4N", 11), ([8, 1], "HO", 9)):
        message = f"charge 0 and multiplicity 1, which {formula} with {electrons} electrons cannot"
        with pytest.raises(InputError, match=message) as error:
            NEUTRAL.check(numbers)
        assert "\n" not in str(error.value)
    Domain(elements=["H", "N"], charge=1, multiplicity=1).check(AMMONIUM, 1)
    Domain(elements=["H", "O"], charge=0, multiplicity=2).check([8, 1])
    Domain(elements=["O"], charge=0, multiplicity=3).check([8, 8])
    with pytest.raises(InputError, match="charge -1 and multiplicity 1"):
        Domain(elements=["H", "N"], charge=-1, multiplicity=1).check([7, 1, 1, 1])


def test_what_is_unknown_is_not_complained_about():
    Domain(elements=["H", "N"]).check(AMMONIUM, 1)
    Domain(elements=["H", "N"], multiplicity=1).check(AMMONIUM)
    Domain(elements=["H", "N"], charge=0).check(AMMONIUM)
    read_domain(["H", "N"], {}).check(AMMONIUM, 1)
    assert read_domain(["H", "C", "O"], {}) == Domain(elements=["H", "C", "O"])


def test_reading():
    recorded = NEUTRAL.model_dump(exclude_none=True)
    assert read_domain(["H", "C", "N", "O", "S"], {"domain": recorded}) == NEUTRAL
    with pytest.raises(InputError, match=r"domain of the potential: key 'charge'.*'zero'"):
        read_domain(["H"], {"domain": {"charge": "zero"}})


def test_extending():
    first = Domain(
        elements=["H", "O"], charge=0, multiplicity=1, max_force=5.0,
        min_distances={"H-H": 1.4, "H-O": 0.9}, num_neighbors={"H": (2, 6), "O": (3, 4)},
    )  # fmt: skip
    second = Domain(
        elements=["H", "C"], charge=-1, max_force=3.0,
        min_distances={"H-H": 1.5, "C-H": 1.0}, num_neighbors={"H": (1, 5), "C": (7, 8)},
    )  # fmt: skip
    assert first.extended(second) == Domain(
        elements=["H", "O", "C"], charge=-1, multiplicity=1, max_force=5.0,
        min_distances={"C-H": 1.0, "H-H": 1.4, "H-O": 0.9},
        num_neighbors={"H": (1, 6), "C": (7, 8), "O": (3, 4)},
    )  # fmt: skip
    unknown = Domain(elements=["H", "C", "O"])
    for both in (unknown.extended(second), second.extended(unknown)):
        assert (both.min_distances, both.num_neighbors, both.max_force) == (None, None, None)
        assert (set(both.elements), both.charge) == ({"H", "C", "O"}, -1)


def test_fewer_elements():
    both = Domain(
        elements=["C", "Cl", "H"], charge=0, max_force=5.0,
        min_distances={"C-H": 1.0, "C-Cl": 1.6, "H-H": 1.4}, num_neighbors={"H": (2, 6)},
    )  # fmt: skip
    assert both.limited(["C", "Cl"]) == Domain(
        elements=["C", "Cl"], charge=0, max_force=5.0,
        min_distances={"C-Cl": 1.6}, num_neighbors={},
    )  # fmt: skip
    assert Domain(elements=["C", "H"]).limited(["C"]) == Domain(elements=["C"])


def test_pair_names():
    assert pair_name("O", "C") == pair_name("C", "O") == "C-O"
    assert pair_name(np.str_("H"), "Cl") == "Cl-H"


def test_charges_of_ase():
    atoms = Atoms("NH4", np.zeros((5, 3)))
    assert net_charge(atoms) is None
    atoms.set_initial_charges([0.2] * 5)
    assert net_charge(atoms) == 1
    atoms.info["charge"] = -1.0
    assert net_charge(atoms) == -1
    for charge in ("unknown", float("nan"), [1, 2]):
        atoms.info["charge"] = charge
        assert net_charge(atoms) is None
    for charge in ("2", np.array(2), np.array([2.0])):
        atoms.info["charge"] = charge
        assert net_charge(atoms) == 2
