"""The figure of the learning curve."""

import statistics
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from selection import FORCES, Results, current, select, sizes

from openmm_nequip.figures import STYLE, save

_COLOURS = {0: "#7f9bb3", 1: "#e9a23b", 2: "#d1495b", 3: "#30638e"}


def plot(results: Results, published: dict[str, Any], path: Path) -> bool:
    """Plot force errors against training frames on logarithmic axes, a line for each l_max.

    Returns
    -------
    bool
        Whether there was anything to plot: two sizes of the training set for some l_max.
    """
    results = select(current(results), task="learning-curve")
    curves = {}
    for molecule in sorted({r["molecule"] for r in results}):
        found = select(results, molecule=molecule)
        orders = sorted({r["l_max"] for r in found})
        curves[molecule] = {order: _points(select(found, l_max=order)) for order in orders}
    if not any(len(points) > 1 for lines in curves.values() for points in lines.values()):
        return False
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2 * len(curves), 4.0), layout="constrained")
        axes = figure.subplots(1, len(curves), squeeze=False)[0]
        for (molecule, lines), axis in zip(curves.items(), axes, strict=True):
            _draw(axis, lines)
            if molecule == "aspirin":
                _draw_published(axis, published["l_max"]["NequIP"], set(lines))
            axis.set_title(molecule)
            axis.legend(fontsize=8)
        path.parent.mkdir(parents=True, exist_ok=True)
        save(figure, path)
    return True


def _points(results: Results) -> list[tuple[int, float, float]]:
    """Training frames, mean error and standard deviation."""
    points = []
    for size in sizes(results):
        errors = [r["test"][FORCES] for r in select(results, frames=size)]
        spread = statistics.stdev(errors) if len(errors) > 1 else 0.0
        points.append((size, statistics.mean(errors), spread))
    return points


def _draw(axis: Any, curves: dict[int, list[tuple[int, float, float]]]) -> None:
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    for order, points in curves.items():
        frames, errors, spreads = zip(*points, strict=True)
        style = {"color": _COLOURS.get(order), "linewidth": 1.6}
        axis.plot(frames, errors, marker="o", markersize=4, label=f"l_max {order}", **style)
        if any(spreads):
            axis.errorbar(frames, errors, yerr=spreads, capsize=2, fmt="none", **style)
    ticks = sorted({size for points in curves.values() for size, *_ in points})
    axis.set(xscale="log", yscale="log", xlabel="training frames")
    axis.set_ylabel("forces, MAE (meV/Å)")
    axis.set_xticks(ticks, [str(size) for size in ticks])
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_minor_formatter(NullFormatter())


def _draw_published(axis: Any, errors: dict[int, float], orders: set[int]) -> None:
    """Draw hollow markers at the number of frames of the paper, without those of validation."""
    style = {"marker": "s", "markersize": 6, "linestyle": "none", "markerfacecolor": "none"}
    for order in sorted(orders & errors.keys()):
        axis.plot(950, errors[order], color=_COLOURS.get(order), **style)
    axis.plot([], [], color="#666666", label="NequIP paper", **style)
