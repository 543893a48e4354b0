"""From a molecule or a structure file to a solvated System that is ready for ML/MM."""

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase
import mdtraj
import numpy as np
import openmm
import yaml
from openmm import app, unit

from ..errors import InputError
from ..modelfile import DEFAULT_MODEL
from ..versions import versions
from .bonded import atoms_without_bonded_terms
from .choices import Assembled, Choices
from .domain import domain_and_cutoff
from .mixed import net_charge
from .parametrised import is_parametrised, read_parametrised
from .region import select
from .solvation import check_width

_SMALL = 100  # atoms; a larger solute is not meant as a whole unless the user says so

_CONFIGURATION = """\
# {title}
# Run it with: openmm-nequip simulate {folder}/simulate.yaml
# key=value behind it changes a key, such as time='1 ns'

structure: structure.cif
force_field: system.xml         # of everything; in the ML region the potential replaces it
{region}  # {atoms} atoms, MDTraj's selection language
{potential}
ensemble: {ensemble}                   # nve, nvt{npt}
temperature: 300                # K
{pressure}timestep: 0.5                   # fs; no more with the potential's flexible hydrogens
heating: 5 ps                   # after the minimisation
equilibration: 20 ps            # at the temperature, before production
time: 100 ps                    # of production
trajectory_interval: 0.1 ps
log_interval: 50 fs
seed: {seed}
output: runs/{name}
"""


@dataclass(frozen=True)
class Prepared:
    """A system that is ready to run.

    Attributes
    ----------
    topology, system
        Of OpenMM; the System is that of the force field alone.
    positions
        nm, shape ``[N, 3]``.
    atoms
        The ML region.
    record
        All that was decided, as in ``prepared.json``.
    """

    topology: app.Topology
    positions: np.ndarray
    system: openmm.System
    atoms: list[int]
    record: dict[str, Any]

    def write(self, folder: str | Path) -> None:
        """Write system.xml, structure.cif, simulate.yaml and prepared.json into a new folder.

        Raises
        ------
        InputError
            The folder exists already.
        """
        folder = Path(folder)
        check_new(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            (temporary / "system.xml").write_text(openmm.XmlSerializer.serialize(self.system))
            _write_structure(self.topology, self.positions, temporary / "structure.cif")
            (temporary / "simulate.yaml").write_text(self._configuration(folder))
            record = json.dumps(self.record, indent=2, ensure_ascii=False)
            (temporary / "prepared.json").write_text(record + "\n")
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o777 & ~umask)  # mkdtemp allows the owner only
            os.rename(temporary, folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise

    def _configuration(self, folder: Path) -> str:
        periodic = self.topology.getPeriodicBoxVectors() is not None
        region, potential = self.record["ml_region"], self.record["potential"]["name"]
        if Path(potential).is_file():
            potential = str(Path(potential).resolve())
        waters = self.record["waters"]
        solvent = f" in {waters} waters" if waters else ""
        return _CONFIGURATION.format(
            title=f"{self.record['formula']}{solvent}, prepared by openmm-nequip",
            folder=folder,
            name=folder.name,
            region=_line("ml_region", region["selection"]),
            atoms=len(region["atoms"]),
            potential=_line("potential", potential),
            ensemble="npt" if periodic else "nvt",
            npt=" or npt" if periodic else "; there is no box for npt",
            pressure="pressure: 1.0                   # bar\n" if periodic else "",
            seed=self.record["seed"],
        )


def prepare(choices: Choices, say: Callable[[str], None] = lambda text: None) -> Prepared:
    """Build, solvate and choose the ML region.

    Parameters
    ----------
    choices
        What to prepare and how.
    say
        Receives a line for each decision.

    Raises
    ------
    InputError
        Something in `choices` is wrong or does not suit the structure or the potential.
    """
    domain_and_cutoff(choices.potential)  # a misspelt name should not wait for the water
    if is_parametrised(choices):
        assembled = read_parametrised(choices)
    else:
        try:
            from .assembly import assemble
        except ImportError as error:
            if (error.name or "").partition(".")[0] != "rdkit":
                raise
            raise InputError("molecules need RDKit: pip install 'openmm-nequip[mlmm]'") from None
        assembled = assemble(choices, say)
    topology, system = assembled.topology, assembled.system
    _make_names_unique(topology)
    selection = choices.region or _default_region(assembled)
    atoms = select(topology, selection)
    loose = atoms_without_bonded_terms(topology, system)
    if outside := set(loose) - set(atoms):
        atom = list(topology.atoms())[min(outside)]
        raise InputError(
            f"{atom.residue.name} {atom.residue.id} has no bonded terms, so the potential must "
            f"describe all of it, and '{selection}' leaves out {len(outside)} of its atoms"
        )
    charges = _charges(system)
    charge = _check_potential(topology, system, atoms, choices.potential)
    residues = Counter(residue.name for residue in topology.residues())
    alone = {residue.name for residue in topology.residues() if len(residue) == 1}
    record = assembled.record | {
        "formula": _formula(topology),
        "num_atoms": topology.getNumAtoms(),
        "waters": residues["HOH"],
        "ions": {name: residues[name] for name in sorted(alone)},
        "total_charge": round(float(charges.sum()), 6) + 0.0,
        "box_nm": None,
        "nonbonded": "NoCutoff",
        "bonded_terms": not loose,
        "atoms_without_bonded_terms": loose,
        "ml_region": {"selection": selection, "atoms": atoms, "charge": charge},
        "potential": {"name": choices.potential or DEFAULT_MODEL},
        "seed": choices.seed,
        "versions": versions(),
    }
    vectors = topology.getPeriodicBoxVectors()
    if vectors is not None:
        box = np.array(vectors.value_in_unit(unit.nanometer))
        record |= {"box_nm": box.tolist(), "nonbonded": f"PME, cutoff {choices.cutoff:g} nm"}
    for entry in record.get("small_molecules", []):
        entry["atoms"] = _parameters(topology, system, entry["residue"], entry.pop("types", None))
    return Prepared(topology, assembled.positions, system, atoms, record)


def check_new(folder: Path) -> None:
    """Raise `InputError` if there is something at this path."""
    if folder.exists():
        raise InputError(f"'{folder}' exists already: give another output or remove it")


def _default_region(assembled: Assembled) -> str:
    """Choose the ligand, or else the one small solute that there is."""
    names: Sequence[str] = assembled.ligands
    if not names:
        topology = mdtraj.Topology.from_openmm(assembled.topology)
        solutes = [
            molecule
            for molecule in topology.find_molecules()
            if len(molecule) > 1 and not any(atom.residue.is_water for atom in molecule)
        ]
        if len(solutes) == 1 and len(solutes[0]) <= _SMALL:
            atoms = sorted(solutes[0], key=lambda atom: atom.index)
            names = list(dict.fromkeys(atom.residue.name for atom in atoms))
    if not names or len(assembled.ligands) > 1:
        raise InputError(
            "which part should the potential describe? Give the ML region in MDTraj's selection "
            "language, like 'resname LIG' or 'resid 3 4 and sidechain'"
        )
    return "resname " + " ".join(name if name.isidentifier() else f"'{name}'" for name in names)


def _check_potential(
    topology: app.Topology, system: openmm.System, atoms: list[int], potential: str | None
) -> int | None:
    """Check elements, charge and box against the potential; return the charge of the region, e.

    It is `None` where bonds are cut: then the force field's charges of the region mean little.

    Raises
    ------
    InputError
        The region is outside the potential's domain, or the box narrower than twice its cutoff.
    """
    members, chosen = list(topology.atoms()), set(atoms)
    nameless = [members[k] for k in atoms if members[k].element is None]
    if nameless:
        raise InputError(
            f"the ML region has the extra site {nameless[0].name} of {nameless[0].residue.name}, "
            "which is no atom: choose a water model with three sites or another region"
        )
    cuts = sum((bond[0].index in chosen) != (bond[1].index in chosen) for bond in topology.bonds())
    numbers = [members[k].element.atomic_number for k in atoms] + [1] * cuts  # link atoms
    charge = None if cuts else net_charge(system, atoms)
    domain, r_max = domain_and_cutoff(potential)
    try:
        domain.check(numbers, charge)
    except InputError as error:
        raise InputError(
            f"choose another potential or ML region than '{potential or DEFAULT_MODEL}' on these "
            f"{len(atoms)} atoms: {error}"
        ) from None
    check_width(topology, r_max / 10, "the potential's cutoff")
    return charge


def _nonbonded(system: openmm.System) -> openmm.NonbondedForce:
    for force in system.getForces():
        if isinstance(force, openmm.NonbondedForce):
            return force
    raise InputError("the force field has no NonbondedForce, so it cannot be mixed with ML")


def _charges(system: openmm.System) -> np.ndarray:
    """Return the force field's charges, e, shape ``[N]``."""
    force = _nonbonded(system)
    return np.array(
        [force.getParticleParameters(k)[0]._value for k in range(system.getNumParticles())]
    )


def _parameters(
    topology: app.Topology, system: openmm.System, name: str, types: list[str] | None
) -> list[dict[str, Any]]:
    """Return name, charge, sigma and epsilon of each atom of the first residue of a name."""
    force = _nonbonded(system)
    residue = next(residue for residue in topology.residues() if residue.name == name)
    entries = []
    for index, atom in enumerate(residue.atoms()):
        charge, sigma, epsilon = force.getParticleParameters(atom.index)
        entry = {"name": atom.name, "charge": charge._value}
        entry |= {"sigma_nm": sigma._value, "epsilon_kJ_mol": epsilon._value}
        if types is not None:
            entry["type"] = types[index]
        entries.append(entry)
    return entries


def _formula(topology: app.Topology) -> str:
    """Return the formula of all but water and single atoms, or of everything if that is all."""
    atoms = [atom for atom in topology.atoms() if atom.element is not None]
    solute = [atom for atom in atoms if atom.residue.name != "HOH" and len(atom.residue) > 1]
    symbols = [atom.element.symbol for atom in solute or atoms]
    return ase.Atoms(symbols).get_chemical_formula("hill")


def _make_names_unique(topology: app.Topology) -> None:
    """Rename chains, residues and atoms where structure.cif could not tell them apart."""
    for residue in topology.residues():
        atoms = list(residue.atoms())
        if len({atom.name for atom in atoms}) < len(atoms):
            count = Counter[str]()
            for atom in atoms:
                symbol = atom.element.symbol if atom.element else "M"
                count[symbol] += 1
                atom.name = f"{symbol}{count[symbol]}"
    chains: set[str] = set()
    for chain in topology.chains():
        number = 1
        while chain.id in chains or not chain.id.strip():
            chain.id, number = f"{chr(ord('A') + chain.index % 26)}{number}", number + 1
        chains.add(chain.id)
        residues = list(chain.residues())
        if len({(residue.id, residue.insertionCode) for residue in residues}) < len(residues):
            for number, residue in enumerate(residues):
                residue.id, residue.insertionCode = str(number + 1), " "


def _write_structure(topology: app.Topology, positions: np.ndarray, path: Path) -> None:
    """Write mmCIF with all bonds but those of waters.

    OpenMM leaves out what the names of standard residues tell. But a methanol may be called MET,
    like the amino acid; so while the bonds are written no residue has a standard name.
    """
    names = {residue: residue.name for residue in topology.residues()}
    with path.open("w") as file:
        try:
            for residue, name in names.items():
                if name != "HOH" or not {"O", "H1", "H2"} <= {a.name for a in residue.atoms()}:
                    residue.name += " "
            app.PDBxFile.writeHeader(topology, file, keepIds=True)
        finally:
            for residue, name in names.items():
                residue.name = name
        app.PDBxFile.writeModel(topology, positions * unit.nanometer, file, keepIds=True)


def _line(key: str, value: str) -> str:
    return yaml.safe_dump({key: value}, width=1000, allow_unicode=True).strip()
