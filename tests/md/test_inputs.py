"""The files that a configuration names: which they are, and what GROMACS's tell."""

from pathlib import Path

import pytest
from openmm import app

from openmm_nequip.config import load_config, parse_config
from openmm_nequip.errors import InputError
from openmm_nequip.md.config import SimulationConfig
from openmm_nequip.md.inputs import find_files, load_input
from openmm_nequip.md.parameter_files import gro_topology

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
