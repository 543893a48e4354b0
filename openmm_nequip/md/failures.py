"""What is said and kept when a run cannot go on: the atoms to look at, and the files."""

from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit

from ..modelfile import write_atomically
from .checks import near_pairs, strongest_force
from .domain import atom_name
from .folder import structure_path, write_structure

_STRONG = 2e4  # kJ/mol/nm; no atom of a sound simulation feels so much
LIKELY_CAUSES = (
    "Likely causes: atoms too close at the start ('minimise: true'), a time step too long (0.5 fs "
    "is safe), or configurations for which the potential was not trained (see warnings.csv)"
)
_NEAR = 0.7  # of the sum of the covalent radii: no bond is so short
_LARGEST = 999.0  # nm; PDB files have no room for more


def suspects(simulation: app.Simulation, positions: np.ndarray, box: np.ndarray | None) -> str:
    """Name the atoms from which a failure probably came.

    These are atoms without finite coordinates, else the pair that is too close, else the atom
    with the largest force; an empty string if nothing stands out.

    Parameters
    ----------
    simulation
        Its topology and, for the forces, its Context as it is.
    positions
        In which it failed, nm, shape ``[N, 3]``.
    box
        Lattice vectors as rows, nm; `None` for no box.
    """
    topology = simulation.topology
    atoms = list(topology.atoms())
    lost = [atom for atom in atoms if not np.isfinite(positions[atom.index]).all()]
    if lost:
        others = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        return f"{atom_name(lost[0])}{others} has lost its coordinates"
    extent = np.abs(positions).max()
    if extent < _LARGEST:
        system = simulation.system
        first, second, distance, sums = near_pairs(_NEAR, system, topology, positions, box)
        if len(distance):
            k = int(np.argmin(distance / sums))
            return (
                f"{atom_name(atoms[first[k]])} and {atom_name(atoms[second[k]])} are "
                f"{10 * distance[k]:.2f} Å apart"
            )
    try:
        atom, size = strongest_force(simulation.context, topology)
    except openmm.OpenMMException:
        return ""
    return "" if size < _STRONG else f"the force on {atom_name(atom)} is {size:.3g} kJ/mol/nm"


def keep_frames(
    folder: Path,
    topology: app.Topology,
    good: openmm.State | None,
    broken: np.ndarray,
    box: np.ndarray | None,
) -> str:
    """Write the last good state and the frame in which a run failed; say where they are.

    Parameters
    ----------
    folder
        Of the run.
    topology
        Atoms that are written.
    good
        Last good state; `None` if there is none.
    broken
        Positions after it, nm, shape ``[N, 3]``; coordinates that are not finite are those of the
        good state, or zero.
    box
        Lattice vectors as rows, nm; `None` for no box.
    """
    known = np.zeros_like(broken)
    saved = "there is no good state to save: check the structure"
    if good is not None:
        known = good.getPositions(asNumpy=True)._value
        path = structure_path(folder, "last_good", topology)
        own_box = None if box is None else good.getPeriodicBoxVectors(asNumpy=True)._value
        write_structure(path, topology, known, own_box)
        xml = openmm.XmlSerializer.serialize(good)
        write_atomically(folder / "last_good.xml", xml.encode())
        when = good.getTime().value_in_unit(unit.picosecond)
        saved = f"the last good state ({when:.4f} ps) is in {path} and .xml"
    frame = np.clip(np.where(np.isfinite(broken), broken, known), -_LARGEST, _LARGEST)
    path = structure_path(folder, "broken", topology)
    write_structure(path, topology, frame, box)
    return f"{saved}, the frame in which it failed in {path}"
