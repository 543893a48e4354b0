"""The files that a configuration names: which they are, and what GROMACS's tell."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app, unit
from openmmml import MLPotential
from rdkit import Chem
from rdkit.Chem import rdDepictor

from openmm_nequip.config import load_config, parse_config
from openmm_nequip.errors import InputError
from openmm_nequip.md import inputs
from openmm_nequip.md.bonded import atoms_without_bonded_terms
from openmm_nequip.md.checks import long_bonds
from openmm_nequip.md.config import SimulationConfig
from openmm_nequip.md.inputs import find_files, load_input, whole_molecules
from openmm_nequip.md.parameter_files import gro_topology, read_parameters
from openmm_nequip.md.structure import Structure, is_file, load_structure

from .systems import small_potential

HERE, THERE = "here", "there"  # the working directory, and the folder of the configuration


@pytest.fixture
def find(tmp_path, monkeypatch):
    """Find the files of there/simulate.yaml from the folder here."""
    for folder in (HERE, THERE):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / HERE)

    def found(keys: dict[str, object], files: list[str], overrides: list[str]) -> SimulationConfig:
        for file in files:
            (tmp_path / file).touch()
        path = Path("..") / THERE / "simulate.yaml"
        lines = {"structure": "ethanol", "ml_region": "resid 0", "steps": 1} | keys
        path.write_text("\n".join(f"{key}: {value}" for key, value in lines.items()))
        return find_files(load_config(SimulationConfig, path, overrides), path.parent, overrides)

    return found


PREPARED = {"structure": "x.cif", "force_field": "x.xml", "potential": "x.safetensors"}
NAMES = list(PREPARED.values())
BOTH = [f"{folder}/{name}" for folder in (HERE, THERE) for name in NAMES]


def paths_of(config: SimulationConfig) -> list[object]:
    return [config.structure, config.force_field, config.potential]


def test_a_path_in_the_file_means_the_folder_of_the_file(find):
    """Run from one prepared folder, the configuration of another one has its own files."""
    assert paths_of(find(PREPARED, BOTH, [])) == [f"../there/{name}" for name in NAMES]


def test_a_path_on_the_command_line_means_the_working_directory(find):
    overrides = [f"{key}={name}" for key, name in PREPARED.items()]
    assert paths_of(find({}, BOTH, overrides)) == NAMES
    one = find(PREPARED, BOTH, ["structure=x.cif"])
    assert paths_of(one) == ["x.cif", "../there/x.xml", "../there/x.safetensors"]


def test_a_file_that_is_not_there_is_looked_for_in_the_other_folder(find):
    assert paths_of(find(PREPARED, BOTH[:3], [])) == NAMES
    Path("x.cif").unlink()
    one = find(PREPARED, ["there/x.cif"], ["structure=x.cif"])
    assert one.structure == "../there/x.cif"
    with pytest.raises(InputError, match=r"structure 'y\.cif' is neither a file nor"):
        find({"structure": "y.cif", "force_field": "x.xml"}, [], [])


def test_frames_and_lists_of_files_are_found_too(find):
    """And names that are no files stay what they are."""
    keys = {"structure": "x.xyz@3", "force_field": "[amber14-all.xml, x.xml]"}
    files = ["here/x.xyz", "there/x.xyz", "here/x.xml", "there/x.xml"]
    found = find(keys | {"potential": "organic-small"}, files, [])
    assert found.structure == "../there/x.xyz@3"
    assert found.force_field == ["amber14-all.xml", "../there/x.xml"]
    assert found.potential == "organic-small"


# --- GROMACS --------------------------------------------------------------------------------------

TOP = """\
[ defaults ]
1 2 yes 0.5 0.8333
[ atomtypes ]
C  6 12.011 0.0 A 0.340 0.458
Cl 17 35.45 0.0 A 0.440 0.418
Na 11 22.99 0.0 A 0.333 0.012
N  7 14.007 0.0 A 0.325 0.711
[ moleculetype ]
MOL 3
[ atoms ]
1 C  1 MOL C1  1 0.1 12.011
2 Cl 1 MOL CL1 1 -0.1 35.45
3 N  1 MOL NA  1 0.0 14.007
[ bonds ]
1 2 1 0.176 200000
1 3 1 0.147 200000
[ moleculetype ]
NA 1
[ atoms ]
1 Na 1 NA NA 1 1.0 22.99
[ moleculetype ]
CL 1
[ atoms ]
1 Cl 1 CL CL 1 -1.0 35.45
[ system ]
ions
[ molecules ]
MOL 1
NA 1
CL 1
"""
ATOMS = [(1, "MOL", "C1"), (1, "MOL", "CL1"), (1, "MOL", "NA"), (2, "NA", "NA"), (3, "CL", "CL")]
SYMBOLS = ["C", "Cl", "N", "Na", "Cl"]


def write_gro(path: Path, atoms: list[tuple[int, str, str]]) -> str:
    lines = ["ions", f"{len(atoms)}"]
    for index, (number, residue, name) in enumerate(atoms):
        point = f"{0.5 * index:8.3f}{0:8.3f}{0:8.3f}"
        lines.append(f"{number:5d}{residue:<5s}{name:>5s}{index + 1:5d}{point}")
    path.write_text("\n".join([*lines, "   3.0   3.0   3.0", ""]))
    return str(path)


def symbols_of(topology: app.Topology) -> list[str | None]:
    return [atom.element.symbol if atom.element else None for atom in topology.atoms()]


def configure(structure: str, force_field: object) -> SimulationConfig:
    values = {"structure": structure, "force_field": force_field, "ml_region": "resname MOL"}
    return parse_config(SimulationConfig, values | {"steps": 1}, where="test")


def test_ions_of_gromacs_are_ions(tmp_path):
    """A gro file calls sodium NA and chloride CL, as others call nitrogen and carbon atoms."""
    (tmp_path / "x.top").write_text(TOP)
    config = configure(write_gro(tmp_path / "x.gro", ATOMS), str(tmp_path / "x.top"))
    assert symbols_of(load_input(config).topology) == SYMBOLS


def test_atoms_of_gromacs_in_another_order_are_refused(tmp_path):
    (tmp_path / "x.top").write_text(TOP)
    swapped = [*ATOMS[:3], (2, "CL", "CL"), (3, "NA", "NA")]
    config = configure(write_gro(tmp_path / "x.gro", swapped), str(tmp_path / "x.top"))
    with pytest.raises(InputError, match=r"atom 3 is CL in .* and NA in the force field: the atom"):
        load_input(config)


def test_elements_told_from_the_names_of_a_gro_file(tmp_path):
    names = {"CA": "Ca", "MW": None, "C12": "C", "Na+": "Na", "ZN2+": "Zn", "SOD": None}
    alone = [(k, "XXX", name) for k, name in enumerate(names, start=10)]
    names_together = {"CA": "C", "1HB2": "H", "BR1": "Br", "Cl": "Cl", "OXT": "O", "EP": None}
    together = [(1, "YYY", name) for name in names_together]
    topology = gro_topology(write_gro(tmp_path / "x.gro", [*ATOMS, *alone, *together]))
    assert symbols_of(topology) == [*SYMBOLS, *names.values(), *names_together.values()]


def test_ions_in_a_gro_file_suit_a_force_field_of_openmm(tmp_path):
    atoms = [(1, "NA", "NA"), (2, "CL", "CL")]
    config = configure(write_gro(tmp_path / "x.gro", atoms), ["amber14/tip3p.xml"])
    assert load_input(config).mm_system.getNumParticles() == 2


# --- a System and the structure it is of ----------------------------------------------------------


def ethanol_system(tmp_path: Path, order: list[int] | None = None, masses: float = 0.0) -> Path:
    """Write an OpenMM System of ethanol with its atoms in some order; `masses` go to hydrogens."""
    topology = load_structure("ethanol").topology
    values = [atom.element.mass._value for atom in topology.atoms()]
    for ends in topology.bonds():
        heavy, light = sorted(ends, key=lambda atom: -atom.element.mass._value)
        if light.element is app.element.hydrogen:
            values[light.index] += masses
            values[heavy.index] -= masses
    system = openmm.System()
    for k in order or range(len(values)):
        system.addParticle(values[k])
    path = tmp_path / "system.xml"
    path.write_text(openmm.XmlSerializer.serialize(system))
    return path


def test_a_system_of_another_order_of_atoms_is_refused(tmp_path):
    for masses in (0.0, 2.0):  # as they are, and with heavy hydrogens
        load_input(configure("ethanol", str(ethanol_system(tmp_path, masses=masses))))
    path = ethanol_system(tmp_path, order=[0, 2, 1, *range(3, 9)])
    with pytest.raises(
        InputError, match=r"atom 2 is O1 \(O\) in 'ethanol' and has a mass of 12\.011"
    ):
        load_input(configure("ethanol", str(path)))


@pytest.mark.parametrize("masses", [3.0, 2.0])
def test_heavy_hydrogens_whatever_is_known_of_their_bonds(tmp_path, masses):
    """Methyl carbon has 3 Da at 4 Da of hydrogen; other programs leave out bonds of ligands."""
    ethanol, water = load_structure("ethanol"), load_structure("water")
    load_input(configure("ethanol", str(ethanol_system(tmp_path, masses=masses))))
    modeller = app.Modeller(ethanol.topology, ethanol.positions * unit.nanometer)
    modeller.add(water.topology, (water.positions + 1) * unit.nanometer)
    system = openmm.XmlSerializer.deserialize((tmp_path / "system.xml").read_text())
    for atom in water.topology.atoms():
        system.addParticle(atom.element.mass)
    (tmp_path / "system.xml").write_text(openmm.XmlSerializer.serialize(system))
    with (tmp_path / "x.pdb").open("w") as file:
        app.PDBFile.writeFile(modeller.topology, modeller.positions, file)
    lines = (tmp_path / "x.pdb").read_text().splitlines(keepends=True)
    (tmp_path / "x.pdb").write_text("".join(x for x in lines if not x.startswith("CONECT")))
    loaded = load_input(configure(str(tmp_path / "x.pdb"), str(tmp_path / "system.xml")))
    assert loaded.topology.getNumBonds() == 2  # of the water


def test_ions_whose_elements_are_guessed(tmp_path):
    """Programs of CHARMM write no elements: SOD, POT and CLA look like S, P and C."""
    names = {"SOD": 22.99, "POT": 39.1, "CLA": 35.45, "CES": 132.9, "CAL": 40.08}
    lines, system = [], openmm.System()
    for k, (name, mass) in enumerate(names.items(), start=1):
        lines.append(f"ATOM  {k:5d} {name:<4s} {name} A{k:4d}    {4.0 * k:8.3f}   0.000   0.000\n")
        system.addParticle(mass)
    (tmp_path / "x.pdb").write_text("".join(lines))
    (tmp_path / "x.xml").write_text(openmm.XmlSerializer.serialize(system))
    load_input(configure(str(tmp_path / "x.pdb"), str(tmp_path / "x.xml")))


def test_molecules_that_the_box_has_split_are_made_whole(tmp_path):
    forcefield = app.ForceField("amber14/tip3p.xml")
    modeller = app.Modeller(app.Topology(), [])
    modeller.addSolvent(forcefield, boxSize=openmm.Vec3(2.1, 2.1, 2.1))
    positions = np.array(modeller.positions.value_in_unit(unit.nanometer))
    box = 2.1 * np.eye(3)
    wrapped = positions - np.floor(positions / 2.1) * 2.1  # atom by atom
    assert np.abs(np.diff(wrapped.reshape(-1, 3, 3), axis=1)).max() > 1.9
    whole = whole_molecules(modeller.topology, wrapped, box)
    shifts = (whole - positions).reshape(-1, 3, 3)
    np.testing.assert_allclose(shifts, np.round(shifts / 2.1) * 2.1, atol=1e-9)  # only by the box
    np.testing.assert_allclose(shifts, shifts[:, :1].repeat(3, axis=1), atol=1e-9)  # together
    assert whole_molecules(modeller.topology, positions, box) is positions
    assert whole_molecules(modeller.topology, wrapped, None) is wrapped
    path = tmp_path / "split.pdb"
    with path.open("w") as file:
        app.PDBFile.writeFile(modeller.topology, wrapped * 10, file)
    structure = load_input(configure(str(path), ["amber14/tip3p.xml"]))
    lengths = np.linalg.norm(np.diff(structure.positions.reshape(-1, 3, 3), axis=1)[:, 0], axis=1)
    np.testing.assert_allclose(lengths, 0.09572, atol=2e-4)


def test_a_periodic_prmtop_wants_a_box(reference_data):
    folder = (reference_data / "mlmm_inputs/toluene-explicit.prm7").parent
    rst7 = app.AmberInpcrdFile(str(reference_data / "mlmm_inputs/toluene-explicit.rst7"))
    prmtop = app.AmberPrmtopFile(str(folder / "toluene-explicit.prm7"))
    bare = deepcopy(prmtop.topology)
    bare.setPeriodicBoxVectors(None)
    structure = Structure(bare, rst7.getPositions(asNumpy=True)._value, None)
    config = configure("made-up.pdb", str(folder / "toluene-explicit.prm7"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "load_structure", lambda _: structure)
        with pytest.raises(InputError, match=r"is of a periodic system, and 'made-up\.pdb' has no"):
            load_input(config)
        droplet = load_input(config.model_copy(update={"periodic": False}))
    assert droplet.box is None


@pytest.mark.parametrize(
    ("smiles", "missing"),
    [("CCO", 5), ("CCO[H]", 5), ("[H]C(C)(O)Cl", 3), ("C#C", 2), ("CF", 3)],
)
def test_a_molfile_without_hydrogens_is_refused(tmp_path, smiles, missing):
    file = molfile(tmp_path, smiles)
    with pytest.raises(InputError, match=rf"flat\.sdf' lacks {missing} hydrogen atoms of carbon:"):
        load_structure(file)


@pytest.mark.parametrize(
    "smiles",
    ["[H]C([H])", "[H]C([H])C([H])([H])[H]", "O=C=O", "ClO", "[H]O", "ClC(Cl)Cl",
     "C1(F)C(F)C(F)C(F)C(F)C1F"],
)  # fmt: skip
def test_molfiles_of_radicals_and_of_molecules_without_hydrogen_are_read(tmp_path, smiles):
    assert load_structure(molfile(tmp_path, smiles)).topology.getNumAtoms() > 1


def molfile(folder, smiles: str) -> str:
    """Write a molecule with the hydrogens that are in its SMILES string, and no others."""
    parameters = Chem.SmilesParserParams()
    parameters.removeHs = False
    mol = Chem.MolFromSmiles(smiles, parameters)
    rdDepictor.Compute2DCoords(mol)
    Chem.MolToMolFile(mol, str(folder / "flat.sdf"))
    return str(folder / "flat.sdf")


def test_residues_whose_atoms_share_names_keep_their_names(tmp_path):
    """As docking programs write ligands: C C O H H ..."""
    ethanol, water = load_structure("ethanol"), load_structure("water")
    modeller = app.Modeller(ethanol.topology, ethanol.positions * unit.nanometer)
    beside = water.positions + np.array([1.0, 0, 0])
    modeller.add(water.topology, beside * unit.nanometer)
    path = tmp_path / "x.pdb"
    with path.open("w") as file:
        app.PDBFile.writeFile(modeller.topology, modeller.positions, file)
    lines = [
        f"{line[:12]} {line[76:78].strip():<3s}{line[16:17]}LIG{line[20:]}"
        if line.startswith("HETATM") and "MOL" in line
        else line
        for line in path.read_text().splitlines(keepends=True)
    ]
    path.write_text("".join(lines))
    structure = load_structure(str(path))
    residues = list(structure.topology.residues())
    assert [residue.name for residue in residues] == ["LIG", "HOH"]
    assert [atom.name for atom in residues[0].atoms()] == [
        "C1", "C2", "O1", "H1", "H2", "H3", "H4", "H5", "H6"
    ]  # fmt: skip
    np.testing.assert_allclose(structure.positions[:9], ethanol.positions, atol=1e-4)


def pdb_line(name, residue, number, x, y=0.0, location=" ", element=""):
    return (
        f"HETATM    1 {name:<4s}{location}{residue} A{number:4d}    {x:8.3f}{y:8.3f}   0.000"
        f"{'':22s}{element:>2s}\n"
    )


def test_residues_whose_atoms_share_names_keep_their_elements(tmp_path):
    """Without elements: dichloromethane, of which one hydrogen is in two places."""
    rows = [("C   ", 0, 0), ("CL  ", 1.77, 0), ("CL  ", -0.6, 1.67), ("H   ", -0.4, -0.5)]
    text = "".join(pdb_line(name, "LIG", 1, x, y) for name, x, y in rows)
    text += pdb_line("H   ", "LIG", 1, -0.4, -1.0, "A") + pdb_line("H   ", "LIG", 1, -0.4, -1, "B")
    text += pdb_line("NA  ", "NA ", 2, 9.0)
    (tmp_path / "x.pdb").write_text(text)
    structure = load_structure(str(tmp_path / "x.pdb"))
    assert [f"{atom.name} {atom.element.symbol}" for atom in structure.topology.atoms()] == [
        "C1 C", "CL1 Cl", "CL2 Cl", "H1 H", "H2 H", "NA Na"
    ]  # fmt: skip
    assert len(structure.positions) == 6


def test_waters_that_share_a_number_remain_waters(tmp_path):
    """As where more than 9999 of them were numbered modulo 10000, beside a ligand."""
    text = "".join(pdb_line("C   ", "LIG", 1, 1.5 * k, element="C") for k in range(2))
    for k in range(1200):
        for name, x in (("O", 0.0), ("H1", 0.96), ("H2", -0.24)):
            text += pdb_line(
                f" {name}", "HOH", 2, 4.0 * (k % 100) + x, 4.0 * (k // 100), " ", name[0]
            )
    text += "TER\n" + pdb_line(" O", "HOH", 1, 500, element="O")  # apart from the ligand's number
    (tmp_path / "x.pdb").write_text(text)
    topology = load_structure(str(tmp_path / "x.pdb")).topology
    assert topology.getNumAtoms() == 2 + 3600 + 1
    assert topology.getNumBonds() >= 2400
    assert sum(residue.name == "HOH" for residue in topology.residues()) == 1201
    assert [atom.name for atom in topology.atoms()][:5] == ["C1", "C2", "O", "H1", "H2"]


def test_positions_that_are_no_numbers(tmp_path):
    (tmp_path / "x.xyz").write_text("2\n\nH 0 0 0\nH nan 0 1\n")
    with pytest.raises(InputError, match=r"position of atom 1 is not finite: \[nan, 0.0, 1.0\]"):
        load_structure(str(tmp_path / "x.xyz"))


def test_bonds_between_hydrogens_of_rigid_water_are_not_torn():
    water = load_structure("water")
    topology = deepcopy(water.topology)
    _, first, second = topology.atoms()
    topology.addBond(first, second)
    assert long_bonds(topology, water.positions, None) == []
    apart = water.positions.copy()
    apart[1] += 1.0
    assert len(long_bonds(topology, apart, None)) == 1


def test_chains_of_one_gromacs_molecule_are_not_bonded(tmp_path):
    """Merged chains have amino acids that follow each other without a bond."""
    top = TOP.replace("Cl 1 MOL CL1", "C 1 GLY C").replace("C  1 MOL C1", "C  1 GLY CA")
    top = top.replace("N  1 MOL NA", "N  2 ALA N").replace("1 3 1 0.147 200000\n", "")
    (tmp_path / "x.top").write_text(top)
    parameters = read_parameters(tmp_path / "x.top", 3 * np.eye(3))
    names = [atom.name for atom in parameters.topology.atoms()]
    assert names[:3] == ["CA", "C", "N"]
    assert [(b[0].name, b[1].name) for b in parameters.topology.bonds()] == [("CA", "C")]


def test_a_polarisable_force_field_is_refused(tmp_path):
    model = small_potential()
    model.save(tmp_path / "x.safetensors")
    forcefield = app.ForceField("amoeba2018.xml")
    water = load_structure("water")
    system = forcefield.createSystem(water.topology)
    with pytest.raises(InputError, match=r"has a Amoeba.* cannot be taken out"):
        MLPotential("nequip", modelPath=tmp_path / "x.safetensors").createMixedSystem(
            water.topology, system, [0, 1, 2]
        )


def test_a_long_smiles_is_no_name_of_a_file():
    assert not is_file("C" * 5000)
    assert is_file(__file__)


def test_bonds_to_the_fourth_site_of_water_need_no_energy():
    topology = app.Topology()
    residue = topology.addResidue("WAT", topology.addChain())
    oxygen = topology.addAtom("O", app.element.oxygen, residue)
    hydrogen = topology.addAtom("H1", app.element.hydrogen, residue)
    site = topology.addAtom("EPW", None, residue)
    topology.addBond(oxygen, hydrogen)
    topology.addBond(oxygen, site)  # as AMBER has it
    system = openmm.System()
    for mass in (16.0, 1.0, 0.0):
        system.addParticle(mass)
    assert atoms_without_bonded_terms(topology, system) == [0, 1]
    system.addConstraint(0, 1, 0.09572)
    assert atoms_without_bonded_terms(topology, system) == []
