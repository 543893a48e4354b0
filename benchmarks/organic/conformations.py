"""Conformations of molecules and small clusters, by force-field methods that cost next to nothing.

Amplitudes follow from a temperature. The force field is MMFF94 (Halgren, J. Comput. Chem. 17, 490,
1996); where its minima are not the teacher's, the frames around them cover both.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from ase.data import atomic_masses, covalent_radii, vdw_radii
from ase.units import fs, kB
from rdkit import Chem
from rdkit.Chem import AllChem, rdForceFieldHelpers, rdMolTransforms

_EV = 0.0433641153  # kcal/mol


class Structure(NamedTuple):
    """Atomic numbers, ``[N]``, and positions, Å, ``[N, 3]``."""

    numbers: np.ndarray
    positions: np.ndarray


class Molecule:
    """A molecule in RDKit with its MMFF94 force field.

    Parameters
    ----------
    smiles
        What it is.
    rng
        Decides the conformers.
    conformers
        How many to embed, at most.

    Raises
    ------
    ValueError
        RDKit cannot embed it, or MMFF94 has no parameters for it.
    """

    def __init__(self, smiles: str, rng: np.random.Generator, conformers: int):
        self.molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
        options = AllChem.ETKDGv3()
        options.randomSeed = int(rng.integers(2**31 - 1))
        options.maxIterations = 50
        self.numbers = np.array([atom.GetAtomicNum() for atom in self.molecule.GetAtoms()])
        ids = AllChem.EmbedMultipleConfs(self.molecule, conformers, options)
        if len(ids) == 0 or not rdForceFieldHelpers.MMFFHasAllMoleculeParams(self.molecule):
            raise ValueError(f"no MMFF94 conformers of {smiles}")
        properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(self.molecule)
        self.minima = []
        self.fields = []
        for k in ids:
            field = rdForceFieldHelpers.MMFFGetMoleculeForceField(
                self.molecule, properties, confId=k
            )
            field.Initialize()
            field.Minimize(maxIts=500)
            self.fields.append(field)
            self.minima.append(np.array(field.Positions()).reshape(-1, 3))

    def gradient(self, k: int, positions: np.ndarray) -> np.ndarray:
        """Return that of the energy by the positions, eV/Å, ``[N, 3]``."""
        flat = positions.ravel().tolist()
        self.fields[k].CalcEnergy(flat)  # or the gradient is that of the distances before
        return _EV * np.array(self.fields[k].CalcGrad(flat)).reshape(-1, 3)

    def turned(
        self, k: int, atoms: tuple[int, int, int, int], angle: float, iterations: int
    ) -> np.ndarray:
        """Turn a dihedral angle of a minimum to `angle` (degrees) and relax the rest, Å."""
        copy = Chem.Mol(self.molecule)
        shape = copy.GetConformer(k)
        shape.SetPositions(self.minima[k])
        rdMolTransforms.SetDihedralDeg(shape, *atoms, angle)
        properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(copy)
        field = rdForceFieldHelpers.MMFFGetMoleculeForceField(copy, properties, confId=k)
        field.Initialize()
        field.MMFFAddTorsionConstraint(*atoms, False, angle, angle, 100.0)
        field.Minimize(maxIts=iterations)
        return np.array(field.Positions()).reshape(-1, 3)


def bend_and_stretch(
    molecule: Molecule, k: int, temperature: float, count: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Sample the normal modes of a minimum at a temperature (K), classically.

    Soft modes are cut at a displacement that a harmonic well still describes.
    """
    x0 = molecule.minima[k]
    n, step = len(x0), 1e-3
    hessian = np.empty((3 * n, 3 * n))
    for c in range(3 * n):
        shift = np.zeros(3 * n)
        shift[c] = step
        shift = shift.reshape(n, 3)
        upper, lower = molecule.gradient(k, x0 + shift), molecule.gradient(k, x0 - shift)
        hessian[c] = (upper - lower).ravel() / (2 * step)
    weights = np.repeat(atomic_masses[molecule.numbers] ** -0.5, 3)
    values, vectors = np.linalg.eigh(
        (hessian + hessian.T) / 2 * weights[:, None] * weights[None, :]
    )
    bound = values > 1e-3  # eV/Å²/u; translations and rotations are below
    modes = vectors[:, bound] * weights[:, None]
    amplitudes = np.minimum(np.sqrt(kB * temperature / values[bound]), 1.5)
    moves = rng.normal(size=(count, bound.sum())) * amplitudes @ modes.T
    return list(x0 + moves.reshape(count, n, 3))


def dynamics(
    molecule: "Molecule | Complex", k: int, temperature: float, count: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Sample Langevin dynamics at a temperature (K): 1 fs steps, a frame every 40 of them.

    BAOAB of Leimkuhler and Matthews, J. Chem. Phys. 138, 174102 (2013).
    """
    x, dt, friction = molecule.minima[k], 1.0 * fs, 0.02 / fs
    mass = atomic_masses[molecule.numbers][:, None]
    thermal = np.sqrt(kB * temperature / mass)
    v = rng.normal(size=x.shape) * thermal
    keep, frames = np.exp(-friction * dt), []
    force = -molecule.gradient(k, x)
    for i in range(1, 40 * count + 1):
        v = v + dt / 2 * force / mass
        x = x + dt / 2 * v
        v = keep * v + np.sqrt(1 - keep**2) * thermal * rng.normal(size=x.shape)
        x = x + dt / 2 * v
        force = -molecule.gradient(k, x)
        v = v + dt / 2 * force / mass
        if i % 40 == 0:
            frames.append(x)
    return frames


def torsions(molecule: Molecule, k: int, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Turn a random rotatable bond by random angles, relax the rest, and shake it a little."""
    rotatable = molecule.molecule.GetSubstructMatches(_ROTATABLE)
    frames: list[np.ndarray] = []
    for _ in range(count if rotatable else 0):
        b, c = rotatable[rng.integers(len(rotatable))]
        a, d = (_neighbour(molecule.molecule, end, other) for end, other in ((b, c), (c, b)))
        x = molecule.turned(k, (a, b, c, d), float(rng.uniform(-180, 180)), iterations=60)
        frames.append(x + rng.normal(scale=0.03, size=x.shape))
    return frames


_ROTATABLE = Chem.MolFromSmarts("[!$(*#*)&!D1]-&!@[!$(*#*)&!D1]")


def _neighbour(molecule: Chem.Mol, atom: int, other: int) -> int:
    return next(
        a.GetIdx() for a in molecule.GetAtomWithIdx(atom).GetNeighbors() if a.GetIdx() != other
    )


def stretched(molecule: Molecule, k: int, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Pull or push the two sides of a random bond outside of rings, or scale the whole molecule."""
    bonds = [bond for bond in molecule.molecule.GetBonds() if not bond.IsInRing()]
    frames = []
    for _ in range(count):
        x = molecule.minima[k] + rng.normal(scale=0.04, size=molecule.minima[k].shape)
        if not bonds or rng.random() < 0.3:
            frames.append(x * rng.uniform(0.9, 1.12))
            continue
        bond = bonds[rng.integers(len(bonds))]
        i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        side = _side(molecule.molecule, i, j)
        x[side] += (x[j] - x[i]) * rng.uniform(-0.18, 0.4)
        frames.append(x)
    return frames


def _side(molecule: Chem.Mol, i: int, j: int) -> list[int]:
    """Return the atoms on the side of j of the bond i-j."""
    found, ahead = {i, j}, [j]
    while ahead:
        for atom in molecule.GetAtomWithIdx(ahead.pop()).GetNeighbors():
            if atom.GetIdx() not in found:
                found.add(atom.GetIdx())
                ahead.append(atom.GetIdx())
    return sorted(found - {i})


def together(
    parts: list[Structure], rng: np.random.Generator, closeness: float, spread: float
) -> Structure:
    """Put molecules side by side, turned at random.

    Parameters
    ----------
    parts
        The molecules.
    closeness, spread
        The gap between two molecules is `closeness` plus a random number up to `spread`, Å, over
        0.75 times the sum of the van der Waals radii of the two atoms that are nearest to touching.
    """
    whole = Structure(parts[0].numbers, parts[0].positions - parts[0].positions.mean(0))
    for part in parts[1:]:
        x = (part.positions - part.positions.mean(0)) @ random_rotation(rng).T
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        gap = closeness + spread * rng.random()
        contact = 0.75 * np.add.outer(vdw_radii[whole.numbers], vdw_radii[part.numbers])

        def apart(
            t: float, x: np.ndarray = x, direction: np.ndarray = direction,
            contact: np.ndarray = contact, positions: np.ndarray = whole.positions,
        ) -> float:  # fmt: skip
            moved = x + t * direction
            return float((np.linalg.norm(positions[:, None] - moved, axis=2) - contact).min())

        t = _first(lambda t: apart(t) >= gap)  # noqa: B023 - called at once
        whole = Structure(
            np.concatenate([whole.numbers, part.numbers]),
            np.concatenate([whole.positions, x + t * direction]),
        )
    return whole


def _first(holds: Callable[[float], bool]) -> float:
    """Return about the smallest distance from which on it holds, coming from far away."""
    t = 30.0
    while t > 0 and holds(t - 0.05):
        t -= 0.05
    return t


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """Return a rotation matrix, uniform over all of them."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


class Complex:
    """Two molecules side by side that have found each other: a minimum of MMFF94.

    Parameters
    ----------
    first, second
        The molecules.
    rng
        Decides how they are put together.
    starts
        How many arrangements are relaxed; the one of lowest energy counts, or for variety one of
        the others.

    Raises
    ------
    ValueError
        They have moved apart in all of them.
    """

    def __init__(
        self, first: Molecule, second: Molecule, rng: np.random.Generator, starts: int = 6
    ):
        self.molecule = Chem.CombineMols(first.molecule, second.molecule)
        Chem.SanitizeMol(self.molecule)
        properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(self.molecule)
        shape = self.molecule.GetConformer(0)
        self.numbers = np.concatenate([first.numbers, second.numbers])
        self.size = len(first.numbers)
        found = []
        for _ in range(starts):
            parts = [
                Structure(m.numbers, m.minima[rng.integers(len(m.minima))]) for m in (first, second)
            ]
            pair = together(parts, rng, closeness=0.0, spread=0.3)
            shape.SetPositions(pair.positions)
            field = rdForceFieldHelpers.MMFFGetMoleculeForceField(
                self.molecule, properties, confId=0, ignoreInterfragInteractions=False
            )
            field.Initialize()
            field.Minimize(maxIts=400)
            x = np.array(field.Positions()).reshape(-1, 3)
            if np.linalg.norm(self.contact(x)) < 4.0:
                found.append((field.CalcEnergy(), x, field))
        if not found:
            raise ValueError("the molecules do not stay together")
        found.sort(key=lambda entry: entry[0])
        _, minimum, field = found[0 if rng.random() < 0.6 else rng.integers(len(found))]
        self.minima, self.fields = [minimum], [field]

    gradient = Molecule.gradient

    def contact(self, positions: np.ndarray) -> np.ndarray:
        """Return the shortest vector from an atom of the first to one of the second, Å."""
        vectors = positions[None, self.size :] - positions[: self.size, None]
        lengths = np.linalg.norm(vectors, axis=2)
        return vectors[np.unravel_index(lengths.argmin(), lengths.shape)]

    def apart(self, count: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Push them together or pull them apart along their shortest contact; shake them, Å."""
        frames = []
        contact = self.contact(self.minima[0])
        direction = contact / np.linalg.norm(contact)
        for _ in range(count):
            noise = rng.choice([0.005, 0.03])
            x = self.minima[0] + rng.normal(scale=noise, size=self.minima[0].shape)
            near, far = (-0.4, 0.6), (0.6, 3.0)
            x[self.size :] += direction * rng.uniform(*(near if rng.random() < 0.6 else far))
            frames.append(x)
        return frames


def nearest_molecules(
    cluster: Structure, molecules: list[np.ndarray], centre: int, count: int
) -> Structure:
    """Cut `count` molecules that are next to one of them out of a cluster.

    Parameters
    ----------
    molecules
        Atoms of each.
    centre
        Index of the one.
    """
    x = cluster.positions
    middle = x[molecules[centre]]
    gaps = [np.linalg.norm(x[m][:, None] - middle, axis=2).min() for m in molecules]
    chosen = np.concatenate([molecules[k] for k in np.argsort(gaps, kind="stable")[:count]])
    return Structure(cluster.numbers[chosen], x[chosen])


def overlaps(structure: Structure, closest: float = 0.55) -> bool:
    """Return whether two atoms are nearer than `closest` times the sum of their covalent radii."""
    i, j = np.triu_indices(len(structure.numbers), 1)
    distances = np.linalg.norm(structure.positions[i] - structure.positions[j], axis=1)
    radii = covalent_radii[structure.numbers]
    return bool((distances < closest * (radii[i] + radii[j])).any())
