"""The files that a configuration names: structure and, in mixed runs, its force field."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import openmm
from openmm import app, unit

from ..config import locate, search_folders
from ..errors import InputError
from .config import SimulationConfig
from .images import along_bonds, near_image
from .parameter_files import PARAMETERS, gro_topology, kind, read_coordinates, read_parameters
from .serialization import load_system
from .structure import Structure, find_structure, load_structure

_CUTOFF = 1.0  # nm
_HEAVIEST_HYDROGEN = 5.0  # Da, where masses are repartitioned
_DEUTERIUM = 2.1  # Da, is a hydrogen still
_ROUNDED = 0.6  # Da, in force fields
_TAKEN_BY_HYDROGEN = 3.1  # Da, each, from the atom that it is bonded to
_ONES_OWN = (
    openmm.MonteCarloBarostat,
    openmm.MonteCarloAnisotropicBarostat,
    openmm.MonteCarloFlexibleBarostat,
    openmm.MonteCarloMembraneBarostat,
    openmm.AndersenThermostat,
)


class _Coordinates(NamedTuple):
    positions: np.ndarray  # nm, [N, 3]
    box: np.ndarray | None  # nm, [3, 3]
    topology: app.Topology | None


def find_files(
    config: SimulationConfig, beside: Path, overrides: Sequence[str] = ()
) -> SimulationConfig:
    """Return the configuration with paths that hold from the working directory.

    Parameters
    ----------
    config
        Of the file and the command line together.
    beside, overrides
        As for `openmm_nequip.config.search_folders`, which says where they are looked for.

    Raises
    ------
    InputError
        The structure is neither a file nor an example.
    """

    def folders(key: str) -> list[Path]:
        return search_folders(key, beside, overrides)

    def found(key: str, name: str) -> str:
        return locate(name, folders(key))

    changes: dict[str, str | list[str]] = {}
    if path := find_structure(config.structure, folders("structure")):
        changes["structure"] = str(path)
    if config.potential is not None:
        changes["potential"] = found("potential", config.potential)
    if isinstance(config.force_field, str):
        changes["force_field"] = found("force_field", config.force_field)
    elif config.force_field is not None:
        changes["force_field"] = [found("force_field", name) for name in config.force_field]
    return config.model_copy(update=changes)


def load_input(config: SimulationConfig) -> Structure:
    """Read the structure of a run and, if it is a mixed one, its force field.

    Raises
    ------
    InputError
        A file is missing or cannot be read, the force field does not know the structure, or the
        two do not belong together.
    """
    if config.force_field is None:
        structure = load_structure(config.structure)
        return structure if config.periodic is None else structure.periodic(config.periodic)
    given = config.force_field
    files = [given] if isinstance(given, str) else list(given)
    coordinates = _read_coordinates(config.structure)
    if config.periodic and coordinates.box is None:
        raise InputError("'periodic: true', but the structure has no box")
    if config.periodic is False:
        coordinates = coordinates._replace(box=None)
    try:
        interpolated = config.lambda_interpolate is not None
        topology, system = _parametrise(files, coordinates, interpolated)
    except InputError:
        raise
    except Exception as error:  # parsers and force fields raise whatever they like
        reason = " ".join(f"{error}".split())
        raise InputError(
            f"force field {', '.join(files)} cannot be used for '{config.structure}': {reason}; "
            "'openmm-nequip prepare' builds missing parts and parameters"
        ) from None
    return _together(config, topology, system, coordinates)


def _read_coordinates(name: str) -> _Coordinates:
    if kind(name) not in ("inpcrd", "gro"):
        structure = load_structure(name)
        return _Coordinates(structure.positions, structure.box, structure.topology)
    try:
        positions, box = read_coordinates(name)
    except Exception as error:
        raise InputError(f"cannot read '{name}': {' '.join(f'{error}'.split())}") from None
    topology = gro_topology(name) if kind(name) == "gro" else None
    return _Coordinates(positions, box, topology)


def _parametrise(
    files: Sequence[str], coordinates: _Coordinates, interpolated: bool
) -> tuple[app.Topology, openmm.System]:
    """Return the topology that the force field is for and its System."""
    box = coordinates.box
    vectors = None if box is None else [openmm.Vec3(*row) for row in box] * unit.nanometer
    settings = {
        "nonbondedMethod": app.NoCutoff if box is None else app.PME,
        "nonbondedCutoff": _CUTOFF * unit.nanometer,
        # createMixedSystem removes those of the ML region, but with them the bonds' energies are
        # gone, which hold it together at λ = 0
        "constraints": None if interpolated else app.HBonds,
        "rigidWater": True,
    }
    first = Path(files[0])
    if len(files) == 1 and first.suffix.lower() in PARAMETERS:
        if not first.is_file():
            raise InputError(f"force field '{first}' does not exist")
        source = read_parameters(first, box)
        return source.topology, source.createSystem(**settings)
    topology = coordinates.topology
    if topology is None:
        raise InputError(
            "AMBER coordinates have no names of atoms and residues: give the prmtop file as "
            "'force_field'"
        )
    topology.setPeriodicBoxVectors(vectors)
    if len(files) == 1 and first.is_file() and "<System" in first.read_text()[:1000]:
        return topology, load_system(first)
    return topology, app.ForceField(*files).createSystem(topology, **settings)


def _check_masses(topology: app.Topology, system: openmm.System, name: str) -> None:
    """Check that particles of a System can be the atoms of a structure.

    Hydrogens may be heavier, and what they are bonded to lighter by as much (hydrogen mass
    repartitioning); united atoms have the mass of their hydrogens too. Ions are left out, whose
    elements are often guessed.

    Raises
    ------
    InputError
        A mass is that of another element.
    """
    atoms = list(topology.atoms())
    masses = [system.getParticleMass(k).value_in_unit(unit.dalton) for k in range(len(atoms))]
    heavier = [0.0] * len(atoms)  # by how much the hydrogens of an atom are
    bonded = set[int]()
    for bond in topology.bonds():
        bonded |= {bond[0].index, bond[1].index}
        for atom, other in ((bond[0], bond[1]), (bond[1], bond[0])):
            if _usual_mass(other) < _DEUTERIUM:
                heavier[atom.index] += masses[other.index] - _usual_mass(other)
    for residue in topology.residues():
        members = list(residue.atoms())
        hydrogens = [atom.index for atom in members if 0 < _usual_mass(atom) < _DEUTERIUM]
        known = bonded.issuperset(hydrogens)
        for atom in members if len(members) > 1 else []:
            mass, usual = masses[atom.index], _usual_mass(atom)
            if usual == 0 or mass == 0:  # a virtual site, or held in place
                continue
            if usual < _DEUTERIUM:
                fits = mass < _HEAVIEST_HYDROGEN
            else:
                taken = heavier[atom.index] if known else 4 * _TAKEN_BY_HYDROGEN
                fits = mass > max(usual - taken - _ROUNDED, _DEUTERIUM)
            if not fits:
                raise InputError(
                    f"atom {atom.index} is {atom.name} ({atom.element.symbol}) in '{name}' and has "
                    f"a mass of {mass:.3f} Da in the System: they are of other molecules, or their "
                    "atoms are in another order"
                )


def _usual_mass(atom: app.topology.Atom) -> float:
    """Return Da; zero of a virtual site."""
    return 0.0 if atom.element is None else float(atom.element.mass.value_in_unit(unit.dalton))


def whole_molecules(
    topology: app.Topology, positions: np.ndarray, box: np.ndarray | None
) -> np.ndarray:
    """Put atoms beside those that they are bonded to, for force fields do not look at images.

    Parameters
    ----------
    topology
        Knows the bonds.
    positions
        nm, shape ``[N, 3]``.
    box
        Reduced box vectors, nm, shape ``[3, 3]``; `None` changes nothing.

    Returns
    -------
    ndarray
        nm, shape ``[N, 3]``.
    """
    bonds = np.array([(b[0].index, b[1].index) for b in topology.bonds()]).reshape(-1, 2)
    if box is None or not len(bonds):
        return positions
    vectors = near_image(positions[bonds[:, 1]] - positions[bonds[:, 0]], box)
    off = np.linalg.norm(positions[bonds[:, 0]] + vectors - positions[bonds[:, 1]], axis=1)
    if off.max() < 1e-6:
        return positions
    return along_bonds(positions, bonds, vectors)


def _together(
    config: SimulationConfig,
    topology: app.Topology,
    system: openmm.System,
    coordinates: _Coordinates,
) -> Structure:
    """Check that force field and structure have the same atoms and put them together."""
    positions, box = coordinates.positions, coordinates.box
    count = {system.getNumParticles(), topology.getNumAtoms(), len(positions)}
    if len(count) > 1:
        raise InputError(
            f"the force field has {system.getNumParticles()} particles and "
            f"'{config.structure}' {len(positions)}: they are not of the same system"
        )
    if config.periodic is None and box is None and topology.getPeriodicBoxVectors() is not None:
        raise InputError(
            f"the force field is of a periodic system, and '{config.structure}' has no box: give "
            "coordinates with their box (rst7, or PDB with CRYST1), or periodic: false"
        )
    _check_masses(topology, system, config.structure)
    named = coordinates.topology or topology
    for atom, other in zip(topology.atoms(), named.atoms(), strict=True):
        known = None not in (atom.element, other.element)
        # the elements of a gro file are told from the names, and not always rightly
        if known and atom.element is not other.element and atom.name != other.name:
            raise InputError(
                f"atom {atom.index} is {other.name} in '{config.structure}' and {atom.name} in the "
                "force field: the atoms are not in the same order"
            )
    if system.usesPeriodicBoundaryConditions():
        if box is None:
            raise InputError(
                f"the force field is periodic, and '{config.structure}' has no box: give a "
                "structure with its box, or a force field without a cutoff"
            )
        system.setDefaultPeriodicBoxVectors(*[openmm.Vec3(*row) for row in box])
    else:
        box = None
    vectors = None if box is None else [openmm.Vec3(*row) for row in box] * unit.nanometer
    topology.setPeriodicBoxVectors(vectors)
    for k in reversed(range(system.getNumForces())):  # the ensemble is the configuration's
        if isinstance(system.getForce(k), _ONES_OWN):
            system.removeForce(k)
    return Structure(topology, whole_molecules(topology, positions, box), box, mm_system=system)
