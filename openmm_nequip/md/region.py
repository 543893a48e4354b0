"""The ML region of a mixed system: which atoms a selection names."""

import mdtraj
from openmm import app

from ..errors import InputError


def select(topology: app.Topology, selection: str) -> list[int]:
    """Return the indices of the atoms that a selection names, in ascending order.

    Parameters
    ----------
    topology
        Atoms, residues and chains.
    selection
        In MDTraj's selection language, such as ``resname LIG`` or ``chainid 0 and not water``.

    Raises
    ------
    InputError
        It cannot be understood, or there are no such atoms.
    """
    try:
        atoms = mdtraj.Topology.from_openmm(topology).select(selection).tolist()
    except (ValueError, AttributeError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"cannot understand the selection '{selection}' ({reason}): it is in MDTraj's "
            "language, like 'resname LIG' or 'chainid 0 and not water'"
        ) from None
    if not atoms:
        names = dict.fromkeys(residue.name for residue in topology.residues())
        shown = ", ".join(list(names)[:12]) + (", ..." if len(names) > 12 else "")
        raise InputError(
            f"the selection '{selection}' names no atom; the structure has the residues {shown}"
        )
    return [int(atom) for atom in atoms]
