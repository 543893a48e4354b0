"""The free energy of replacing a force field by a potential, from runs at several λ.

The energy is linear in λ, ``E(λ) = E(0) + λ dE/dλ``, so dE/dλ of a frame reweights it to every λ:
MBAR (Shirts and Chodera, J. Chem. Phys. 129, 124105 (2008)) needs nothing else of the runs.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..errors import InputError
from ..figures import STYLE, save
from ..md.reporters import GAS_CONSTANT
from ..modelfile import write_atomically
from .observables import block_error, statistical_inefficiency
from .results import Quantity

#: of neighbouring windows, below which a difference is not to be trusted
#: (Klimovich, Shirts and Mobley, J. Comput. Aided Mol. Des. 29, 397 (2015))
SMALLEST_OVERLAP = 0.03
_HOPELESS = 4.0  # between the means of neighbours, over the sum of their standard deviations
_FEWEST = 50  # independent samples of a window
TENTHS = tuple(k / 10 for k in range(1, 11))


@dataclass(frozen=True, eq=False)
class FreeEnergy:
    """Free energies of K windows, kJ/mol, relative to the first.

    Attributes
    ----------
    lambdas
        Of the windows, ascending, shape ``[K]``.
    profile, errors
        Free energy of each and its standard error, shape ``[K]``.
    overlap
        Probability that a sample of window i belongs to window j, shape ``[K, K]``.
    samples
        Independent ones of each window, shape ``[K]``.
    derivatives, derivative_errors
        Mean of dE/dλ in each window and its standard error, kJ/mol, shape ``[K]``.
    fractions
        Of the data that the next two rest on, shape ``[M]``.
    forward, backward
        Free energy from the first or last part of each window, and its error, shape ``[M, 2]``.
    """

    lambdas: np.ndarray
    profile: np.ndarray
    errors: np.ndarray
    overlap: np.ndarray
    samples: np.ndarray
    derivatives: np.ndarray
    derivative_errors: np.ndarray
    fractions: np.ndarray
    forward: np.ndarray
    backward: np.ndarray

    @property
    def total(self) -> Quantity:
        """From the first window to the last."""
        name = f"free energy, λ = {self.lambdas[0]:g} to {self.lambdas[-1]:g}"
        return Quantity(name, float(self.profile[-1]), float(self.errors[-1]), "kJ/mol")

    @property
    def integral(self) -> Quantity:
        """The same by thermodynamic integration (trapezoidal rule)."""
        weights = _trapezoidal(self.lambdas)
        return Quantity(
            "thermodynamic integration",
            float(weights @ self.derivatives),
            float(np.linalg.norm(weights * self.derivative_errors)),
            "kJ/mol",
        )

    @property
    def overlaps(self) -> np.ndarray:
        """Of each window with the next one, the smaller of both directions, shape ``[K - 1]``."""
        return np.minimum(np.diag(self.overlap, 1), np.diag(self.overlap, -1))

    def cautions(self) -> list[str]:
        """Say what speaks against the number."""
        found = []
        for k, overlap in enumerate(self.overlaps):
            if overlap < SMALLEST_OVERLAP:
                found.append(
                    f"The windows at λ = {self.lambdas[k]:g} and {self.lambdas[k + 1]:g} overlap "
                    f"by {overlap:.3f} only: put another window between them."
                )
        for k in np.flatnonzero(self.samples < _FEWEST).tolist():
            found.append(
                f"The window at λ = {self.lambdas[k]:g} has about {self.samples[k]:.0f} "
                "independent samples: run for longer."
            )
        half = int(np.argmin(abs(self.fractions - 0.5)))
        (first, error), (last, other) = self.forward[half], self.backward[half]
        if abs(first - last) > 3 * np.hypot(error, other):
            found.append(
                f"The first half of the samples gives {first:.2f} kJ/mol, the last half "
                f"{last:.2f}: the windows were not equilibrated, or are too short."
            )
        return found


def free_energy(
    lambdas: Sequence[float],
    derivatives: Sequence[np.ndarray],
    temperature: float,
    fractions: Sequence[float] = TENTHS,
) -> FreeEnergy:
    """Estimate free energies by MBAR.

    Parameters
    ----------
    lambdas
        Of the windows, ascending.
    derivatives
        dE/dλ along the run of each window, kJ/mol, equally spaced in time.
    temperature
        K.
    fractions
        Of the data, for which the convergence is computed.

    Raises
    ------
    InputError
        There are fewer than two windows, or a window has fewer than 8 samples.
    """
    if len(lambdas) < 2 or sorted(set(lambdas)) != list(lambdas):
        raise InputError(
            f"a free energy needs at least two windows of ascending λ, not {list(lambdas)}"
        )
    series = [np.asarray(values, dtype=float) for values in derivatives]
    for value, samples in zip(lambdas, series, strict=True):
        if len(samples) < 8:
            raise InputError(f"the window at λ = {value:g} has {len(samples)} samples; it needs 8")
    strides = [statistical_inefficiency(samples) for samples in series]
    # a series that never changes says one thing, however long it is
    strides = [len(s) if np.isnan(g) else g for s, g in zip(series, strides, strict=True)]
    whole = _mbar(lambdas, series, strides, temperature)
    forward, backward = np.empty((2, len(fractions), 2))
    for m, fraction in enumerate(fractions):
        first = [samples[: max(2, round(fraction * len(samples)))] for samples in series]
        last = [samples[-max(2, round(fraction * len(samples))) :] for samples in series]
        for rows, part in ((forward, first), (backward, last)):
            profile, errors, _ = _mbar(lambdas, part, strides, temperature)
            rows[m] = profile[-1], errors[-1]
    return FreeEnergy(
        np.array(lambdas, dtype=float),
        *whole,
        samples=np.array([len(s) / g for s, g in zip(series, strides, strict=True)]),
        derivatives=np.array([samples.mean() for samples in series]),
        derivative_errors=np.array([block_error(samples) for samples in series]),
        fractions=np.array(fractions),
        forward=forward,
        backward=backward,
    )


def _mbar(
    lambdas: Sequence[float],
    series: Sequence[np.ndarray],
    strides: Sequence[float],
    temperature: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return free energies, their errors (kJ/mol) and the overlap of windows.

    Where neighbours have nothing in common there is no solution: then the free energies are those
    of thermodynamic integration, and of the overlap only the worst is known, which is zero.
    """
    solver = _solver()
    # samples that say the same are counted once, or the errors would be too small
    samples = [s[np.arange(0, len(s), g).astype(int)] for s, g in zip(series, strides, strict=True)]
    together = np.concatenate(samples)
    means, spreads = (np.array([f(s) for s in samples]) for f in (np.mean, np.std))
    gaps = abs(np.diff(means)) / np.maximum(spreads[1:] + spreads[:-1], 1e-12)
    if gaps.max() > _HOPELESS:  # the solver would take very long
        return _integrated(lambdas, series, strides, gaps)
    # ML energies count from other zeros than the force field's: MBAR sees what varies
    offset = together.mean()
    thermal = GAS_CONSTANT * temperature
    reduced = np.outer(lambdas, together - offset) / thermal
    try:
        solution = solver(reduced, [len(s) for s in samples])
        with np.errstate(invalid="ignore"):  # of a window from itself, zero but for rounding
            differences = solution.compute_free_energy_differences()
    except Exception:  # pymbar's ParameterError, singular matrices
        return _integrated(lambdas, series, strides, gaps)
    if not np.isfinite([differences["Delta_f"][0], differences["dDelta_f"][0]]).all():
        return _integrated(lambdas, series, strides, gaps)
    steps = (np.array(lambdas) - lambdas[0]) * offset
    return (
        differences["Delta_f"][0] * thermal + steps,
        differences["dDelta_f"][0] * thermal,
        solution.compute_overlap()["matrix"],
    )


def _integrated(
    lambdas: Sequence[float],
    series: Sequence[np.ndarray],
    strides: Sequence[float],
    gaps: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what `_mbar` does, by the trapezoidal rule."""
    weights = [_trapezoidal(lambdas[: k + 1]) for k in range(len(lambdas))]
    means = np.array([s.mean() for s in series])
    errors = np.array([s.std() * np.sqrt(g / len(s)) for s, g in zip(series, strides, strict=True)])
    profile = np.array([w @ means[: len(w)] for w in weights])
    deviations = np.array([np.linalg.norm(w * errors[: len(w)]) for w in weights])
    overlap = np.full((len(lambdas), len(lambdas)), np.nan)
    for k in np.flatnonzero((gaps > _HOPELESS) | (gaps == gaps.max())).tolist():
        overlap[k, k + 1] = overlap[k + 1, k] = 0.0
    return profile, deviations, overlap


def _trapezoidal(lambdas: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the weight of each point in the integral, shape ``[K]``."""
    steps = np.diff(lambdas)
    weights: np.ndarray = (np.append(steps, 0.0) + np.append(0.0, steps)) / 2
    return weights


def _solver() -> Any:
    logging.getLogger("pymbar").setLevel(logging.ERROR)  # at import it recommends JAX at length
    try:
        from pymbar import MBAR
    except ImportError:
        raise InputError("free energies need pymbar: pip install 'openmm-nequip[mlmm]'") from None
    return MBAR


def save_free_energy(result: FreeEnergy, folder: Path) -> list[str]:
    """Write ``free_energy.json`` and ``free_energy.png``; return what speaks against the number."""
    cautions = result.cautions()
    found = {
        "free_energy_kJ_mol": {"value": result.total.value, "error": result.total.error},
        "thermodynamic_integration_kJ_mol": {
            "value": result.integral.value,
            "error": result.integral.error,
        },
        "windows": [
            {
                "lambda": float(result.lambdas[k]),
                "free_energy_kJ_mol": float(result.profile[k]),
                "error_kJ_mol": float(result.errors[k]),
                "dE_dlambda_kJ_mol": float(result.derivatives[k]),
                "independent_samples": float(result.samples[k]),
            }
            for k in range(len(result.lambdas))
        ],
        "overlap": [[None if np.isnan(v) else v for v in row] for row in result.overlap.tolist()],
        "cautions": cautions,
    }
    text = json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / "free_energy.json", text.encode())
    save(draw(result), folder / "free_energy.png")
    return cautions


def draw(result: FreeEnergy) -> Figure:
    """Draw dE/dλ, the overlap of windows, and the free energy against the data used."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(12, 3.8), layout="constrained")
        slope, overlap, convergence = figure.subplots(1, 3)
        slope.errorbar(
            result.lambdas, result.derivatives, result.derivative_errors, marker="o", capsize=3
        )
        slope.set(title="Mean of dE/dλ", xlabel="λ", ylabel="⟨dE/dλ⟩ (kJ/mol)")

        overlap.imshow(result.overlap, cmap="Blues", vmin=0, vmax=1)
        overlap.grid(visible=False)
        names = [f"{value:g}" for value in result.lambdas]
        overlap.set(title="Overlap of windows", xlabel="λ", ylabel="λ")
        overlap.set_xticks(range(len(names)), names)
        overlap.set_yticks(range(len(names)), names)
        for (i, j), value in np.ndenumerate(result.overlap):
            if np.isnan(value):
                continue
            colour = "white" if value > 0.5 else "black"
            overlap.text(j, i, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8)

        share = 100 * result.fractions
        for label, rows in (("first part", result.forward), ("last part", result.backward)):
            convergence.errorbar(share, rows[:, 0], rows[:, 1], marker="o", capsize=3, label=label)
        total = result.total
        assert total.error is not None
        convergence.axhspan(
            total.value - total.error, total.value + total.error, color="0.5", alpha=0.2
        )
        convergence.set(
            title=f"{total.number()}",
            xlabel="part of each window used (%)",
            ylabel="free energy (kJ/mol)",
        )
        convergence.legend()
        return figure
