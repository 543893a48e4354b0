"""From SMILES, molfiles and structures without parameters to a System in a box of water."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
from openmm import app, unit
from rdkit import Chem, rdBase
from scipy.spatial.distance import cdist

from ..domain import signed
from ..errors import InputError
from ..units import NM
from .checks import long_bonds
from .choices import Assembled, Choices
from .ligand import CHARGE_METHODS, SOURCE, Ligand, NonbondedTemplates, own_charges, partial_charges
from .molecule import (
    from_coordinates,
    from_molfile,
    from_smiles,
    is_built,
    onto,
    smiles,
    strain,
    to_structure,
)
from .openff import openff_available, openff_templates
from .solvation import (
    NO_WATER,
    SHAPES,
    WATER_MODELS,
    add_solvent,
    check_choice,
    is_filled,
    nonbonded_settings,
    seeded,
)
from .structure import EXAMPLES, Structure, is_file, load_structure

PADDING = 1.0  # nm
_SAME_PLACE = 0.5  # Å
_NONMETALS = {1, 2, *range(5, 11), *range(14, 19), *range(33, 37), *range(52, 55)}
BIOPOLYMERS = "amber14-all.xml"
EXAMPLE_SMILES = {"ethanol": "CCO", "water": "O", "methane": "C", "benzene": "c1ccccc1"}
_SMALL_MOLECULES = ["auto", "nonbonded", "openff"]
_MOLFILES = (".sdf", ".mol")
_FILES = (*_MOLFILES, ".pdb", ".ent", ".cif", ".mmcif", ".pdbx", ".xyz", ".gro", ".mol2")

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Placed:
    """A small molecule in the system, as a residue of this name."""

    name: str
    mol: Chem.Mol


def assemble(choices: Choices, say: Say) -> Assembled:
    """Build or read the structure, give it its force field, and solvate it.

    Raises
    ------
    InputError
        Something in `choices` is wrong or does not suit the structure.
    """
    water = check_choice(choices.water or "tip3p", [*WATER_MODELS, NO_WATER], "water model")
    shape = check_choice(choices.shape, [*SHAPES], "shape of a box")
    given = [_molecule(text, choices.seed, say) for text in choices.ligands]
    source = _source(choices, say)
    if isinstance(source, Chem.Mol):
        structure = None  # and a molecule alone may be anywhere
        placed = _as_given([source, *given]) if given else [_Placed("LIG", source)]
    else:
        forcefield, files, water = _force_field(choices, True, water)
        structure, placed = _small_molecules_in(source, given, forcefield, choices.charge, say)
    if structure is None:
        forcefield, files, water = _force_field(choices, False, water)
    placed = _named_differently(placed)
    if structure is not None:
        for problem in long_bonds(structure.topology, structure.positions, structure.box):
            raise InputError(f"'{choices.source}': {problem}")
    modeller = _modeller(structure, placed)
    if isinstance(source, Structure) and source.box is not None:
        modeller.topology.setPeriodicBoxVectors(source.box * unit.nanometer)
    record: dict[str, Any] = {"source": choices.source}
    record |= _parametrise(forcefield, placed, choices, say)
    if structure is not None:
        record["hydrogens_added"] = _complete(modeller, forcefield, water, choices, say)
    in_files = WATER_MODELS.get(water, (None,))[0] not in (*files, None)
    record |= {"force_fields": files, "water_model": "of the force field" if in_files else water}
    _solvate(modeller, forcefield, water, shape, choices, say)
    system = _create_system(forcefield, modeller.topology, choices.cutoff)
    positions = np.array(modeller.positions.value_in_unit(unit.nanometer))
    names = [molecule.name for molecule in placed]
    return Assembled(modeller.topology, positions, system, names, record)


def _source(choices: Choices, say: Say) -> Chem.Mol | Structure:
    text = choices.source
    if is_file(text) and Path(text).suffix.lower() not in _MOLFILES:
        return load_structure(text)
    return _molecule(EXAMPLE_SMILES.get(text, text), choices.seed, say)


def _molecule(text: str, seed: int, say: Say) -> Chem.Mol:
    """Read a molfile, or build a molecule from its SMILES."""
    path = Path(text)
    if path.suffix.lower() in _FILES and not is_file(text):
        raise InputError(f"file '{text}' does not exist")
    if is_file(text):
        if path.suffix.lower() not in _MOLFILES:
            raise InputError(f"a ligand is an SDF or MOL file or a SMILES, not '{text}'")
        mol = from_molfile(path, seed)
        if is_built(mol):
            say(f"'{text}' is a flat drawing: the molecule is built in space")
        return mol
    try:
        return from_smiles(text, seed)
    except InputError as error:
        if str(error) != f"'{text}' is not a SMILES":
            raise
        raise InputError(
            f"'{text}' is neither a file nor a SMILES nor a bundled example ({', '.join(EXAMPLES)})"
        ) from None


def _as_given(molecules: Sequence[Chem.Mol]) -> list[_Placed]:
    """Take molecules at the coordinates of their files."""
    for mol in molecules:
        if is_built(mol):
            raise InputError(
                f"no residue of the structure has the atoms and bonds of '{smiles(mol)}', and a "
                "SMILES or a flat drawing has no place in space; to add it, give an SDF file with "
                "its coordinates"
            )
    return [_Placed("LIG", mol) for mol in molecules]


def _named_differently(placed: Sequence[_Placed]) -> list[_Placed]:
    """Number the names that different molecules share."""
    owner: dict[str, str] = {}
    named = []
    for molecule in placed:
        kind, name, number = smiles(molecule.mol), molecule.name, 1
        while owner.setdefault(name, kind) != kind:
            number += 1
            name = f"{molecule.name}{number}"
        named.append(_Placed(name, molecule.mol))
    return named


def _small_molecules_in(
    structure: Structure,
    given: Sequence[Chem.Mol],
    forcefield: app.ForceField,
    charge: int,
    say: Say,
) -> tuple[Structure | None, list[_Placed]]:
    """Find the residues that no force field for biopolymers, water or ions will know.

    Returns
    -------
    structure
        Without them; `None` if nothing else is left.
    placed
        They and those of `given` that are not among them.
    """
    structure = _without_bonds_to_metals(structure, say)
    unmatched = set(forcefield.getUnmatchedResidues(structure.topology))
    described = mdtraj.Topology.from_openmm(structure.topology)
    placed, used, found = [], set[int](), []
    for residue, seen in zip(structure.topology.residues(), described.residues, strict=True):
        # among the names of amino acids there are some that ligands have: UNK, PCA, SAH
        named = seen.is_protein or seen.is_nucleic
        joined = any(residue.external_bonds())
        if residue not in unmatched or joined or seen.is_water:
            continue
        atoms = list(residue.atoms())
        if any(atom.element is None for atom in atoms):
            continue
        numbers = np.array([atom.element.atomic_number for atom in atoms])
        positions = structure.positions[[atom.index for atom in atoms]] / NM
        names = [atom.name for atom in atoms]
        index, mol = _fitting(given, numbers, positions, names)
        where = f"residue {residue.name} {residue.id}"
        if mol is not None:
            used.add(index)
        elif named and residue.name != "UNK":
            if 1 not in numbers:
                continue
            try:  # an amino acid by itself
                mol = from_coordinates(numbers.tolist(), positions, names, charge, where)
            except InputError:  # a part of a chain with atoms missing
                continue
        else:
            if 1 not in numbers or len(numbers) == 1:
                raise InputError(
                    f"no force field knows {where}, and without hydrogens its bonds cannot be "
                    "told: give its SMILES or SDF file as a ligand, or delete it from the file"
                )
            mol = from_coordinates(numbers.tolist(), positions, names, charge, where)
        if index < 0:
            say(f"{where}: bonds told from its coordinates, charge {signed(charge)}")
        placed.append(_Placed(residue.name, mol))
        found.append(residue)
    added = [mol for k, mol in enumerate(given) if k not in used]
    for mol in added:
        _check_place(mol, structure)
    placed += _as_given(added)
    if len(found) == structure.topology.getNumResidues():
        return None, placed
    modeller = app.Modeller(structure.topology, structure.positions * unit.nanometer)
    modeller.delete(found)
    left = np.array(modeller.positions.value_in_unit(unit.nanometer))
    return Structure(modeller.topology, left, structure.box), placed


def _without_bonds_to_metals(structure: Structure, say: Say) -> Structure:
    """Take away bonds to metal ions, which force fields hold by their charges."""
    bonds = [
        bond
        for bond in structure.topology.bonds()
        if any(
            len(atom.residue) == 1
            and atom.element is not None
            and atom.element.atomic_number not in _NONMETALS
            for atom in bond
        )
    ]
    if not bonds:
        return structure
    say(f"without {len(bonds)} bonds to metal ions, which force fields hold by their charges")
    modeller = app.Modeller(structure.topology, structure.positions * unit.nanometer)
    modeller.delete(bonds)
    return replace(structure, topology=modeller.topology)


def _fitting(
    templates: Sequence[Chem.Mol], numbers: np.ndarray, positions: np.ndarray, names: Sequence[str]
) -> tuple[int, Chem.Mol | None]:
    """Return the molecule that suits the atoms of a residue best, and its index; -1 if none does.

    Best is one with the hydrogens of the residue, then one whose bonds have the right lengths.
    """
    found: dict[int, Chem.Mol] = {}
    for index, template in enumerate(templates):
        mol = onto(template, numbers, positions, names)
        if mol is not None:
            found[index] = mol

    def misfit(index: int) -> tuple[bool, float]:
        placed = found[index].GetConformer().GetPositions()
        return not np.array_equal(placed, positions), float(strain(found[index], placed))

    best = min(found, key=misfit, default=-1)
    return best, found.get(best)


def _check_place(mol: Chem.Mol, structure: Structure) -> None:
    """Check that a molecule that is to be added is not there already.

    Raises
    ------
    InputError
        Its atoms lie on others.
    """
    if is_built(mol):
        return
    residues = [atom.residue for atom in structure.topology.atoms()]
    distances = cdist(mol.GetConformer().GetPositions(), structure.positions / NM)
    nearest = distances.argmin(axis=1)
    if (distances.min(axis=1) < _SAME_PLACE).sum() > mol.GetNumAtoms() / 3:
        residue = residues[int(nearest[0])]
        raise InputError(
            f"the ligand '{smiles(mol)}' lies where residue {residue.name} {residue.id} is "
            "already, which has other atoms or bonds, or is known to the force field: leave out "
            "the ligand, or delete the residue from the file"
        )


def _modeller(structure: Structure | None, placed: Sequence[_Placed]) -> app.Modeller:
    if structure is None:
        modeller = app.Modeller(app.Topology(), [] * unit.nanometer)
    else:
        modeller = app.Modeller(structure.topology, structure.positions * unit.nanometer)
    for molecule in placed:
        part = to_structure(molecule.mol, molecule.name)
        modeller.add(part.topology, part.positions * unit.nanometer)
    return modeller


def _force_field(
    choices: Choices, biopolymers: bool, water: str
) -> tuple[app.ForceField, list[str], str]:
    """Load the user's files, or Amber's for a biopolymer, and water where these lack it.

    Returns
    -------
    forcefield, files
        And what it was loaded from.
    water
        The model asked for; if the files bring their own, one with as many sites.
    """
    files = list(choices.force_fields)
    if not files and biopolymers:
        files = [BIOPOLYMERS]
    try:
        forcefield = app.ForceField(*files)
        sites = _sites_of_water(forcefield)
        if sites is None and not (choices.force_fields and water == NO_WATER):
            files.append(WATER_MODELS.get(water, WATER_MODELS["tip3p"])[0])
            forcefield.loadFile(files[-1])
    except Exception as error:  # parsers of XML, missing files, contradicting sections
        reason = " ".join(str(error).split())
        hint = ""
        if files != list(choices.force_fields) and choices.force_fields:
            hint = (
                f"; yours bring no water, and {files[-1]} does not go with them: add the file of "
                "the same force field for water, such as charmm36/water.xml"
            )
        raise InputError(f"cannot load the force field {' '.join(files)}: {reason}{hint}") from None
    if sites is None or water == NO_WATER or WATER_MODELS[water][0] in files:
        return forcefield, files, water
    own = {3: "tip3p", 4: "tip4pew"}.get(sites)  # the boxes of water that OpenMM has
    if own is None:
        raise InputError(
            f"the force field {' '.join(files)} has water of {sites} sites: take one of 3 or 4"
        )
    names = " ".join(files).replace("charmm36/water", "tip3p")
    if choices.water and choices.water not in names:
        raise InputError(
            f"the force field {' '.join(files)} brings its own water: leave out the water model "
            f"'{choices.water}', or the file with water"
        )
    return forcefield, files, own


def _sites_of_water(forcefield: app.ForceField) -> int | None:
    """Return how many sites the force field's water has; `None` if it knows none."""
    for template in forcefield._templates.values():
        symbols = sorted(a.element.symbol for a in template.atoms if a.element is not None)
        if symbols == ["H", "H", "O"]:
            return len(template.atoms)
    return None


def _parametrise(
    forcefield: app.ForceField, placed: Sequence[_Placed], choices: Choices, say: Say
) -> dict[str, Any]:
    """Make the force field know the small molecules; return what was done."""
    kinds: dict[str, _Placed] = {}
    for molecule in placed:
        kinds.setdefault(smiles(molecule.mol), molecule)
    method, own = _charge_method(choices, len(kinds))
    wanted = check_choice(choices.small_molecules, _SMALL_MOLECULES, "way with small molecules")
    with_openff = wanted != "nonbonded" and openff_available()
    if wanted == "openff" and not with_openff:
        raise InputError(
            "small_molecules='openff' needs openmmforcefields and the OpenFF toolkit, from "
            "conda-forge: conda install -c conda-forge openmmforcefields"
        )
    entries: list[dict[str, Any]] = []
    for text, molecule in kinds.items():
        mol = molecule.mol
        entry: dict[str, Any] = {"residue": molecule.name, "smiles": text}
        entry["formal_charge"] = Chem.GetFormalCharge(mol)
        if is_built(mol) and mol.GetProp("asked") != text:
            say(f"{molecule.name}: {mol.GetProp('asked')} leaves stereochemistry open")
        topology = to_structure(mol, molecule.name).topology
        if not forcefield.getUnmatchedResidues(topology):
            entry["parameters"] = entry["charges"] = "the force field's own"
        elif with_openff:
            charges = None
            if method is not None:
                charges = [own_charges(mol, own) if own else partial_charges(mol, method)]
            generator, name = openff_templates([mol], charges)
            forcefield.registerTemplateGenerator(generator)
            entry |= {"parameters": name, "charges": method or f"of {name}"}
        else:
            ligand = Ligand.create(mol, molecule.name, method or "mmff94", own)
            forcefield.registerTemplateGenerator(NonbondedTemplates([ligand]))
            entry |= {"parameters": f"Lennard-Jones of {SOURCE}, no bonded terms"}
            entry["charges"] = _describe(ligand.method)
            entry["types"] = [parameter.type for parameter in ligand.parameters]
        try:
            forcefield.createSystem(topology)
        except Exception as error:
            reason = " ".join(str(error).split())
            hint = "; --small-molecules nonbonded does without OpenFF" if with_openff else ""
            raise InputError(
                f"no parameters for {molecule.name} ({text}): {reason}{hint}"
            ) from None
        say(
            f"{molecule.name} ({text}): {entry['parameters']}; charges {entry['charges']}, "
            f"sum {signed(entry['formal_charge'])}"
        )
        entries.append(entry)
    return {"small_molecules": entries}


def _charge_method(choices: Choices, kinds: int) -> tuple[str | None, list[float] | None]:
    """Return the method for the charges, and the values of a user's file."""
    given = choices.charges
    if given is None or given.lower() in CHARGE_METHODS:
        return given.lower() if given else None, None
    if not is_file(given):
        raise InputError(
            f"charges '{given}' are neither a method ({', '.join(CHARGE_METHODS)}) nor a file"
        )
    if kinds != 1:
        raise InputError(f"charges from a file need one kind of small molecule, there are {kinds}")
    text = " ".join(line.partition("#")[0] for line in Path(given).read_text().splitlines())
    try:
        return given, [float(word) for word in text.replace(",", " ").split()]
    except ValueError as error:
        raise InputError(f"'{given}' does not hold charges: {error}") from None


def _describe(method: str) -> str:
    names = {
        "mmff94": f"MMFF94 (RDKit {rdBase.rdkitVersion})",
        "gasteiger": f"Gasteiger (RDKit {rdBase.rdkitVersion})",
        "xtb": "GFN2-xTB (Mulliken, tblite)",
    }
    return names.get(method, f"of {method}")


def _complete(
    modeller: app.Modeller, forcefield: app.ForceField, water: str, choices: Choices, say: Say
) -> int:
    """Add missing hydrogens and the extra sites of waters; return the number of hydrogens."""
    before = modeller.topology.getNumAtoms()
    four_sites = WATER_MODELS.get(water, ("", ""))[1] == "tip4pew"
    try:
        if forcefield.getUnmatchedResidues(modeller.topology):
            with seeded(choices.seed):  # the force field does not know water before its fourth site
                modeller.addHydrogens(None if four_sites else forcefield, pH=choices.ph)
        added = modeller.topology.getNumAtoms() - before
        if four_sites:
            modeller.addExtraParticles(forcefield)
        forcefield.createSystem(modeller.topology)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"the force field does not suit the structure: {reason} Missing heavy atoms can be "
            "added with PDBFixer; a small molecule is given as a ligand"
        ) from None
    if added:
        say(f"{added} hydrogens added for pH {choices.ph:g}")
    return added


def _solvate(
    modeller: app.Modeller,
    forcefield: app.ForceField,
    water: str,
    shape: str,
    choices: Choices,
    say: Say,
) -> None:
    """Add water unless there is enough, or none wanted."""
    if choices.width is not None and choices.padding is not None:
        raise InputError("give the width of the box or the padding, not both")
    wants_box = choices.width or choices.padding or choices.salt
    if is_filled(modeller):
        if wants_box:
            raise InputError(
                f"'{choices.source}' fills its box, so it is solvated already: leave out box, "
                "padding and salt"
            )
        say("the structure fills its box: no water is added")
    elif water == NO_WATER:
        if wants_box:
            raise InputError("a box, padding or salt needs water: choose a model of it")
        modeller.topology.setPeriodicBoxVectors(None)
        say("no water: in vacuum, without a box")
    else:
        padding = PADDING if choices.padding is None else choices.padding
        add_solvent(
            modeller, forcefield, water, choices.width, padding, shape, choices.salt, choices.seed
        )


def _create_system(forcefield: app.ForceField, topology: app.Topology, cutoff: float) -> Any:
    settings = nonbonded_settings(topology, cutoff)
    try:
        return forcefield.createSystem(topology, **settings)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputError(f"the force field does not suit the structure: {reason}") from None
