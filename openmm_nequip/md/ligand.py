"""Lennard-Jones parameters and charges of small molecules: all that ML/MM needs of them.

In the region of the potential nothing else of a force field is left. The Lennard-Jones parameters
are those of GAFF, the general Amber force field (Wang et al., J. Comput. Chem. 25, 1157 (2004),
doi:10.1002/jcc.20035), in their version 1.81, where c1 is as in doi:10.1021/ct800409d.
"""

import io
import math
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from openmm import app
from rdkit import Chem
from rdkit.Chem import rdForceFieldHelpers, rdPartialCharges

from ..errors import InputError, did_you_mean
from ..units import ENERGY_UNITS, KJ_PER_MOL, LENGTH_UNITS, NM
from .molecule import bare_graph, given_order, smiles

CHARGE_METHODS = ("mmff94", "gasteiger", "xtb")
SOURCE = "GAFF 1.81 (doi:10.1002/jcc.20035)"

#: half the distance of the minimum, Å, and depth, kcal/mol, by GAFF's name of the atom type
GAFF = {
    "c": (1.9080, 0.0860), "c1": (1.9080, 0.2100), "c3": (1.9080, 0.1094),
    "cx": (1.9080, 0.0860), "cy": (1.9080, 0.0860),
    "h1": (1.3870, 0.0157), "h2": (1.2870, 0.0157), "h3": (1.1870, 0.0157),
    "h4": (1.4090, 0.0150), "h5": (1.3590, 0.0150), "ha": (1.4590, 0.0150),
    "hc": (1.4870, 0.0157), "hx": (1.1000, 0.0157), "hn": (0.6000, 0.0157),
    "ho": (0.0, 0.0), "hp": (0.6000, 0.0157), "hs": (0.6000, 0.0157),
    "n": (1.8240, 0.1700), "o": (1.6612, 0.2100), "oh": (1.7210, 0.2104),
    "os": (1.6837, 0.1700), "p": (2.1000, 0.2000), "s": (2.0000, 0.2500),
    "f": (1.75, 0.061), "cl": (1.948, 0.265), "br": (2.02, 0.420), "i": (2.15, 0.50),
}  # fmt: skip
_WITHDRAWING = {"N", "O", "F", "S", "Cl", "Br", "I"}
_ON_HEAVY = {"O": "ho", "N": "hn", "S": "hs", "P": "hp"}
_BY_ELEMENT = {"N": "n", "S": "s", "P": "p", "F": "f", "Cl": "cl", "Br": "br", "I": "i"}


class LennardJones(NamedTuple):
    """Type and parameters of one atom: sigma in nm, epsilon in kJ/mol."""

    type: str
    sigma: float
    epsilon: float


@dataclass(frozen=True, eq=False)
class Ligand:
    """A small molecule with the nonbonded parameters of its atoms.

    Attributes
    ----------
    mol
        With all hydrogens; each atom has its name as the property ``name``.
    name
        Of its residue.
    charges
        e, shape ``[N]``; their sum is the formal charge.
    method
        Where the charges are from.
    parameters
        Of each atom.
    """

    mol: Chem.Mol
    name: str
    charges: np.ndarray
    method: str
    parameters: list[LennardJones]

    @classmethod
    def create(
        cls, mol: Chem.Mol, name: str, method: str = "mmff94", given: Sequence[float] | None = None
    ) -> "Ligand":
        """Give a molecule its parameters; `given` are charges of the user's own.

        Raises
        ------
        InputError
            As `partial_charges` and `lennard_jones`.
        """
        charges = partial_charges(mol, method) if given is None else own_charges(mol, given)
        return cls(mol, name, charges, method, lennard_jones(mol))

    def describes(self, residue: app.topology.Residue) -> bool:
        """Whether a residue has these atoms, each with the same neighbours."""
        own = Counter(
            (atom.GetSymbol(), *sorted(neighbor.GetSymbol() for neighbor in atom.GetNeighbors()))
            for atom in self.mol.GetAtoms()
        )
        atoms = [atom for atom in residue.atoms() if atom.element is not None]
        neighbors: dict[app.topology.Atom, list[str]] = {atom: [] for atom in atoms}
        for first, second in residue.bonds():
            for atom, other in ((first, second), (second, first)):
                if atom in neighbors and other.element is not None:
                    neighbors[atom].append(other.element.symbol)
        return own == Counter((a.element.symbol, *sorted(neighbors[a])) for a in atoms)

    def to_xml(self) -> str:
        """Return an OpenMM force field with one residue template and no bonded terms."""
        root = ET.Element("ForceField")
        types, residues = ET.SubElement(root, "AtomTypes"), ET.SubElement(root, "Residues")
        own = f"small-molecule-{self.name}"  # a force field may have a template of its name
        residue = ET.SubElement(residues, "Residue", name=own)
        # the scale factors of 1-4 pairs are Amber's; one System has room for one pair of them
        force = ET.SubElement(
            root, "NonbondedForce", coulomb14scale="0.8333333333333334", lj14scale="0.5"
        )
        ET.SubElement(force, "UseAttributeFromResidue", name="charge")
        for atom, charge, (kind, sigma, epsilon) in zip(
            self.mol.GetAtoms(), self.charges, self.parameters, strict=True
        ):
            name, symbol = atom.GetProp("name"), atom.GetSymbol()
            mass = app.Element.getBySymbol(symbol).mass._value
            unique = f"{own}-{name}"
            type_of = {"name": unique, "class": f"{own}-{kind}", "element": symbol}
            ET.SubElement(types, "Type", type_of | {"mass": str(mass)})
            ET.SubElement(residue, "Atom", name=name, type=unique, charge=repr(float(charge)))
            ET.SubElement(force, "Atom", type=unique, sigma=repr(sigma), epsilon=repr(epsilon))
        for bond in self.mol.GetBonds():
            ends = bond.GetBeginAtom().GetProp("name"), bond.GetEndAtom().GetProp("name")
            ET.SubElement(residue, "Bond", atomName1=ends[0], atomName2=ends[1])
        return ET.tostring(root, encoding="unicode")


class NonbondedTemplates:
    """A residue-template generator: ``forcefield.registerTemplateGenerator`` takes it, of one.

    The force field must be one of Amber's family, whose 1-4 factors and mixing rules GAFF shares.

    Attributes
    ----------
    used
        The molecules that the force field did not know itself.
    """

    def __init__(self, ligands: Sequence[Ligand]):
        self.ligands, self.used = list(ligands), list[Ligand]()

    def __call__(self, forcefield: app.ForceField, residue: app.topology.Residue) -> bool:
        for ligand in self.ligands:
            if ligand not in self.used and ligand.describes(residue):
                forcefield.loadFile(io.StringIO(ligand.to_xml()))
                self.used.append(ligand)
                return True
        return False


def lennard_jones(mol: Chem.Mol) -> list[LennardJones]:
    """Assign GAFF's Lennard-Jones parameters to the atoms of a molecule with all hydrogens.

    Raises
    ------
    InputError
        GAFF does not know an element.
    """
    kinds = [_gaff_type(atom) for atom in mol.GetAtoms()]
    unknown = {a.GetSymbol() for a, kind in zip(mol.GetAtoms(), kinds, strict=True) if not kind}
    if unknown:
        raise InputError(
            f"there are no general Lennard-Jones parameters for {', '.join(sorted(unknown))} "
            "(known: H C N O F P S Cl Br I); give a force field that has the molecule"
        )
    parameters = []
    for kind in kinds:
        half, depth = GAFF[kind]
        sigma = 2 * half * NM / 2 ** (1 / 6)
        energy = depth * ENERGY_UNITS["kcal/mol"] * KJ_PER_MOL
        parameters.append(LennardJones(kind, sigma if depth else 0.1, energy))
    return parameters


def _gaff_type(atom: Chem.Atom) -> str:
    """Return the type of an atom, or of another atom with the same parameters; '' for none."""
    symbol, degree = atom.GetSymbol(), atom.GetDegree()
    if symbol == "H":
        return _hydrogen_type(atom)
    if symbol == "C":
        if degree < 3:
            return "c1"
        if degree == 3:
            return "c"
        return "cx" if atom.IsInRingSize(3) else "cy" if atom.IsInRingSize(4) else "c3"
    if symbol == "O":
        if any(neighbor.GetSymbol() == "H" for neighbor in atom.GetNeighbors()):
            return "oh"
        return "o" if degree < 2 else "os"
    return _BY_ELEMENT.get(symbol, "")


def _hydrogen_type(atom: Chem.Atom) -> str:
    neighbors = atom.GetNeighbors()
    if not neighbors or neighbors[0].GetSymbol() != "C":
        return _ON_HEAVY.get(neighbors[0].GetSymbol(), "") if neighbors else ""
    carbon = neighbors[0]
    others = [other for other in carbon.GetNeighbors() if other.GetIdx() != atom.GetIdx()]
    withdrawing = sum(other.GetSymbol() in _WITHDRAWING for other in others)
    if carbon.GetDegree() == 4:
        if any(other.GetSymbol() == "N" and other.GetDegree() == 4 for other in others):
            return "hx"
        return ("hc", "h1", "h2", "h3")[withdrawing]
    return ("ha", "h4", "h5")[withdrawing] if carbon.GetDegree() == 3 else "ha"


def partial_charges(mol: Chem.Mol, method: str = "mmff94") -> np.ndarray:
    """Compute partial charges, e, shape ``[N]``; their sum is the formal charge.

    Parameters
    ----------
    mol
        With all hydrogens; ``'xtb'`` needs a geometry.
    method
        ``'mmff94'`` (bond charge increments), ``'gasteiger'`` or ``'xtb'`` (Mulliken charges of
        GFN2-xTB, by the package tblite).

    Raises
    ------
    InputError
        The method is unknown, not installed, or has no parameters for the molecule.
    """
    if method not in CHARGE_METHODS:
        raise InputError(
            f"unknown method for charges '{method}'{did_you_mean(method, CHARGE_METHODS)}; give "
            f"one of {', '.join(CHARGE_METHODS)}, or a file of your own charges"
        )
    charges = {"mmff94": _mmff94, "gasteiger": _gasteiger, "xtb": _xtb}[method](mol)
    if not np.isfinite(charges).all():
        others = " or ".join(f"'{other}'" for other in CHARGE_METHODS if other != method)
        raise InputError(
            f"'{method}' has no charges for {smiles(mol)}: use {others}, "
            "or a file of your own charges"
        )
    return _balanced(mol, charges)


def own_charges(mol: Chem.Mol, given: Sequence[float]) -> np.ndarray:
    """Check charges of the user's own; what rounding has left of their sum is spread evenly.

    Parameters
    ----------
    mol
        With all hydrogens.
    given
        e, for the atoms in the order of `openmm_nequip.md.molecule.given_order`: that of the file
        or SMILES of the molecule.

    Returns
    -------
    ndarray
        e, shape ``[N]``, for the atoms as they are in `mol`.

    Raises
    ------
    InputError
        Their number is not that of the atoms, or their sum not the formal charge within 0.01 e.
    """
    if len(given) != mol.GetNumAtoms():
        raise InputError(
            f"there are {len(given)} charges for the {mol.GetNumAtoms()} atoms of the molecule "
            "(hydrogens included)"
        )
    charges, formal = np.array(given, dtype=float)[given_order(mol)], Chem.GetFormalCharge(mol)
    if not abs(charges.sum() - formal) < 0.01:
        raise InputError(
            f"the charges sum to {charges.sum():g} e, and the molecule has a formal charge of "
            f"{formal:+d} e"
        )
    return _exact(charges, formal)


def _balanced(mol: Chem.Mol, charges: np.ndarray) -> np.ndarray:
    """Give atoms that only bond orders and geometry tell apart the same charge."""
    ranks = equivalent_atoms(mol)
    mean = np.bincount(ranks, weights=charges) / np.bincount(ranks).clip(1)
    return _exact(mean[ranks], Chem.GetFormalCharge(mol))


def _exact(charges: np.ndarray, total: int) -> np.ndarray:
    return charges - (math.fsum(charges) - total) / len(charges)


def equivalent_atoms(mol: Chem.Mol) -> np.ndarray:
    """Return a number for each atom, the same for those alike in elements and connectivity.

    As OpenMM sees them: the two oxygen atoms of a carboxylate are alike.
    """
    return np.array(Chem.CanonicalRankAtoms(bare_graph(mol), breakTies=False))


def _mmff94(mol: Chem.Mol) -> np.ndarray:
    properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(mol)
    count = mol.GetNumAtoms()
    if properties is None:
        return np.full(count, np.nan)
    return np.array([properties.GetMMFFPartialCharge(index) for index in range(count)])


def _gasteiger(mol: Chem.Mol) -> np.ndarray:
    copy = Chem.Mol(mol)
    rdPartialCharges.ComputeGasteigerCharges(copy, nIter=50)
    return np.array([atom.GetDoubleProp("_GasteigerCharge") for atom in copy.GetAtoms()])


def _xtb(mol: Chem.Mol) -> np.ndarray:
    try:
        from tblite.exceptions import TBLiteRuntimeError
        from tblite.interface import Calculator
    except ImportError:
        raise InputError("GFN2-xTB needs tblite: pip install 'openmm-nequip[mlmm]'") from None
    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])
    radicals = sum(atom.GetNumRadicalElectrons() for atom in mol.GetAtoms())
    positions = mol.GetConformer().GetPositions() / LENGTH_UNITS["bohr"]
    try:
        calculator = Calculator(
            "GFN2-xTB", numbers, positions, float(Chem.GetFormalCharge(mol)), radicals
        )
        calculator.set("verbosity", 0)
        return np.array(calculator.singlepoint().get("charges"))
    except TBLiteRuntimeError as error:
        raise InputError(f"GFN2-xTB failed: {' '.join(str(error).split())}") from None
