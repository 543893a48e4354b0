"""Figures of `evaluate.py`."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from openmm_nequip.figures import STYLE, save

#: Methods in the order in which they are drawn.
LINES = {
    "DFT": {"color": "black", "lw": 0, "marker": "o", "ms": 4},
    "ANI-2x": {"color": "#4a6f8a", "lw": 1.4, "ls": "--"},
    "potential": {"color": "#d1495b", "lw": 1.8},
}

#: By title: coordinate, ``[D]``, and by method the energies, ``[D]``.
Curves = dict[str, tuple[np.ndarray, dict[str, np.ndarray]]]


def panels(
    curves: Curves,
    path: Path,
    xlabel: str,
    ylabel: str,
    ylim: tuple[float, float] | None = None,
    xticks: np.ndarray | None = None,
) -> None:
    """Draw curves, three in a row, with one legend.

    Parameters
    ----------
    curves
        What to draw.
    path
        PNG to write.
    xlabel, ylabel, ylim, xticks
        Of all panels.
    """
    rows = -(-len(curves) // 3)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 2.7 * rows + 0.4), layout="constrained")
        axes = figure.subplots(rows, 3, squeeze=False)
        for k, (ax, (title, (x, methods))) in enumerate(
            zip(axes.flat, curves.items(), strict=False)
        ):
            for method, line in LINES.items():
                if method in methods:
                    ax.plot(x, methods[method], label=method, **line)
            ax.set_title(title, fontsize=10)
            if ylim is not None:
                ax.set_ylim(ylim)
            if xticks is not None:
                ax.set_xticks(xticks)
            if k + 3 >= len(curves):
                ax.set_xlabel(xlabel)
            if k % 3 == 0:
                ax.set_ylabel(ylabel)
        for ax in axes.flat[len(curves) :]:
            ax.set_axis_off()
        handles, labels = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels))
        save(figure, path)


def scatter(reference: np.ndarray, found: np.ndarray, path: Path, label: str) -> None:
    """Draw one value against another, with the diagonal."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.2, 4.0), layout="constrained")
        ax: Axes = figure.subplots()
        low, high = min(reference.min(), found.min()), max(reference.max(), found.max())
        margin = 0.05 * (high - low)
        limits = (low - margin, high + margin)
        ax.plot(limits, limits, color="black", lw=0.8, alpha=0.6)
        ax.scatter(reference, found, s=16, alpha=0.7, lw=0, color=LINES["potential"]["color"])
        ax.set(xlim=limits, ylim=limits, aspect="equal")
        ax.set(xlabel=f"ANI-2x, {label}", ylabel=f"potential, {label}")
        save(figure, path)
