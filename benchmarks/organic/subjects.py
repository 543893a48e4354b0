"""What `evaluate.py` looks at: molecules, torsion scans, breaking bonds, dimers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from ase.build import molecule as small_molecule
from ase.data import atomic_numbers
from ase.units import Hartree
from conformations import Molecule, Structure

from openmm_nequip.benchmarking.stability import Start
from openmm_nequip.data.frame import Frame
from openmm_nequip.errors import InputError

SEED = 2027

#: Drugs of 20 to 36 atoms that are no molecules of the data set.
DRUG_LIKE = {
    "bupropion": "CC(NC(C)(C)C)C(=O)c1cccc(Cl)c1",
    "efavirenz": "O=C1Nc2ccc(Cl)cc2C(C#CC2CC2)(C(F)(F)F)O1",
    "flurbiprofen": "CC(C(=O)O)c1ccc(-c2ccccc2)c(F)c1",
    "flutamide": "CC(C)C(=O)Nc1ccc([N+](=O)[O-])c(C(F)(F)F)c1",
    "gabapentin": "NCC1(CC(=O)O)CCCCC1",
    "ketoprofen": "CC(C(=O)O)c1cccc(C(=O)c2ccccc2)c1",
    "lacosamide": "COCC(NC(C)=O)C(=O)NCc1ccccc1",
    "lamotrigine": "Nc1nnc(-c2cccc(Cl)c2Cl)c(N)n1",
    "leflunomide": "Cc1oncc1C(=O)Nc1ccc(C(F)(F)F)cc1",
    "levetiracetam": "CCC(C(N)=O)N1CCCC1=O",
    "metronidazole": "Cc1ncc([N+](=O)[O-])n1CCO",
    "mexiletine": "Cc1cccc(C)c1OCC(C)N",
    "modafinil": "NC(=O)CS(=O)C(c1ccccc1)c1ccccc1",
    "phenobarbital": "CCC1(c2ccccc2)C(=O)NC(=O)NC1=O",
    "pramipexole": "CCCNC1CCc2nc(N)sc2C1",
    "riluzole": "Nc1nc2ccc(OC(F)(F)F)cc2s1",
    "stavudine": "Cc1cn(C2C=CC(CO)O2)c(=O)[nH]c1=O",
    "tizanidine": "Clc1ccc2nsnc2c1NC1=NCCN1",
    "tolbutamide": "CCCCNC(=O)NS(=O)(=O)c1ccc(C)cc1",
    "zonisamide": "NS(=O)(=O)Cc1noc2ccccc12",
}

#: Kinds of test frames of single molecules, held out by scaffold. Dimers and clusters may have one
#: partner that is in training.
HELD_OUT = (
    "small", "substituted", "recombined", "drugs", "peptides", "sulfur", "torsions", "turned",
    "turned-peptides",
)  # fmt: skip

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"


class Torsion(NamedTuple):
    """A dihedral angle: the molecule (SMILES) and the four atoms, hydrogens counted last."""

    smiles: str
    atoms: tuple[int, int, int, int]


TORSIONS = {
    "butane": Torsion("CCCC", (0, 1, 2, 3)),
    "1,2-dichloroethane": Torsion("ClCCCl", (0, 1, 2, 3)),
    "ethanol, O-H": Torsion("CCO", (0, 1, 2, 8)),
    "acetic acid, O-H": Torsion("CC(=O)O", (2, 1, 3, 7)),
    "N-methylacetamide": Torsion("CC(=O)NC", (0, 1, 3, 4)),
    "dimethyl disulfide": Torsion("CSSC", (0, 1, 2, 3)),
    "biphenyl": Torsion("c1ccccc1-c1ccccc1", (4, 5, 6, 7)),
    "alanine dipeptide, φ": Torsion("CC(=O)N[C@@H](C)C(=O)NC", (1, 3, 4, 6)),
    "alanine dipeptide, ψ": Torsion("CC(=O)N[C@@H](C)C(=O)NC", (3, 4, 6, 8)),
}

#: Dimers of S66 that are drawn, by their index, with their names.
DRAWN_DIMERS = {
    0: "water, water",
    19: "acetic acid, acetic acid",
    16: "uracil, uracil: base pair",
    23: "benzene, benzene: stacked",
    46: "benzene, benzene: T-shaped",
    33: "pentane, pentane",
}
#: Distances of S66x8 over those of the minima.
DIMER_SCALES = (0.90, 0.95, 1.00, 1.05, 1.10, 1.25, 1.50, 2.00)


class Stretch(NamedTuple):
    """A distance that is made shorter and longer.

    Attributes
    ----------
    distances
        Å, shape ``[D]``.
    structures
        One for each.
    rest
        Where the energy has its minimum or, between molecules, where they touch, Å.
    """

    distances: np.ndarray
    structures: list[Structure]
    rest: float


def drug_like(name: str, conformers: int) -> Molecule:
    """Return a molecule of `DRUG_LIKE` with its conformers, the same each time."""
    index = list(DRUG_LIKE).index(name)
    return Molecule(DRUG_LIKE[name], np.random.default_rng([SEED, index]), conformers)


def at_start(name: str) -> Start:
    """Return a molecule of `DRUG_LIKE` as its dynamics begins."""
    drug = drug_like(name, conformers=1)
    bonds = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in drug.molecule.GetBonds()]
    return Start(drug.numbers, drug.minima[0], np.array(bonds))


def different_minima(molecule: Molecule) -> list[Structure]:
    """Return the minima of MMFF94 whose energies differ by more than 0.02 kcal/mol."""
    energies: list[float] = []
    found = []
    for field, positions in zip(molecule.fields, molecule.minima, strict=True):
        energy = field.CalcEnergy(positions.ravel().tolist())
        if all(abs(energy - other) > 0.02 for other in energies):
            energies.append(energy)
            found.append(Structure(molecule.numbers, positions))
    return found


def scan(torsion: Torsion, angles: np.ndarray) -> list[Structure]:
    """Turn a dihedral angle to each of the angles (degrees); MMFF94 relaxes the rest."""
    molecule = Molecule(torsion.smiles, np.random.default_rng(SEED), conformers=1)
    return [
        Structure(molecule.numbers, molecule.turned(0, torsion.atoms, angle, iterations=1000))
        for angle in angles.tolist()
    ]


def stretches(spacing: float = 0.01) -> dict[str, Stretch]:
    """Return bonds of small molecules, broken and compressed rigidly, and two waters in collision.

    Parameters
    ----------
    spacing
        Between two distances, Å.
    """
    found = {}
    for name, formula, fixed, moving, farthest in (
        ("H-H in hydrogen", "H2", 0, [1], 3.0),
        ("C-H in methane", "CH4", 0, [1], 3.5),
        ("C-C in ethane", "C2H6", 0, [1, 5, 6, 7], 4.0),
        ("O-H in water", "H2O", 0, [1], 3.5),
        ("N-N in nitrogen", "N2", 0, [1], 3.0),
    ):
        atoms = small_molecule(formula)
        vector = atoms.positions[moving[0]] - atoms.positions[fixed]
        rest = float(np.linalg.norm(vector))
        distances = np.arange(0.35 * rest, farthest, spacing)
        structures = []
        for distance in distances:
            positions = atoms.positions.copy()
            positions[moving] += vector / rest * (distance - rest)
            structures.append(Structure(atoms.numbers, positions))
        found[name] = Stretch(distances, structures, rest)
    found["O-O of two waters"] = _two_waters(np.arange(0.9, 6.0, spacing))
    return found


def _two_waters(distances: np.ndarray) -> Stretch:
    """Oxygen against oxygen, the hydrogens behind them and crossed: no hydrogen bond."""
    water = small_molecule("H2O")
    one = water.positions - water.positions[0]  # the hydrogens at -z
    other = one[:, [1, 0, 2]] * [1, 1, -1]
    numbers = np.tile(water.numbers, 2)
    structures = [
        Structure(numbers, np.concatenate([one, other + np.array([0, 0, distance])]))
        for distance in distances
    ]
    return Stretch(distances, structures, rest=2.6)


def s66x8(folder: Path) -> list[list[Frame]]:
    """Return the labelled frames of each dimer, the nearest first, in eV and eV/Å.

    What the file calls forces are gradients in Hartree/Å. On seven dimers of all kinds, only with
    this unit and sign do they agree with the forces of ANI-2x (mean absolute difference 8 to 23
    meV/Å; with Hartree/bohr or the other sign, 80 to 440), and along the curve of the water dimer
    the energy changes by their mean times the displacement, within some percent.
    """
    path = folder / "s66x8" / "s66x8_wb97x6-31gd.h5"
    if not path.exists():
        raise InputError(
            f"there is no {path}; set OPENMM_NEQUIP_DATA to the folder that holds s66x8/, which is "
            "part of COMP6 (github.com/isayev/COMP6)"
        )
    with h5py.File(path) as file:
        return [_dimer(file["s66x8"][name]) for name in sorted(file["s66x8"])]


def _dimer(group: Any) -> list[Frame]:
    numbers = np.array([atomic_numbers[symbol.decode()] for symbol in group["species"]])
    labels = (group[name][:].astype(float) for name in ("coordinates", "energies", "forces"))
    return [
        Frame(numbers, positions, energy=float(energy * Hartree), forces=-gradient * Hartree)
        for positions, energy, gradient in zip(*labels, strict=True)
    ]


def part(data: Path, name: str) -> Path:
    """Return the file of a set, or the folder of its pieces where generation still goes on.

    Raises
    ------
    InputError
        There is neither.
    """
    for path in (data / f"{name}.h5", data / "pieces" / name):
        if path.exists():
            return path
    raise InputError(
        f"'{data}' has neither {name}.h5 nor pieces/{name}; give the folder that "
        "benchmarks/organic/generate.py has filled"
    )


def labelled(path: Path) -> tuple[list[Frame], list[str]]:
    """Return the frames of a set and of which kind each is, as `generate.py` names them."""
    frames, kinds = [], []
    for name, group in _groups(path):
        kind = name.rsplit("-", 1)[0]
        numbers = group["atomic_numbers"][:]
        labels = (group[key][:] for key in ("coordinates", "energies", "forces"))
        for positions, energy, forces in zip(*labels, strict=True):
            frames.append(Frame(numbers, positions, energy=float(energy), forces=forces))
            kinds.append(kind)
    if not frames:
        raise InputError(f"'{path}' has no frames yet")
    return frames, kinds


def _groups(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the name of each piece with each of its molecules."""
    for file in sorted(path.glob("*.h5")) if path.is_dir() else [path]:
        with h5py.File(file) as content:
            pieces = {file.stem: content} if path.is_dir() else content
            for name in pieces:
                for group in pieces[name].values():
                    yield name, group
