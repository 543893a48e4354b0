"""What is computed: boxes of water-like density, and the aspirin molecule."""

from dataclasses import dataclass

import numpy as np
import openmm
from ase.data import covalent_radii
from openmm import app, unit

from ..data.frame import Frame
from ..errors import InputError
from ..units import KJ_PER_MOL, NM

_MOLECULE_VOLUME = 18.015 / (0.997 * 0.602214)  # Å³, of water at 25 °C
_OH, _HOH = 0.9572, np.radians(104.52)
_SPRING = 20.0  # eV/Å²; holds molecules together under forces of random weights

# An idealised conformer: standard bond lengths and angles, planar ring and carboxyl group, the
# acetyl group perpendicular to the ring; made for this package by minimising a penalty function.
_ASPIRIN = (
    ("C", 0.96, -0.80, 0.00),
    ("C", 0.26, 0.32, -0.44),
    ("C", 0.93, 1.54, -0.59),
    ("C", 2.27, 1.65, -0.24),
    ("C", 2.96, 0.55, 0.26),
    ("C", 2.31, -0.68, 0.38),
    ("C", 0.36, -2.16, -0.08),
    ("O", 0.89, -3.08, 0.53),
    ("O", -0.65, -2.41, -0.93),
    ("H", -0.88, -3.34, -0.87),
    ("O", -1.13, 0.30, -0.59),
    ("C", -1.94, 0.64, 0.42),
    ("O", -1.54, 0.98, 1.50),
    ("C", -3.44, 0.60, 0.21),
    ("H", 0.39, 2.40, -0.97),
    ("H", 2.78, 2.59, -0.36),
    ("H", 3.99, 0.65, 0.54),
    ("H", 2.84, -1.53, 0.76),
    ("H", -3.69, 1.26, -0.62),
    ("H", -3.93, 0.94, 1.12),
    ("H", -3.74, -0.42, -0.03),
)


@dataclass(frozen=True)
class Sample:
    """A structure to compute.

    Attributes
    ----------
    name
        For tables.
    frame
        The atoms; periodic in all directions or in none.
    springs
        Pairs of atoms one or two bonds apart, shape ``[S, 2]``.
    """

    name: str
    frame: Frame
    springs: np.ndarray

    def topology(self) -> app.Topology:
        """Return the atoms, and the box where there is one, for OpenMM."""
        topology = app.Topology()
        residue = topology.addResidue("MOL", topology.addChain())
        for number in self.frame.numbers:
            element = app.Element.getByAtomicNumber(int(number))
            topology.addAtom(element.symbol, element, residue)
        if self.frame.cell is not None:
            topology.setPeriodicBoxVectors(self.frame.cell * NM * unit.nanometer)
        return topology

    def bonds(self) -> openmm.HarmonicBondForce:
        """Return springs that keep molecules in shape while random weights move them."""
        force = openmm.HarmonicBondForce()
        force.setUsesPeriodicBoundaryConditions(self.frame.cell is not None)
        for i, j in self.springs.tolist():
            length = np.linalg.norm(self.frame.positions[i] - self.frame.positions[j])
            force.addBond(i, j, length * NM, 2 * _SPRING * KJ_PER_MOL / NM**2)
        return force


def aspirin() -> Sample:
    """Return one molecule of acetylsalicylic acid, C9H8O4, in vacuum."""
    numbers = np.array([{"H": 1, "C": 6, "O": 8}[symbol] for symbol, *_ in _ASPIRIN])
    positions = np.array([position for _, *position in _ASPIRIN])
    distances = np.linalg.norm(positions[:, None] - positions, axis=2)
    radii = covalent_radii[numbers]
    bonded = (distances < 1.2 * (radii[:, None] + radii)) & (distances > 0)
    near = bonded | (bonded.astype(int) @ bonded > 0)
    return Sample("aspirin", Frame(numbers, positions), np.argwhere(np.triu(near, 1)))


def water(atoms: int, width: float, seed: int = 0) -> Sample:
    """Return molecules of water on a jittered grid, randomly oriented, 0.997 g/cm³.

    Parameters
    ----------
    atoms
        Three for each molecule.
    width
        Å. A box narrower than this is left out: the molecules are a cluster in vacuum.
    seed
        Of positions and orientations.

    Raises
    ------
    InputError
        `atoms` is not a multiple of three.
    """
    if atoms < 3 or atoms % 3:
        raise InputError(
            f"{atoms} atoms are no whole number of water molecules: give a multiple of three"
        )
    rng = np.random.default_rng(seed)
    molecules = atoms // 3
    edge = (molecules * _MOLECULE_VOLUME) ** (1 / 3)
    sites = int(np.ceil(molecules ** (1 / 3) - 1e-9))
    grid = np.argwhere(np.ones((sites,) * 3))
    chosen = np.sort(rng.choice(len(grid), molecules, replace=False))
    oxygens = (grid[chosen] + 0.5 + rng.uniform(-0.06, 0.06, (molecules, 3))) * edge / sites
    first, second = (_unit(rng.normal(size=(molecules, 3))) for _ in range(2))
    second = _unit(second - (second * first).sum(1, keepdims=True) * first)
    hydrogens = [
        oxygens + _OH * first,
        oxygens + _OH * (np.cos(_HOH) * first + np.sin(_HOH) * second),
    ]
    positions = np.stack([oxygens, *hydrogens], axis=1).reshape(-1, 3)
    numbers = np.tile([8, 1, 1], molecules)
    springs = np.arange(0, atoms, 3)[:, None, None] + [[0, 1], [0, 2], [1, 2]]
    periodic = edge >= width
    frame = Frame(numbers, positions, edge * np.eye(3) if periodic else None, (periodic,) * 3)
    name = f"water, {'periodic' if periodic else 'cluster'}"
    return Sample(name, frame, springs.reshape(-1, 2))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
