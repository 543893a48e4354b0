"""What `prepare` is told, and what it makes of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import openmm
from openmm import app


@dataclass(frozen=True)
class Choices:
    """How to prepare a simulation; what is `None` is decided from the structure.

    Attributes
    ----------
    source
        A structure file, a SMILES or the name of a bundled example.
    coordinates
        The other file, where parameters and coordinates come in two.
    ligands
        SDF or MOL files or SMILES of the small molecules in or beside the structure.
    charge
        Net charge, e, of a molecule of which only coordinates are known.
    charges
        Method for the charges of small molecules (`openmm_nequip.md.ligand.CHARGE_METHODS`), or a
        file with one for each atom.
    small_molecules
        'nonbonded' (Lennard-Jones parameters and charges), 'openff' (the complete force field of
        the OpenFF toolkit) or 'auto' (the latter where it is installed).
    force_fields
        Force-field files of OpenMM for everything but small molecules.
    water
        A model of `openmm_nequip.md.solvation.WATER_MODELS`, or 'none' for no solvent.
    width, padding
        Of the box, and between solute and box, nm; give at most one.
    shape
        'cube', 'dodecahedron' or 'octahedron'.
    salt
        NaCl, mol/L.
    ph
        Decides which missing hydrogens a protein gets.
    cutoff
        Of the force field's nonbonded interactions, nm.
    region
        What the potential describes, in MDTraj's selection language.
    potential
        A model file or the name of a bundled potential.
    seed
        Of the conformation and the places of ions.
    """

    source: str
    coordinates: str | None = None
    ligands: Sequence[str] = ()
    charge: int = 0
    charges: str | None = None
    small_molecules: str = "auto"
    force_fields: Sequence[str] = ()
    water: str | None = None
    width: float | None = None
    padding: float | None = None
    shape: str = "cube"
    salt: float = 0.0
    ph: float = 7.0
    cutoff: float = 1.0
    region: str | None = None
    potential: str | None = None
    seed: int = 1


@dataclass(frozen=True)
class Assembled:
    """A structure with its force field.

    Attributes
    ----------
    topology, system
        Of OpenMM.
    positions
        nm, shape ``[N, 3]``.
    ligands
        The name of each residue that is a small molecule.
    record
        What was decided on the way.
    """

    topology: app.Topology
    positions: np.ndarray
    system: openmm.System
    ligands: Sequence[str] = ()
    record: dict[str, Any] = field(default_factory=dict)
