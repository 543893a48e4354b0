"""The box: water and ions around a solute, with OpenMM's Modeller, and cutoffs that fit."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import openmm
from openmm import app, unit

from ..data.neighbors import pair_distances
from ..errors import InputError, did_you_mean
from ..units import NM

#: water model: its force field (with ions) and the box of OpenMM that has as many sites
WATER_MODELS = {
    "tip3p": ("amber14/tip3p.xml", "tip3p"),
    "tip3pfb": ("amber14/tip3pfb.xml", "tip3p"),
    "spce": ("amber14/spce.xml", "spce"),
    "opc3": ("amber14/opc3.xml", "tip3p"),
    "tip4pew": ("amber14/tip4pew.xml", "tip4pew"),
    "tip4pfb": ("amber14/tip4pfb.xml", "tip4pew"),
    "opc": ("amber14/opc.xml", "tip4pew"),
}
NO_WATER = "none"
SHAPES = {
    "cube": np.eye(3),
    "dodecahedron": np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0.5**0.5]]),
    "octahedron": np.array([[1, 0, 0], [1 / 3, 8**0.5 / 3, 0], [-1 / 3, 2**0.5 / 3, 6**0.5 / 3]]),
}
_CONTACT = 0.8  # Å; nearer than minimisation can be trusted with
_FILLED = 0.5  # g/cm³; the asymmetric unit of a crystal is below


def check_choice(name: str, known: dict[str, object] | list[str], what: str) -> str:
    """Return `name` in lower case; raise `InputError` if it is not known."""
    lower = name.lower()
    if lower not in known:
        raise InputError(
            f"unknown {what} '{name}'{did_you_mean(lower, known)}; known: {', '.join(known)}"
        )
    return lower


def is_filled(modeller: app.Modeller) -> bool:
    """Whether the box, if there is one, is as full as that of a solvated system."""
    vectors = modeller.topology.getPeriodicBoxVectors()
    if vectors is None:
        return False
    volume = float(np.linalg.det(np.array(vectors.value_in_unit(unit.nanometer))))
    masses = [atom.element.mass._value for atom in modeller.topology.atoms() if atom.element]
    return sum(masses) * 1.66053907e-3 / volume > _FILLED  # Da/nm³ to g/cm³


def add_solvent(
    modeller: app.Modeller,
    forcefield: app.ForceField,
    water: str,
    width: float | None,
    padding: float,
    shape: str,
    salt: float,
    seed: int,
) -> None:
    """Put the solute into a new box of water, neutralised by Na⁺ or Cl⁻.

    Parameters
    ----------
    modeller, forcefield
        The solute, changed in place, and its force field.
    water
        One of `WATER_MODELS`.
    width
        Distance between periodic images, nm; `None`: the solute's diameter and twice the padding.
    padding
        Between solute and the wall of the box, nm.
    shape
        One of `SHAPES`.
    salt
        NaCl beyond what neutralises, mol/L.
    seed
        Decides which waters become ions.

    Raises
    ------
    InputError
        The solute does not fit into the box, or too few waters do.
    """
    positions = np.array(modeller.positions.value_in_unit(unit.nanometer))
    center = (positions.min(axis=0) + positions.max(axis=0)) / 2
    diameter = 2 * float(np.linalg.norm(positions - center, axis=1).max())
    if width is None:
        width = diameter + 2 * padding
    elif width <= diameter:
        raise InputError(
            f"the solute is {diameter:.2f} nm across and does not fit into a box of {width:g} nm"
        )
    solute = len(positions)
    box = SHAPES[shape] * round(width, 5)  # as many digits as structure.cif keeps
    vectors = tuple(openmm.Vec3(*row) for row in box)
    try:
        with seeded(seed):
            modeller.addSolvent(
                forcefield,
                model=WATER_MODELS[water][1],
                boxVectors=vectors * unit.nanometer,
                ionicStrength=salt * unit.molar,
            )
    except Exception as error:  # Modeller raises all kinds
        raise InputError(f"OpenMM cannot add the water: {' '.join(str(error).split())}") from None
    around = np.array(modeller.positions.value_in_unit(unit.nanometer))
    modeller.positions = (around - center + np.diag(box) / 2) * unit.nanometer
    _delete_contacts(modeller, solute)


def _delete_contacts(modeller: app.Modeller, solute: int) -> None:
    """Delete added waters that touch another molecule, as some do across the faces of the box.

    OpenMM looks at the distances of oxygen atoms, and hydrogen atoms can be almost at one place.
    """
    topology = modeller.topology
    residues = [atom.residue for atom in topology.atoms()]
    positions, box = (
        np.array(values.value_in_unit(unit.nanometer)) / NM
        for values in (modeller.positions, topology.getPeriodicBoxVectors())
    )
    added = {r for r in residues[solute:] if r.name == "HOH"}
    deleted: set[app.topology.Residue] = set()
    first, second, _ = pair_distances(positions, box, (True,) * 3, _CONTACT)
    for a, b in zip(first, second, strict=True):
        one, other = residues[a], residues[b]
        waters = [residue for residue in (other, one) if residue in added]
        if waters and one is not other and not {one, other} & deleted:
            deleted.add(waters[0])  # one of two is enough
    if deleted:
        modeller.delete(list(deleted))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Make what draws from Python's `random` reproducible, and leave no trace of it."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


def nonbonded_settings(topology: app.Topology, cutoff: float) -> dict[str, object]:
    """Return what ``createSystem`` of any force field is to be told.

    Raises
    ------
    InputError
        The box is narrower than twice the cutoff (nm).
    """
    vectors = topology.getPeriodicBoxVectors()
    if vectors is not None:
        check_width(topology, cutoff, "the force field's cutoff")
    return {
        "nonbondedMethod": app.NoCutoff if vectors is None else app.PME,
        "nonbondedCutoff": cutoff * unit.nanometer,
        "constraints": None,  # the time step is the ML region's, and λ = 0 needs its bonds
        "rigidWater": True,
    }


def check_width(topology: app.Topology, cutoff: float, whose: str) -> None:
    """Raise `InputError` if the box, where there is one, is narrower than twice the cutoff (nm)."""
    vectors = topology.getPeriodicBoxVectors()
    if vectors is None:
        return
    width = min(np.diag(np.array(vectors.value_in_unit(unit.nanometer))))
    if width < 2 * cutoff:
        raise InputError(
            f"the box is {width:.2f} nm wide, less than twice {whose} of {cutoff:g} nm: give more "
            "padding or a larger box"
        )
