"""OpenMM and the domain of a potential: refusals before a run, warnings in it."""

import ase
import ase.build
import ase.io
import numpy as np
import openmm
import pytest
from openmm import app
from openmmml import MLPotential

from openmm_nequip.analysis.summary import analyze, table
from openmm_nequip.config import parse_config
from openmm_nequip.domain import Domain
from openmm_nequip.errors import InputError
from openmm_nequip.md import loop
from openmm_nequip.md.config import SimulationConfig
from openmm_nequip.md.domain import DomainCheck
from openmm_nequip.md.preparation import build_simulation
from openmm_nequip.md.protocol import run
from openmm_nequip.md.reporters import WarningLog, read_warnings
from openmm_nequip.md.structure import from_ase, load_structure

from .systems import small_potential

NEUTRAL = {"elements": ["H", "C", "O"], "charge": 0, "multiplicity": 1}
#: pairs of ethanol, with distances that it does not fall below
ETHANOL = {"C-C": 1.3, "C-H": 0.9, "C-O": 1.2, "H-H": 1.3, "H-O": 0.8}


@pytest.fixture
def model(tmp_path):
    """Write a potential with gentle forces and a given domain; return the file."""

    def write(**domain) -> str:
        potential = small_potential(per_type_energy_scales=0.02)
        if domain:
            potential.metadata["domain"] = domain
        potential.save(tmp_path / "model.safetensors")
        return str(tmp_path / "model.safetensors")

    return write


def topology(symbols: str, charges: list[int | None]) -> app.Topology:
    made = app.Topology()
    residue = made.addResidue("MOL", made.addChain())
    for k, (atom, charge) in enumerate(zip(ase.Atoms(symbols), charges, strict=True)):
        element = app.Element.getBySymbol(atom.symbol)
        made.addAtom(f"{atom.symbol}{k}", element, residue, formalCharge=charge)
    return made


WATER = topology("OHH", [None] * 3)
HYDRONIUM = topology("OHHH", [1, None, None, None])
FORMATE = topology("HCOO", [None] * 4)  # nobody says that it is an ion
DIHYDROXIDE = topology("OHOH", [-1, None, -1, None])
UNLABELLED = topology("OHOH", [None] * 4)


@pytest.mark.parametrize(
    ("molecule", "message"),
    [
        (HYDRONIUM, r"charge 0, and the atoms have \+1"),
        (DIHYDROXIDE, "charge 0, and the atoms have -2"),
        (FORMATE, "multiplicity 1, which CHO2 with 23 electrons cannot have"),
    ],
)
def test_create_system_refuses_another_charge(model, molecule, message):
    with pytest.raises(InputError, match=message) as error:
        MLPotential("nequip", modelPath=model(**NEUTRAL)).createSystem(molecule, force="python")
    assert "\n" not in str(error.value)
    MLPotential("nequip", modelPath=model()).createSystem(molecule, force="python")


@pytest.mark.parametrize(
    "molecule", [WATER, UNLABELLED, topology("OHH", [0] * 3), topology("COO", [0, 1, -1])]
)
def test_create_system_accepts_what_is_or_may_be_neutral(model, molecule):
    MLPotential("nequip", modelPath=model(**NEUTRAL)).createSystem(molecule, force="python")


def test_elements_that_did_not_occur_in_training(model):
    file = model(**NEUTRAL | {"elements": ["H", "O"]})
    with pytest.raises(InputError, match="not trained on C; it knows H, O"):
        MLPotential("nequip", modelPath=file).createSystem(FORMATE, force="python")


def propionate() -> tuple[app.Topology, openmm.System, np.ndarray]:
    """CH3-CH2-COO⁻ for a force field that is of no importance."""
    atoms = ase.build.molecule("CH3CH2OH")
    made = app.Topology()
    residue = made.addResidue("PPI", made.addChain())
    symbols, charges = "CHHHCHHCOO", [None] * 9 + [-1]
    names = [
        made.addAtom(f"{s}{k}", app.Element.getBySymbol(s), residue, formalCharge=charge)
        for k, (s, charge) in enumerate(zip(symbols, charges, strict=True))
    ]
    for a, b in [(0, 1), (0, 2), (0, 3), (0, 4), (4, 5), (4, 6), (4, 7), (7, 8), (7, 9)]:
        made.addBond(names[a], names[b])
    system = openmm.System()
    for atom in names:
        system.addParticle(atom.element.mass)
    return made, system, atoms.positions


def test_mixed_systems_count_the_atoms_of_the_potential_and_their_link_atoms(model):
    potential = MLPotential("nequip", modelPath=model(**NEUTRAL))
    made, system, _ = propionate()
    # CH3, CH2 and CH3-CH2 are neutral closed shells only with hydrogen in the place of the rest
    for atoms in ([0, 1, 2, 3], [4, 5, 6], list(range(7))):
        info = potential.createMixedSystem(made, system, atoms, force="python", returnInfo=True)
        assert info["topology"].getNumAtoms() > made.getNumAtoms()
    with pytest.raises(InputError, match="charge 0, and the atoms have -1"):
        potential.createMixedSystem(made, system, [7, 8, 9], force="python")
    for atom in made.atoms():
        atom.formalCharge = None
    with pytest.raises(InputError, match="which CHO2 with 23 electrons"):
        potential.createMixedSystem(made, system, [7, 8, 9], force="python")


def settings(file: str, **changes) -> SimulationConfig:
    values = {
        "structure": "ethanol", "potential": file, "minimise": False, "steps": 12,
        "log_interval": 4, "trajectory_interval": 4, "force": "python", "friction": 10.0,
        "platform": "Reference",
    }  # fmt: skip
    return parse_config(SimulationConfig, values | changes, where="test")


MOLFILE = """acetate

made by hand
  7  6  0  0  0  0  0  0  0  0999 V2000
   -1.3000    0.0000    0.0000 C   0  0
    0.2000    0.0000    0.0000 C   0  0
    0.8000    1.1000    0.0000 O   0  {code}
    0.8000   -1.1000    0.0000 O   0  0
   -1.7000    1.0000    0.0000 H   0  0
   -1.7000   -0.5000    0.9000 H   0  0
   -1.7000   -0.5000   -0.9000 H   0  0
  1  2  1  0
  2  3  1  0
  2  4  2  0
  1  5  1  0
  1  6  1  0
  1  7  1  0
{properties}M  END
$$$$
second record
M  CHG  1   1   3
"""


@pytest.mark.parametrize(
    ("code", "properties", "charge"),
    [
        (0, "M  CHG  1   3  -1\n", -1),
        (0, "M  CHG  2   3  -1   1  -1\nM  CHG  1   2   1\n", -1),
        (3, "M  CHG  1   3  -1\n", -1),  # the property supersedes the code
        (5, "", -1),
        (2, "", 2),
        (4, "", 0),
        (0, "", 0),
    ],
)
@pytest.mark.parametrize("suffix", ["sdf", "mol"])
def test_charges_of_molfiles(tmp_path, suffix, code, properties, charge):
    path = tmp_path / f"acetate.{suffix}"
    path.write_text(MOLFILE.format(code=code, properties=properties))
    structure = load_structure(str(path))
    assert structure.charge == charge
    assert structure.topology.getNumAtoms() == 7


def test_simulate_names_the_charge_of_a_molfile(model, tmp_path):
    (tmp_path / "x.sdf").write_text(MOLFILE.format(code=0, properties="M  CHG  1   3  -1\n"))
    structure = load_structure(str(tmp_path / "x.sdf"))
    with pytest.raises(InputError, match="charge 0, and the atoms have -1"):
        build_simulation(settings(model(**NEUTRAL)), structure)


def test_a_damaged_charge_is_one_clear_line(tmp_path):
    (tmp_path / "x.sdf").write_text(MOLFILE.format(code=0, properties="M  CHG  1   3  minus\n"))
    with pytest.raises(InputError, match=r"cannot read structure '.*x.sdf'"):
        load_structure(str(tmp_path / "x.sdf"))


def test_simulate_refuses_a_charge_that_the_file_tells(model, tmp_path):
    atoms = ase.build.molecule("CH3COOH")
    file = model(**NEUTRAL)
    for charge, told in ((0, True), (-2, False)):
        atoms.info["charge"] = charge
        ase.io.write(tmp_path / "x.xyz", atoms, format="extxyz")
        structure = load_structure(str(tmp_path / "x.xyz"))
        assert structure.charge == charge
        assert structure.periodic(False).charge == charge
        if told:
            build_simulation(settings(file), structure)
            continue
        with pytest.raises(InputError, match="charge 0, and the atoms have -2"):
            build_simulation(settings(file), structure)
        build_simulation(settings(model()), structure)


def test_simulate_refuses_the_formal_charges_of_a_pdb_file(model, tmp_path):
    with (tmp_path / "x.pdb").open("w") as file:
        app.PDBFile.writeFile(HYDRONIUM, np.eye(4, 3) * openmm.unit.angstrom, file)
    structure = load_structure(str(tmp_path / "x.pdb"))
    with pytest.raises(InputError, match=r"charge 0, and the atoms have \+1"):
        build_simulation(settings(model(**NEUTRAL)), structure)


def check(symbols: str, **domain) -> DomainCheck:
    domain = Domain(elements=["H", "C", "O"], **domain)
    return DomainCheck(domain, 4.0, topology(symbols, [None] * len(symbols)))


def test_contacts():
    found = check("HHO", min_distances={"H-H": 1.4, "H-O": 1.0})
    rest = np.array([[0, 0, 0], [1.27, 0, 0], [0, 0.91, 0]])
    assert found(rest, None, None) == []
    near = rest.copy()
    near[1] = [1.25, 0, 0]
    (departure,) = found(near, None, None)
    assert departure.kind == "contact"
    assert "atom 0 (H0 of residue MOL 1) and atom 1 (H1 of residue MOL 1)" in departure.message
    assert "are 1.25 Å apart; H-H came no closer than 1.40 Å" in departure.message
    near[2] = [0, 0.5, 0]
    assert found(near, None, None) == []  # said once


def test_contacts_through_the_box():
    box = np.diag([8.0, 9.0, 10.0])
    far = np.array([[0, 0, 0], [6.8, 0, 0], [0, 18.0, -5.0]])  # not wrapped
    distances = {"H-H": 1.4, "H-O": 1.0}
    assert check("HHO", min_distances=distances)(far, None, None) == []
    (departure,) = check("HHO", min_distances=distances)(far, box, None)
    assert "1.20 Å apart" in departure.message


def test_pairs_that_never_occurred():
    found = check("HOO", min_distances={"H-H": 1.4, "H-O": 1.0})
    apart = np.array([[0, 0, 0], [2.0, 0, 0], [2.0, 4.01, 0]])
    assert found(apart, None, None) == []
    apart[2] = [2.0, 3.9, 0]
    (departure,) = found(apart, None, None)
    assert departure.kind == "pair"
    assert "3.90 Å apart; no O-O pair within the cutoff of 4 Å occurred" in departure.message
    assert found(apart, None, None) == []


def test_numbers_of_neighbours():
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3), axis=-1).reshape(-1, 3) * 1.5
    dense = grid[np.argsort(((grid - 1.5) ** 2).sum(1))]  # the first atom has 26 within 4 Å
    for known, message in (
        ((20, 22), None), ((9, 20), "26 neighbours within 4 Å; O had 9 to 20"), ((34, 40), None),
        ((35, 40), "26 neighbours within 4 Å; O had 35 to 40"),
    ):  # fmt: skip
        found = check("O" + 26 * "H", num_neighbors={"O": known})
        departures = found(dense, None, None)
        assert len(departures) == (message is not None)
        if message is not None:
            assert departures[0].kind == "neighbors"
            assert f"atom 0 (O0 of residue MOL 1) has {message}" in departures[0].message
            assert found(dense, None, None) == []


def test_a_lost_atom_is_noticed():
    positions = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    found = check("OHH", num_neighbors={"O": (2, 9), "H": (2, 9)})
    assert found(positions, None, None) == []
    positions[2, 1] = 5.0
    (departure,) = found(positions, None, None)
    assert "atom 2 (H2 of residue MOL 1) has 0 neighbours" in departure.message


def test_forces():
    found = check("HO", max_force=3.0)
    assert found.needs_forces
    positions = np.array([[0, 0, 0], [0.1, 0, 0]])  # distances are unknown
    assert found(positions, None, np.array([[0, 0, 5.9], [4.0, 4.0, 0]])) == []
    (departure,) = found(positions, None, np.array([[0, 0, 5.9], [4.0, 4.0, 3.0]]))
    assert departure.kind == "force"
    assert "the force on atom 1 (O1 of residue MOL 1) is 6.4 eV/Å; the largest" in departure.message
    assert not found.needs_forces


def test_an_unknown_domain_is_never_left():
    found = check("HO")
    assert not found.needs_forces
    assert found(np.zeros((2, 3)), None, None) == []


class Listener:
    def __init__(self):
        self.messages: list[str] = []

    def message(self, text):
        self.messages.append(text)

    def progress(self, progress):
        pass


def simulated(config: SimulationConfig, folder) -> list[str]:
    listener = Listener()
    run(config, folder, load_structure("ethanol"), listener)
    return listener.messages


def test_a_run_in_its_domain_says_nothing(model, tmp_path):
    numbers = {"H": (5, 8), "C": (8, 8), "O": (7, 8)}
    file = model(**NEUTRAL, min_distances=ETHANOL, num_neighbors=numbers, max_force=3.0)
    assert simulated(settings(file), tmp_path / "run") == []
    assert not (tmp_path / "run" / "warnings.csv").exists()
    assert "warnings" not in analyze(tmp_path / "run").summary


def test_a_run_without_a_known_domain_says_nothing(model, tmp_path):
    assert simulated(settings(model()), tmp_path / "run") == []
    assert not (tmp_path / "run" / "warnings.csv").exists()


def test_a_run_that_leaves_its_domain_warns_once_of_each_kind(model, tmp_path):
    distances = ETHANOL | {"C-C": 2.0}
    del distances["H-O"]
    file = model(**NEUTRAL, min_distances=distances, num_neighbors={"C": (20, 30)}, max_force=1e-4)
    messages = simulated(settings(file), tmp_path / "run")
    assert len(messages) == 4
    assert all(text.startswith("warning, step 0: ") and "\n" not in text for text in messages)
    assert "C-C came no closer than 2.00 Å" in messages[0]
    assert "no H-O pair" in messages[1]
    assert "C had 20 to 30" in messages[2]
    assert "eV/Å" in messages[3]

    rows = read_warnings(tmp_path / "run" / "warnings.csv")
    assert [row["kind"] for row in rows] == ["contact", "pair", "neighbors", "force"]
    assert [f"warning, step {row['step']}: {row['message']}" for row in rows] == messages
    summary = analyze(tmp_path / "run").summary
    assert len(summary["warnings"]) == 4
    assert summary["warnings"][0].startswith("at 0 ps: atom ")
    assert [value for name, value in table(summary) if name == "warning"] == summary["warnings"]


def test_a_blow_up_is_explained_first(model, tmp_path, monkeypatch):
    def heat(context, *_):
        context.setVelocitiesToTemperature(1e6, 1)

    monkeypatch.setattr(loop, "set_velocities", heat)
    file = model(**NEUTRAL, num_neighbors={"C": (20, 30)})
    listener = Listener()
    with pytest.raises(InputError, match="blew up after step 0: the temperature"):
        run(settings(file), tmp_path / "run", load_structure("ethanol"), listener)
    assert "C had 20 to 30" in listener.messages[0]


def test_warnings_after_the_checkpoint_come_again(tmp_path):
    log = WarningLog(tmp_path / "warnings.csv")
    log.append(4, 0.002, "contact", 'a "name", and another')
    log.append(8, 0.004, "force", "strong")
    assert WarningLog(tmp_path / "warnings.csv", resume=8).kinds == ["contact", "force"]
    log = WarningLog(tmp_path / "warnings.csv", resume=7)
    assert log.kinds == ["contact"]
    (row,) = read_warnings(tmp_path / "warnings.csv")
    assert row["message"] == 'a "name", and another'
    assert WarningLog(tmp_path / "warnings.csv").kinds == []
    assert read_warnings(tmp_path / "warnings.csv") == []


def test_a_run_that_goes_on_does_not_repeat_itself(model, tmp_path):
    class Killer(Listener):
        def progress(self, progress):
            if progress.step == 8:
                raise KeyError("killed")

    config = settings(model(**NEUTRAL, min_distances=ETHANOL | {"C-C": 2.0}), checkpoint_interval=4)
    first = Killer()
    with pytest.raises(KeyError):
        run(config, tmp_path / "run", load_structure("ethanol"), first)
    assert len(first.messages) == 1
    assert simulated(config, tmp_path / "run") == ["going on from step 4"]
    assert len(analyze(tmp_path / "run").summary["warnings"]) == 1


def test_periodic_runs_look_through_the_box(model, tmp_path):
    atoms = ase.Atoms("OHHOHH", cell=[9.0, 9.0, 9.0], pbc=True)
    water = ase.build.molecule("H2O").positions
    atoms.positions = np.concatenate([water, water + np.array([0, 0, 7.5])])
    file = model(**NEUTRAL, min_distances={"H-H": 1.3, "H-O": 0.8, "O-O": 2.4})
    listener = Listener()
    run(settings(file, steps=4), tmp_path / "run", from_ase(atoms), listener)
    assert len(listener.messages) == 1
    assert "O-O came no closer than 2.40 Å" in listener.messages[0]
