"""Observables of a trajectory: plain functions of arrays.

Lengths are in Å, times in ps, energies in whatever unit they come in. F is the number of frames,
N of atoms, T of samples in a time series.
"""

from typing import NamedTuple

import ase
import mdtraj
import numpy as np
from ase.units import bar, kB
from scipy.signal import correlate

from ..md.structure import bonded_pairs


class Drift(NamedTuple):
    """Straight line through the total energy.

    Attributes
    ----------
    slope, slope_error
        Energy per atom per ps, and its standard error (correlated samples allowed for).
    fluctuation
        Standard deviation around the line, energy per atom.
    """

    slope: float
    slope_error: float
    fluctuation: float


def block_error(values: np.ndarray) -> float:
    """Standard error of the mean of a correlated time series (Flyvbjerg and Petersen, 1989).

    Neighbouring samples are averaged pairwise again and again; the error grows until the blocks
    are longer than the correlation. Returns the largest estimate that rests on 8 blocks or more;
    NaN for fewer than 8 samples.

    Parameters
    ----------
    values
        Shape ``[T]``.
    """
    blocks = np.asarray(values, dtype=float)
    best = np.nan
    while len(blocks) >= 8:
        best = np.fmax(best, blocks.std(ddof=1) / np.sqrt(len(blocks)))
        blocks = _halved(blocks)
    return float(best)


def statistical_inefficiency(values: np.ndarray) -> float:
    """Samples of a time series that are worth one independent one (Chodera et al., 2007).

    1 plus twice the integral of the normalised autocorrelation, up to where that first vanishes;
    the number of independent samples is T over it. A fast oscillation makes it vanish early and
    hides what changes slowly, so the same is asked of the averages of 2, 4, 8, ... neighbours, in
    which oscillations cancel; their answer counts where it is larger by three standard errors.

    Parameters
    ----------
    values
        Shape ``[T]``.

    Returns
    -------
    float
        At least 1; NaN for a constant series and for fewer than 3 samples.
    """
    blocks = np.asarray(values, dtype=float)
    variance = blocks.var() if len(blocks) else 0.0
    if len(blocks) < 3 or variance <= 1e-20 * np.mean(blocks**2):
        return float("nan")
    found, length = _inefficiency(blocks), 1
    while len(blocks) >= 64:
        blocks, length = _halved(blocks), 2 * length
        share = length * blocks.var() / variance  # 1 were neighbours independent
        coarse = share * _inefficiency(blocks) if share > 0 else 0.0
        if coarse * (1 - 3 * np.sqrt(2 / len(blocks))) > found:
            found = coarse
    return found


def _inefficiency(values: np.ndarray) -> float:
    """Return 1 plus twice the integral of the autocorrelation to where that first vanishes."""
    count = len(values)
    deviation = values - values.mean()
    lags = np.arange(1, count)
    products = correlate(deviation, deviation, method="fft")[count:]
    correlation = products / (count - lags) / (deviation @ deviation / count)
    below = np.flatnonzero(correlation <= 0)
    end = below[0] if len(below) else count - 1
    return float(max(1.0, 1 + 2 * ((1 - lags / count) * correlation)[:end].sum()))


def _halved(values: np.ndarray) -> np.ndarray:
    """Return the means of pairs of neighbours."""
    return values[: len(values) // 2 * 2].reshape(-1, 2).mean(axis=1)


def equilibrated_from(values: np.ndarray) -> tuple[int, float]:
    """Find where a time series has become stationary (Chodera, 2016).

    Leaving out the first samples makes an average poorer in samples, unless those differ from all
    others and are what correlates: the start is chosen that leaves most independent samples.

    Parameters
    ----------
    values
        Shape ``[T]``.

    Returns
    -------
    first : int
        The sample from which on to average, one of 20 in the first half.
    gain : float
        How many times more independent samples than from the start there are then; NaN where
        they are not known.
    """
    starts = np.arange(20) * len(values) // 40
    samples = np.array([(len(values) - s) / statistical_inefficiency(values[s:]) for s in starts])
    if np.isnan(samples[0]):
        return 0, float("nan")
    best = int(np.nanargmax(samples))
    return int(starts[best]), float(samples[best] / samples[0])


def energy_drift(time: np.ndarray, energy: np.ndarray, num_atoms: int) -> Drift:
    """Fit a line to the total energy.

    Parameters
    ----------
    time
        ps, shape ``[T]``, at least 3 samples.
    energy
        Total energy, shape ``[T]``.
    num_atoms
        Atoms that share it.
    """
    time = time - time.mean()
    per_atom = (energy - energy.mean()) / num_atoms
    slope = (time @ per_atom) / (time @ time)
    residual = per_atom - slope * time
    # The slope is a weighted mean of the residuals: its error by blocks, like that of a mean.
    error = block_error(time * residual) * len(time) / (time @ time)
    return Drift(float(slope), float(error), float(residual.std()))


def rmsd(positions: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Root mean square deviation from a reference after the best superposition.

    Parameters
    ----------
    positions
        Å, shape ``[F, N, 3]``.
    reference
        Å, shape ``[N, 3]``.

    Returns
    -------
    ndarray
        Å, shape ``[F]``.
    """
    moved = positions - positions.mean(axis=1, keepdims=True)
    fixed = reference - reference.mean(axis=0)
    covariance = np.einsum("fna,nb->fab", moved, fixed)
    singular = np.linalg.svd(covariance, compute_uv=False)
    singular[:, 2] *= np.sign(np.linalg.det(covariance))  # rotations only, no reflection
    squares = (moved**2).sum(axis=(1, 2)) + (fixed**2).sum() - 2 * singular.sum(axis=1)
    return np.sqrt(np.maximum(squares, 0) / len(reference))


def distances(
    positions: np.ndarray, pairs: np.ndarray, box: np.ndarray | None = None
) -> np.ndarray:
    """Distances of pairs of atoms, by the minimum image where there is a box.

    Parameters
    ----------
    positions
        Å, shape ``[F, N, 3]``.
    pairs
        Atom indices, shape ``[P, 2]``.
    box
        Box vectors, Å, shape ``[F, 3, 3]``.

    Returns
    -------
    ndarray
        Å, shape ``[F, P]``.
    """
    trajectory = as_trajectory(positions, box)
    return mdtraj.compute_distances(trajectory, pairs, periodic=box is not None) * 10.0


def find_bonds(
    numbers: np.ndarray, positions: np.ndarray, box: np.ndarray | None = None
) -> np.ndarray:
    """Guess which atoms are bonded, by distance.

    Parameters
    ----------
    numbers
        Atomic numbers, shape ``[N]``.
    positions
        Å, shape ``[N, 3]``.
    box
        Box vectors, Å, shape ``[3, 3]``.

    Returns
    -------
    ndarray of int
        Shape ``[B, 2]``.
    """
    return bonded_pairs(ase.Atoms(numbers, positions, cell=box, pbc=box is not None))


def radial_distribution(
    positions: np.ndarray,
    pairs: np.ndarray,
    box: np.ndarray,
    r_max: float | None = None,
    bin_width: float = 0.05,
) -> tuple[np.ndarray, np.ndarray]:
    """Radial distribution function of the given pairs.

    Parameters
    ----------
    positions
        Å, shape ``[F, N, 3]``.
    pairs
        Atom indices, shape ``[P, 2]``.
    box
        Box vectors, Å, shape ``[F, 3, 3]``.
    r_max
        Å; half the smallest width of the box if not given.
    bin_width
        Å.

    Returns
    -------
    r : ndarray
        Centres of the bins, Å, shape ``[R]``.
    g : ndarray
        1 for an ideal gas, shape ``[R]``.
    """
    r_max = r_max or 0.5 * box_widths(box).min()
    trajectory = as_trajectory(positions, box)
    r, g = mdtraj.compute_rdf(
        trajectory, pairs, r_range=(0.0, r_max / 10), bin_width=bin_width / 10
    )
    return r * 10.0, g


def pressure(
    stress: np.ndarray, volume: float | np.ndarray, temperature: float, num_atoms: int
) -> np.ndarray:
    """Pressure from the stress of the potential and the mean momentum flux of the atoms.

    Parameters
    ----------
    stress
        eV/Å³, tension positive, shape ``[F, 3, 3]``.
    volume
        Å³, one for all frames or shape ``[F]``.
    temperature
        K. The kinetic part is that of `num_atoms` atoms whose centre of mass rests.
    num_atoms
        Number of atoms.

    Returns
    -------
    ndarray
        bar, shape ``[F]``.
    """
    kinetic = (num_atoms - 1) * kB * temperature / volume
    return np.asarray((kinetic - np.trace(stress, axis1=1, axis2=2) / 3) / bar)


def box_widths(box: np.ndarray) -> np.ndarray:
    """Distances between opposite faces of a box, same unit and shape ``[..., 3]``."""
    normals = np.cross(np.roll(box, -1, axis=-2), np.roll(box, -2, axis=-2))
    volume = np.abs(np.linalg.det(box))
    return volume[..., None] / np.linalg.norm(normals, axis=-1)


def as_trajectory(
    positions: np.ndarray, box: np.ndarray | None = None, numbers: np.ndarray | None = None
) -> mdtraj.Trajectory:
    """Turn arrays into what mdtraj's functions take.

    Parameters
    ----------
    positions
        Å, shape ``[F, N, 3]``.
    box
        Box vectors, Å, shape ``[F, 3, 3]``.
    numbers
        Atomic numbers, shape ``[N]``, where elements matter.
    """
    topology = None
    if numbers is not None:
        topology = mdtraj.Topology()
        residue = topology.add_residue("MOL", topology.add_chain())
        for number in numbers:
            element = mdtraj.element.Element.getByAtomicNumber(int(number))
            topology.add_atom(element.symbol, element, residue)
    trajectory = mdtraj.Trajectory(positions / 10.0, topology)
    if box is not None:
        trajectory.unitcell_vectors = box / 10.0
    return trajectory
