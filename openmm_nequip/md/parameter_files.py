"""Files of AMBER and GROMACS: what they hold, and how OpenMM reads them."""

from pathlib import Path

import mdtraj
import numpy as np
import openmm
from openmm import app, unit

_AMBER = (".prmtop", ".parm7", ".prm7")
_GROMACS = (".top", ".itp")  # AMBER's may be called so too
PARAMETERS = (*_AMBER, *_GROMACS)
_COORDINATES = (".inpcrd", ".rst7", ".rst", ".restrt", ".ncrst", ".crd")


def kind(file: str | Path) -> str | None:
    """Return 'prmtop', 'inpcrd', 'top', 'gro', or `None` for other files."""
    suffix = Path(file).suffix.lower()
    if suffix in _AMBER:
        return "prmtop"
    if suffix in _GROMACS:
        if not Path(file).is_file():
            return "top"
        with open(file, errors="replace") as opened:
            return "prmtop" if opened.read(8) == "%VERSION" else "top"
    if suffix in _COORDINATES:
        return "inpcrd"
    return "gro" if suffix == ".gro" else None


def read_coordinates(file: str | Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Return positions, nm, shape ``[N, 3]``, and box vectors, nm, shape ``[3, 3]``, if any."""
    if kind(file) == "gro":
        gro = app.GromacsGroFile(str(file))
        positions, vectors = gro.getPositions(asNumpy=True), gro.getPeriodicBoxVectors()
    else:
        inpcrd = app.AmberInpcrdFile(str(file))
        positions, vectors = inpcrd.getPositions(asNumpy=True), inpcrd.boxVectors
    box = None if vectors is None else np.array(vectors.value_in_unit(unit.nanometer))
    if box is not None and not np.diag(box).all():  # GROMACS writes zeros for no box
        box = None
    return np.array(positions.value_in_unit(unit.nanometer)), box


def gro_topology(file: str | Path) -> app.Topology:
    """Return the atoms and residues of a gro file, with the bonds of standard residues.

    The file has no elements, they are told from the names: `None` where no element has the name.
    """
    topology = mdtraj.load_topology(str(file)).to_openmm()
    for atom in topology.atoms():
        atom.element = _element(atom.name, alone=len(atom.residue) == 1)
    return topology


def _element(name: str, alone: bool) -> app.Element | None:
    """Tell the element of an atom: CA is calcium if it is alone, and else the alpha carbon."""
    letters = name.strip("0123456789+-").upper()
    if letters.startswith(("BR", "CL")):
        symbol = letters[:2]
    else:
        symbol = letters if alone else letters[:1]
    try:
        return app.Element.getBySymbol(symbol)
    except KeyError:
        return None


def read_parameters(
    file: str | Path, box: np.ndarray | None
) -> app.AmberPrmtopFile | app.GromacsTopFile:
    """Return the parameters of a system in a box (vectors, nm); OpenMM needs it while reading."""
    vectors = None if box is None else [openmm.Vec3(*row) for row in box] * unit.nanometer
    if kind(file) == "prmtop":
        return app.AmberPrmtopFile(str(file), periodicBoxVectors=vectors)
    top = app.GromacsTopFile(str(file), periodicBoxVectors=vectors)
    _bond_waters(top.topology)
    return top


def _bond_waters(topology: app.Topology) -> None:
    """Add the bonds of rigid water, of which topology files tell the geometry only."""
    bonded = {bond[0].residue for bond in topology.bonds()}
    for residue in topology.residues():
        if residue in bonded:
            continue
        symbols = {atom: atom.element.symbol for atom in residue.atoms() if atom.element}
        if sorted(symbols.values()) != ["H", "H", "O"]:
            continue
        oxygen = next(atom for atom, symbol in symbols.items() if symbol == "O")
        for atom, symbol in symbols.items():
            if symbol == "H":
                topology.addBond(oxygen, atom)
