"""Figures: each ``draw_*`` fills one Axes from arrays, so that figures combine freely.

Times are in ps, lengths in Å, angles in degrees, energies in kJ/mol.
"""

import html
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.style import context
from matplotlib.ticker import MultipleLocator

from ..figures import save
from ..units import KJ_PER_MOL
from .observables import Drift
from .results import Picture

COLOURS = ("#2c7fd0", "#d1495b", "#2f9e6e", "#e0912b", "#8a63c0", "#2fa5b5", "#a8794a", "#8a8a8a")
# What follows the reader's colours in a report: every use of these two is replaced in the SVG.
_INK, _FAINT = "#1b1c1d", "#e3e4e5"
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
    "grid.color": _FAINT,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.3,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "svg.fonttype": "none",
}
_POINTS = 1500  # of a curve; longer series are averaged over neighbours


def draw_series(
    ax: Axes,
    time: np.ndarray,
    values: np.ndarray,
    ylabel: str,
    colour: int = 0,
    label: str | None = None,
) -> None:
    """A time series; a long one as the mean and range of neighbouring samples."""
    if time[0] < 0 and not ax.lines:
        ax.axvspan(time[0], 0, color=COLOURS[-1], alpha=0.15, lw=0, label="equilibration")
    size = -(-len(values) // _POINTS)
    if size > 1:
        count = len(values) // size
        blocks = values[: count * size].reshape(count, size)
        time = time[: count * size].reshape(count, size).mean(axis=1)
        ax.fill_between(
            time, blocks.min(axis=1), blocks.max(axis=1), color=COLOURS[colour], alpha=0.25, lw=0
        )
        values = blocks.mean(axis=1)
    ax.plot(time, values, color=COLOURS[colour], lw=1.0, label=label)
    ax.set(xlabel="time (ps)", ylabel=ylabel)


def draw_energy(ax: Axes, log: Mapping[str, np.ndarray]) -> None:
    """Potential, kinetic and total energy; potential and total relative to the start."""
    for colour, name in enumerate(("potential", "kinetic", "total")):
        energy = log[f"{name}_kJ_mol"]
        origin = log["potential_kJ_mol"][0] if name != "kinetic" else 0.0
        draw_series(ax, log["time_ps"], energy - origin, "energy (kJ/mol)", colour, name)
    _legend_above(ax)


def draw_temperature(ax: Axes, log: Mapping[str, np.ndarray], target: float | None) -> None:
    """Temperature, its running mean and the thermostat's."""
    time, temperature = log["time_ps"], log["temperature_K"]
    draw_series(ax, time, temperature, "temperature (K)", 1, "instantaneous")
    ax.lines[-1].set_alpha(0.4)
    counted = time >= 0
    _draw_running_mean(ax, time[counted], temperature[counted], 1, "running mean")
    if target is not None:
        ax.axhline(target, color=_INK, ls="--", lw=1, label="thermostat")
    _legend_above(ax)


def draw_drift(ax: Axes, time: np.ndarray, energy: np.ndarray, atoms: int, drift: Drift) -> None:
    """Total energy per atom around its mean, with the fitted drift."""
    to_mev = 1000 / KJ_PER_MOL
    draw_series(ax, time, (energy - energy.mean()) / atoms * to_mev, "E − ⟨E⟩ (meV/atom)", 2)
    ends = time[[0, -1]]
    slope = drift.slope * to_mev
    label = f"drift {slope:+.3g} meV/atom/ps"
    ax.plot(ends, slope * (ends - time.mean()), color=_INK, ls="--", lw=1.2, label=label)
    _legend_above(ax)


def draw_distributions(
    ax: Axes, values: Mapping[str, np.ndarray], xlabel: str, limits: tuple[float, float] | None
) -> None:
    """Densities of several sets of values."""
    for k, (name, found) in enumerate(values.items()):
        count = 72 if limits else int(np.clip(np.sqrt(found.size), 20, 100))
        density, edges = np.histogram(found, bins=count, range=limits, density=True)
        centres = 0.5 * (edges[1:] + edges[:-1])
        colour = COLOURS[k % len(COLOURS)]
        ax.plot(centres, density, color=colour, label=name)
        ax.fill_between(centres, density, color=colour, alpha=0.2, lw=0)
    ax.set(xlabel=xlabel, ylabel=f"density (1/{xlabel.rpartition('(')[2].rstrip(')')})")
    ax.set_ylim(bottom=0)
    ax.legend()


def draw_torsions(ax: Axes, angles: Mapping[str, np.ndarray]) -> None:
    """Distributions of torsion angles: curves, or a row of colour for each where they are many."""
    if len(angles) <= 5:
        draw_distributions(ax, angles, "torsion (°)", (-180, 180))
        _legend_above(ax)
    else:
        bins = [np.histogram(found, 72, (-180, 180), density=True)[0] for found in angles.values()]
        ax.imshow(
            np.sqrt(bins), aspect="auto", extent=(-180, 180, len(bins) - 0.5, -0.5), cmap="Blues"
        )
        ax.set_yticks(range(len(angles)), list(angles), fontsize=min(9, 200 / len(angles)))
        ax.set_xlabel("torsion (°)")
        ax.grid(False)
    ax.set_xticks(range(-180, 181, 60))
    ax.set_xlim(-180, 180)


def draw_ramachandran(ax: Axes, phi: np.ndarray, psi: np.ndarray, names: Sequence[str]) -> None:
    """Backbone torsions of each residue as points, or as a density where there are many."""
    if phi.size > 3000:
        counts, *_ = np.histogram2d(phi.ravel(), psi.ravel(), 90, [[-180, 180]] * 2)
        shown = np.ma.masked_equal(counts.T, 0)
        ax.imshow(np.sqrt(shown), origin="lower", extent=(-180, 180) * 2, cmap="viridis_r")
    else:
        for k, name in enumerate(names):
            colour = COLOURS[k % len(COLOURS)]
            ax.scatter(phi[:, k], psi[:, k], 10, color=colour, alpha=0.5, lw=0, label=name,
                       rasterized=True)  # fmt: skip
        if len(names) <= 8:
            ax.legend(markerscale=2)
    ax.set(xlabel="φ (°)", ylabel="ψ (°)", xlim=(-180, 180), ylim=(-180, 180))
    ax.set_xticks(range(-180, 181, 60))
    ax.set_yticks(range(-180, 181, 60))
    ax.set_aspect("equal")


def draw_secondary_structure(ax: Axes, times: np.ndarray, codes: np.ndarray) -> None:
    """Secondary structure of each residue over time."""
    colours = {"H": COLOURS[1], "E": COLOURS[0], "C": _FAINT}
    labels = {"H": "helix", "E": "strand", "C": "neither"}
    image = np.full((*codes.T.shape, 3), 1.0)
    for code, colour in colours.items():
        image[code == codes.T] = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        ax.plot([], [], "s", color=colour, label=labels[code])
    ax.imshow(image, aspect="auto", interpolation="nearest",
              extent=(times[0], times[-1], codes.shape[1] + 0.5, 0.5))  # fmt: skip
    ax.set(xlabel="time (ps)", ylabel="residue")
    ax.grid(False)
    ax.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def draw_rmsf(ax: Axes, values: np.ndarray, names: Sequence[str], of: str = "residue") -> None:
    """Fluctuation of each atom or residue; of many every tenth or so has its name."""
    place = np.arange(len(values))
    if len(values) <= 40:
        ax.bar(place, values, color=COLOURS[4], width=0.7)
        ax.set_xticks(place, names, rotation=90 if len(values) > 12 else 0,
                      fontsize=min(9, 260 / len(values)))  # fmt: skip
        ax.grid(axis="x", visible=False)
    else:
        ax.plot(place, values, color=COLOURS[4])
        shown = place[:: -(-len(place) // 20)]
        ax.set_xticks(shown, [names[k] for k in shown], rotation=90, fontsize=8)
        ax.set_xlabel(of)
    ax.set(ylabel="RMSF (Å)", ylim=(0, None))


def draw_clusters(ax: Axes, times: np.ndarray, labels: np.ndarray) -> None:
    """Which cluster each frame belongs to."""
    for label in np.unique(labels):
        here = labels == label
        ax.plot(times[here], labels[here] + 1, "|", ms=9, color=COLOURS[label % len(COLOURS)],
                rasterized=True)  # fmt: skip
    ax.set(xlabel="time (ps)", ylabel="number", ylim=(labels.max() + 1.6, 0.4))
    ax.yaxis.set_major_locator(MultipleLocator(max(1, labels.max() // 8)))


def draw_counts(ax: Axes, times: np.ndarray, counts: Mapping[str, np.ndarray]) -> None:
    """Hydrogen bonds, or whatever is counted, against time, with the running means."""
    for k, (name, count) in enumerate(counts.items()):
        draw_series(ax, times, count, "number", k)
        ax.lines[-1].set_alpha(0.3)
        _draw_running_mean(ax, times, count, k, f"{name}, running mean")
    ax.set_ylim(bottom=0)
    _legend_above(ax)


def draw_rdf(ax: Axes, curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Radial distribution functions."""
    for k, (name, (r, g)) in enumerate(curves.items()):
        ax.plot(r, g, color=COLOURS[k % len(COLOURS)], label=name)
    ax.axhline(1.0, color=COLOURS[-1], lw=0.8, ls=":")
    # Bonds within a molecule are narrow and high: let them leave the picture.
    outer = [g[r > 2.0].max(initial=1.0) for r, g in curves.values()]
    ax.set(xlabel="r (Å)", ylabel="g(r)", ylim=(0, 1.15 * max(outer)))
    ax.legend()


def draw_displacement(
    ax: Axes, lags: np.ndarray, msd: np.ndarray, fit: tuple[float, float], value: float
) -> None:
    """Mean square displacement, and the part that gives the diffusion coefficient (Å²/ps)."""
    ax.plot(lags, msd, color=COLOURS[5])
    used = (lags >= fit[0]) & (lags <= fit[1])
    offset = (msd - 6 * value * lags)[used].mean()
    ends = np.array(fit)
    ax.plot(
        ends, offset + 6 * value * ends, color=_INK, ls="--", lw=1.2, label="Einstein's relation"
    )
    ax.set(xlabel="lag (ps)", ylabel="⟨|r(t) − r(0)|²⟩ (Å²)", xlim=(0, None), ylim=(0, None))
    ax.legend()


def save_plots(title: str, pictures: Sequence[Picture], folder: Path) -> list[Path]:
    """Write a PNG for each picture, and ``overview.png`` with all of them.

    Returns
    -------
    list of Path
        The files, the overview first.
    """
    folder.mkdir(exist_ok=True)
    paths = [folder / "overview.png"]
    with context(dict(STYLE)):
        rows = -(-len(pictures) // 2)
        overview = Figure(figsize=(10, 3.3 * rows))
        FigureCanvasAgg(overview)
        panels = overview.subplots(rows, 2, squeeze=False).ravel()
        for ax, picture in zip(panels, pictures, strict=False):
            picture.draw(ax)
            ax.set_title(picture.title)
        for ax in panels[len(pictures) :]:
            ax.set_axis_off()
        overview.suptitle(title, fontsize=13, x=0.01, ha="left")
        save(overview, paths[0])
        for picture in pictures:
            figure = Figure(figsize=(6, 3.6))
            FigureCanvasAgg(figure)
            ax = figure.subplots()
            picture.draw(ax)
            ax.set_title(picture.title)
            paths.append(folder / f"{picture.name}.png")
            save(figure, paths[-1])
    return paths


def on_same_axes(pictures: Sequence[Picture]) -> list[Picture]:
    """Return pictures of the same thing with the limits that show all of each."""
    limits = []
    with context(dict(STYLE)):
        for picture in pictures:
            ax = Figure().subplots()
            picture.draw(ax)
            limits.append([ax.get_xlim(), ax.get_ylim()])
    low, high = np.min(limits, axis=(0, 2)), np.max(limits, axis=(0, 2))

    def draw(ax: Axes, picture: Picture) -> None:
        picture.draw(ax)
        ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))

    return [replace(picture, draw=partial(draw, picture=picture)) for picture in pictures]


def to_svg(picture: Picture) -> str:
    """Draw a picture for a web page: its text and lines take the page's font and colours."""
    with context({**STYLE, "svg.hashsalt": picture.name}):
        figure = Figure(figsize=(5.2, 3.2))
        FigureCanvasSVG(figure)
        picture.draw(figure.subplots())
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' id="[\w.]+_\d+"', "", text)  # the same in every figure, and not needed
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)
    text = text.replace(_INK, "currentColor").replace(_FAINT, "var(--grid)")
    text = re.sub(r' width="[\d.]+pt"| height="[\d.]+pt"', "", text, count=2)
    return text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(picture.caption)}" ', 1)


def _draw_running_mean(
    ax: Axes, time: np.ndarray, values: np.ndarray, colour: int, label: str
) -> None:
    running = np.cumsum(values) / np.arange(1, len(values) + 1)
    thin = -(-len(running) // _POINTS)
    ax.plot(time[::thin], running[::thin], color=COLOURS[colour], lw=2, label=label)


def _legend_above(ax: Axes) -> None:
    """Put the legend above the curves, where room is made for it."""
    low, high = ax.get_ylim()
    rows = -(-len(ax.get_legend_handles_labels()[0]) // 3)
    ax.set_ylim(low, high + (0.06 + 0.1 * rows) * (high - low))
    ax.legend(ncols=3, loc="upper center", columnspacing=1.2, handlelength=1.4)
