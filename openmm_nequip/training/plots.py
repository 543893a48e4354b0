"""Plots of a training run: learning curve and parity of prediction and reference."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter
from numpy.typing import NDArray
from torch import Tensor

from ..figures import STYLE, save
from .evaluation import Predictions

_TRAINING, _VALIDATION = "#7f9bb3", "#d1495b"
_DENSITY = "viridis"
_MANY_POINTS = 400  # from here on density instead of points


def learning_curve(history: Sequence[dict[str, float]], path: Path) -> None:
    """Plot errors and learning rate against the epoch, on logarithmic axes.

    Parameters
    ----------
    history
        Rows of the log.
    path
        PNG to write.
    """
    panels = [
        (name, key, unit)
        for name, key, unit in (
            ("Energy", "energy_per_atom_mae_meV", "meV/atom"),
            ("Force", "forces_mae_meV_per_A", "meV/Å"),
            ("Stress", "stress_mae_meV_per_A3", "meV/Å³"),
        )
        if history and f"val_{key}" in history[0]
    ]
    epochs = [row["epoch"] for row in history]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.2 * (len(panels) + 1), 3.6), layout="constrained")
        axes = figure.subplots(1, len(panels) + 1, squeeze=False)[0]
        for axis, (name, key, unit) in zip(axes, panels, strict=False):
            for part, label, colour in (
                ("train", "training", _TRAINING),
                ("val", "validation (averaged weights)", _VALIDATION),
            ):
                values = [row.get(f"{part}_{key}", np.nan) for row in history]
                axis.plot(epochs, values, color=colour, label=label, lw=1.6)
            axis.set(ylabel=f"{name} MAE / {unit}", xlabel="epoch", yscale="log")
            for which in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
                which(LogFormatter(minor_thresholds=(2, 0.6)))
            axis.legend()
        axes[-1].plot(epochs, [row["learning_rate"] for row in history], color="#444444", lw=1.6)
        axes[-1].set(ylabel="learning rate", xlabel="epoch", yscale="log")
        save(figure, path)


def parity(predictions: Predictions, elements: Sequence[str], path: Path, title: str = "") -> None:
    """Plot predicted against reference energies per atom and force components.

    Energies are without what the composition explains (a sum over the elements of the atoms,
    fitted to the reference): of different molecules nothing else would be seen. Many points are
    shown as their density.

    Parameters
    ----------
    predictions
        From `evaluation.predict`.
    elements
        Chemical symbol of each type.
    path
        PNG to write.
    title
        Name of the set.
    """
    output, targets, types = predictions
    panels = []
    known = ~targets.energy.isnan().numpy()
    if known.any():
        counts = compositions(targets.num_atoms, types, len(elements))[known]
        reference, predicted = (e.numpy()[known] for e in (targets.energy, output.energy))
        explained = counts @ np.linalg.lstsq(counts, reference, rcond=None)[0]
        reference, predicted = (
            1000 * (e - explained) / counts.sum(axis=1) for e in (reference, predicted)
        )
        panels.append(("energy per atom", "meV", reference, predicted, 1.0))
    for name, unit, target, value in (
        ("force component", "eV/Å", targets.forces, output.forces),
        ("stress component", "eV/Å³", targets.stress, output.stress),
    ):
        if value is not None and not bool(target.isnan().all()):
            mask = ~target.isnan()
            panels.append((name, unit, target[mask].numpy(), value[mask].numpy(), 1000.0))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.4 * max(1, len(panels)), 4.2), layout="constrained")
        axes = figure.subplots(1, max(1, len(panels)), squeeze=False)[0]
        for axis, panel in zip(axes, panels, strict=False):
            _parity_panel(axis, *panel)
        heading = f"{title[:1].upper()}{title[1:]}: {len(targets.energy)} frames"
        figure.suptitle(heading, fontsize=11)
        save(figure, path)


def compositions(num_atoms: Tensor, types: Tensor, num_types: int) -> NDArray[np.float64]:
    """Return how many atoms of each type each frame has, ``[F, T]``."""
    frames = torch.repeat_interleave(torch.arange(len(num_atoms)), num_atoms)
    counts = np.zeros((len(num_atoms), num_types))
    np.add.at(counts, (frames.numpy(), types.numpy()), 1)
    return counts


def _parity_panel(
    axis: Axes,
    name: str,
    unit: str,
    reference: NDArray[np.float64],
    predicted: NDArray[np.float64],
    to_milli: float,
) -> None:
    low = min(reference.min(), predicted.min())
    high = max(reference.max(), predicted.max())
    margin = 0.04 * (high - low) or 1.0
    limits = (low - margin, high + margin)
    if len(reference) > _MANY_POINTS:
        axis.hist2d(
            reference,
            predicted,
            bins=160,
            range=(limits, limits),
            norm=LogNorm(),
            cmap=_DENSITY,
            rasterized=True,
        )
    else:
        axis.scatter(reference, predicted, s=12, color=_VALIDATION, alpha=0.6, lw=0)
    axis.plot(limits, limits, color="black", lw=0.8, alpha=0.6)
    error = (predicted - reference) * to_milli
    milli_unit = unit if unit.startswith("meV") else f"m{unit}"
    axis.text(
        0.04,
        0.96,
        f"MAE {np.abs(error).mean():.3g} {milli_unit}\n"
        f"RMSE {np.sqrt(np.square(error).mean()):.3g} {milli_unit}",
        transform=axis.transAxes,
        va="top",
    )
    axis.set(
        xlim=limits,
        ylim=limits,
        aspect="equal",
        xlabel=f"reference {name} / {unit}",
        ylabel=f"predicted {name} / {unit}",
    )
