"""Diffusion in a liquid, from unwrapped coordinates.

Lengths are in Å, times in ps, diffusion coefficients in Å²/ps (1 Å²/ps = 10⁻⁸ m²/s). F is the
number of frames, N of atoms.
"""

import math
from typing import NamedTuple

import numpy as np
from ase.units import _k
from scipy.signal import correlate

_CUBIC = 2.837297  # Yeh and Hummer's ξ, from the Ewald sum of a cubic box


class Diffusion(NamedTuple):
    """A diffusion coefficient.

    Attributes
    ----------
    value, error
        Å²/ps; the standard error from independent pieces of the trajectory.
    lags, msd
        ps and Å², shape ``[L]``: what the line was fitted to is between `fit_from` and `fit_to`.
    fit_from, fit_to
        ps.
    """

    value: float
    error: float
    lags: np.ndarray
    msd: np.ndarray
    fit_from: float
    fit_to: float


def unwrap(positions: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Undo jumps by box vectors: between two frames each atom takes the shortest way.

    A barostat scales positions, so that an image of an atom far from the origin moves with every
    change of the box: steps are taken between the images in the box (von Bülow et al., 2020).
    Nothing may move by half a box between two frames.

    Parameters
    ----------
    positions
        Å, shape ``[F, N, 3]``.
    box
        Box vectors, Å, shape ``[F, 3, 3]``.

    Returns
    -------
    ndarray
        Å, shape ``[F, N, 3]``; the first frame is as it was.
    """
    steps = np.diff(((positions @ np.linalg.inv(box)) % 1.0) @ box, axis=0)
    steps -= np.round(steps @ np.linalg.inv(box[1:])) @ box[1:]
    return np.concatenate([positions[:1], positions[0] + np.cumsum(steps, axis=0)])


def mean_square_displacement(positions: np.ndarray) -> np.ndarray:
    """Mean square displacement by lag, averaged over atoms and all starting frames.

    Parameters
    ----------
    positions
        Unwrapped, Å, shape ``[F, N, 3]``.

    Returns
    -------
    ndarray
        Å², shape ``[F]``, for lags of 0, 1, ... frames.
    """
    # |r(t+s) - r(t)|² = r²(t+s) + r²(t) - 2 r(t+s)·r(t): two sums and an autocorrelation.
    x = positions - positions.mean(axis=0)
    count = len(x)
    pairs = count - np.arange(count)
    squares = (x**2).sum(axis=(1, 2))
    ends = np.cumsum(squares)[::-1] + np.cumsum(squares[::-1])[::-1]
    series = x.reshape(count, -1).T
    products = sum(correlate(s, s, method="fft")[count - 1 :] for s in series)
    return np.maximum((ends - 2 * products) / (pairs * x.shape[1]), 0.0)


def diffusion_coefficient(
    positions: np.ndarray, spacing: float, fit_from: float, blocks: int = 5
) -> Diffusion:
    """Fit Einstein's relation to the mean square displacement.

    The trajectory is cut into `blocks` pieces; each gives a slope, for lags from `fit_from` up to
    a quarter of the piece. Mean and standard error are those of the slopes.

    Parameters
    ----------
    positions
        Unwrapped positions of what diffuses, in the frame of the centre of mass, Å, shape
        ``[F, N, 3]``.
    spacing
        ps between frames.
    fit_from
        Lag, ps, from which on the motion is diffusive.
    blocks
        Number of pieces, at least 2.

    Raises
    ------
    ValueError
        The pieces are too short.
    """
    length = len(positions) // blocks
    first, last = max(1, math.ceil(fit_from / spacing - 1e-9)), length // 4
    if last - first < 2:
        raise ValueError(
            f"{len(positions)} frames are too few for {blocks} pieces with lags from "
            f"{fit_from:g} ps to a quarter of a piece"
        )
    lags = np.arange(last + 1) * spacing
    curves = np.array(
        [
            mean_square_displacement(positions[k * length : (k + 1) * length])[: last + 1]
            for k in range(blocks)
        ]
    )
    slopes = np.polyfit(lags[first:], curves[:, first:].T, 1)[0] / 6
    return Diffusion(
        value=float(slopes.mean()),
        error=float(slopes.std(ddof=1) / np.sqrt(blocks)),
        lags=lags,
        msd=curves.mean(axis=0),
        fit_from=first * spacing,
        fit_to=last * spacing,
    )


def finite_size_correction(temperature: float, box_length: float, viscosity: float) -> float:
    """What a cubic periodic box takes off the diffusion coefficient (Yeh and Hummer, 2004).

    Parameters
    ----------
    temperature
        K.
    box_length
        Å.
    viscosity
        Of the liquid that was simulated, mPa s.

    Returns
    -------
    float
        Å²/ps, to be added.
    """
    metres = box_length * 1e-10
    correction = _CUBIC * _k * temperature / (6 * np.pi * viscosity * 1e-3 * metres)
    return float(correction * 1e8)
