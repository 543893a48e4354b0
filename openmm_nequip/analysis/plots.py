"""Figures of a run. Each ``draw_*`` fills one Axes, so that figures can be put together freely."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.style import context
from matplotlib.ticker import MaxNLocator

from ..units import KJ_PER_MOL

if TYPE_CHECKING:
    from .summary import Analysis

COLOURS = ("#2c6fbb", "#d1495b", "#3a9d6e", "#e8a33d", "#7b5ea7", "#4aa9b5", "#8c6d46", "#666666")
STYLE: Mapping[str, object] = {
    "figure.dpi": 150,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.3,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def draw_energy(ax: Axes, analysis: "Analysis") -> None:
    """Potential, kinetic and total energy; potential and total relative to the start."""
    log = analysis.log
    parts = {"potential": 0, "kinetic": 1, "total": 2}
    for name, colour in parts.items():
        energy = log[f"{name}_kJ_mol"]
        origin = log["potential_kJ_mol"][0] if name != "kinetic" else 0.0
        ax.plot(log["time_ps"], energy - origin, color=COLOURS[colour], label=name, lw=1.0)
    ax.set(title="Energy", xlabel="time (ps)", ylabel="energy (kJ/mol)")
    _headroom(ax)
    ax.legend(ncols=3, loc="upper center")


def draw_temperature(ax: Axes, analysis: "Analysis") -> None:
    """Temperature, its running mean and the thermostat's."""
    time, temperature = analysis.log["time_ps"], analysis.log["temperature_K"]
    ax.plot(time, temperature, color=COLOURS[1], alpha=0.35, lw=0.8, label="instantaneous")
    running = np.cumsum(temperature) / np.arange(1, len(temperature) + 1)
    ax.plot(time, running, color=COLOURS[1], lw=2, label="running mean")
    if analysis.target_temperature is not None:
        ax.axhline(analysis.target_temperature, color="#333333", ls="--", lw=1, label="thermostat")
    ax.set(title="Temperature", xlabel="time (ps)", ylabel="temperature (K)")
    _headroom(ax)
    ax.legend(ncols=3, loc="upper center")


def draw_drift(ax: Axes, analysis: "Analysis") -> None:
    """Total energy per atom around its mean, with the fitted drift."""
    time, energy = analysis.log["time_ps"], analysis.log["total_kJ_mol"]
    to_mev = 1000 / KJ_PER_MOL
    per_atom = (energy - energy.mean()) / analysis.num_atoms * to_mev
    ax.plot(time, per_atom, color=COLOURS[2], lw=0.9)
    slope = analysis.drift.slope * to_mev
    label = f"drift {slope:+.3g} meV/atom/ps"
    ax.plot(time, slope * (time - time.mean()), color="#333333", ls="--", lw=1.2, label=label)
    ax.set(title="Total energy", xlabel="time (ps)", ylabel="E − ⟨E⟩ (meV/atom)")
    _headroom(ax)
    ax.legend(loc="upper center")


def draw_rmsd(ax: Axes, analysis: "Analysis") -> None:
    """RMSD from the first frame."""
    ax.plot(analysis.frame_times, analysis.rmsd, color=COLOURS[4])
    ax.set(title="RMSD from the first frame", xlabel="time (ps)", ylabel="RMSD (Å)")
    ax.set_ylim(bottom=0)


def draw_bonds(ax: Axes, analysis: "Analysis") -> None:
    """Distribution of the bond lengths, by pair of elements."""
    for colour, (pair, lengths) in zip(_cycle(), analysis.bond_lengths.items(), strict=False):
        values = lengths.ravel()
        count = int(np.clip(np.sqrt(values.size), 20, 100))
        density, edges = np.histogram(values, bins=count, density=True)
        centres = 0.5 * (edges[1:] + edges[:-1])
        label = f"{pair}  {values.mean():.3f} ± {values.std():.3f} Å"
        ax.plot(centres, density, color=colour, label=label)
        ax.fill_between(centres, density, color=colour, alpha=0.2, lw=0)
    ax.set(title="Bond lengths", xlabel="length (Å)", ylabel="density (1/Å)")
    ax.set_ylim(bottom=0)
    ax.legend()


def draw_rdf(ax: Axes, analysis: "Analysis") -> None:
    """Radial distribution functions, by pair of elements."""
    for colour, (pair, (r, g)) in zip(_cycle(), analysis.rdf.items(), strict=False):
        ax.plot(r, g, color=colour, label=pair)
    ax.axhline(1.0, color="#999999", lw=0.8, ls=":")
    ax.set(title="Radial distribution", xlabel="r (Å)", ylabel="g(r)")
    # Bonds within a molecule are narrow and high: let them leave the picture.
    outer = [g[r > 2.0].max(initial=1.0) for r, g in analysis.rdf.values()]
    ax.set_ylim(0, 1.15 * max(outer))
    ax.legend()


def draw_density(ax: Axes, analysis: "Analysis") -> None:
    """Density."""
    ax.plot(analysis.log["time_ps"], analysis.log["density_g_mL"], color=COLOURS[5])
    ax.set(title="Density", xlabel="time (ps)", ylabel="density (g/mL)")


def save_plots(analysis: "Analysis", folder: Path) -> list[Path]:
    """Write one PNG for each observable of the run, and ``overview.png`` with all of them.

    Returns
    -------
    list of Path
        The files, the overview first.
    """
    draw: dict[str, Callable[[Axes, Analysis], None]] = {
        "energy": draw_energy,
        "temperature": draw_temperature,
        "drift": draw_drift,
        "rmsd": draw_rmsd,
    }
    if analysis.bond_lengths:
        draw["bonds"] = draw_bonds
    if analysis.rdf:
        draw["rdf"] = draw_rdf
    if analysis.ensemble == "npt":
        draw["density"] = draw_density
    if analysis.ensemble != "nve":
        del draw["drift"]  # a thermostat is meant to change the total energy

    folder.mkdir(exist_ok=True)
    with context(dict(STYLE)):
        rows = -(-len(draw) // 2)
        overview = Figure(figsize=(10, 3.3 * rows))
        FigureCanvasAgg(overview)
        panels = overview.subplots(rows, 2, squeeze=False).ravel()
        for ax, function in zip(panels, draw.values(), strict=False):
            function(ax, analysis)
            ax.xaxis.set_major_locator(MaxNLocator(7))
        for ax in panels[len(draw) :]:
            ax.set_axis_off()
        overview.suptitle(analysis.title, fontsize=13, x=0.01, ha="left")
        paths = [folder / "overview.png"]
        overview.savefig(paths[0])
        for name, function in draw.items():
            figure = Figure(figsize=(6, 3.6))
            FigureCanvasAgg(figure)
            ax = figure.subplots()
            function(ax, analysis)
            ax.xaxis.set_major_locator(MaxNLocator(7))
            paths.append(folder / f"{name}.png")
            figure.savefig(paths[-1])
    return paths


def _headroom(ax: Axes) -> None:
    """Leave room for the legend above the curves."""
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.18 * (high - low))


def _cycle() -> list[str]:
    return [COLOURS[k % len(COLOURS)] for k in range(100)]
