"""The table and the figures of `evaluate.py`."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from openmm_nequip.figures import STYLE, save

_COLUMN = {"O-O": 1, "O-H": 3, "H-H": 5}  # of the experiment's table; the error is in the next one
_COLOURS = ("#d1495b", "#2c6fbb", "#e8a33d", "#7b5ea7")
#: What of each function goes into the table: where to look for it, Å, and whether it is a maximum.
_EXTREMA = {
    "O–O, first maximum": ("O-O", (2.4, 3.2), True),
    "O–O, first minimum": ("O-O", (3.0, 4.0), False),
    "O–O, second maximum": ("O-O", (4.0, 5.5), True),
    "O–H, hydrogen bond": ("O-H", (1.5, 2.3), True),
    "H–H, between molecules": ("H-H", (2.0, 2.9), True),
}

Result = dict[str, Any]
Curve = tuple[np.ndarray, np.ndarray]


def table(runs: list[Result], dft: Result, experiment: np.ndarray) -> str:
    """Return the figures of all runs beside the DFT frames and experiment, as Markdown."""
    columns = ["", *(_title(run) for run in runs), "DFT frames", "experiment, 298 K"]
    rows = [["temperature, K", *(_shown(run["temperature_K"], 1) for run in runs), "–", "298"]]
    for name, (pair, window, is_maximum) in _EXTREMA.items():
        curves = [_curve(run, pair) for run in [*runs, dft]]
        curves.append((experiment[:, 0], experiment[:, _COLUMN[pair]]))
        found = (extremum(curve, window, is_maximum) for curve in curves)
        rows.append([f"{name}: r (Å), g", *(f"{r:.2f}, {g:.2f}" for r, g in found)])
    for pair, name in (("O-O", "O–O"), ("O-H", "O–H"), ("H-H", "H–H")):
        differences = [f"{run['rdf_difference_from_dft'][pair]:.3f}" for run in runs]
        row = [f"{name}: difference of g from the DFT frames, RMS", *differences]
        rows.append([*row, f"noise {dft['noise'][pair]:.3f}", "–"])
    temperatures = dict.fromkeys(r["target_temperature_K"] for r in runs)
    measured = "; ".join(
        [f"{measured_diffusion(298.15):.2f}"]
        + [f"{measured_diffusion(t):.2f} at {t:g} K" for t in temperatures]
    )
    bonds = [f"{r['bond_A']['mean']:.3f} ± {r['bond_A']['std']:.3f}" for r in [*runs, dft]]
    rows += [
        ["O–H bond, mean ± spread, Å", *bonds, "–"],
        ["longest O–H bond, Å", *(f"{r['longest_bond_A']:.2f}" for r in [*runs, dft]), "–"],
        [
            "frames with a bond longer than 1.4 Å",
            *(f"{r['frames_with_broken_bonds']} of {r['frames']:,}" for r in runs), "0", "–",
        ],
        [
            f"pressure at {runs[0]['density_g_mL']:.3f} g/mL, bar",
            *(_shown(r["pressure_bar"], 0) for r in runs), "–", "–",
        ],
        [
            "diffusion in this box, 10⁻⁹ m²/s",
            *(_shown(r["diffusion"], 2) for r in runs), "–", "–",
        ],
        [
            "diffusion without the finite size, 10⁻⁹ m²/s",
            *map(_corrected, runs), "–", measured,
        ],
        ["warnings of `simulate`", *(str(len(r["warnings"])) for r in runs), "–", "–"],
        [
            "speed, ns/day",
            *(f"{r['speed_ns_day']:.3g} ({_machine(r)})" for r in runs), "–", "–",
        ],
    ]  # fmt: skip
    rule = ["---"] * len(columns)
    lines = "\n".join("| " + " | ".join(row) + " |" for row in (columns, rule, *rows))
    run = runs[0]
    return (
        f"{lines}\n\n"
        f"{run['molecules']} molecules, NVT (Langevin, {run['friction_per_ps']:g} ps⁻¹), "
        f"{run['timestep_fs']:g} fs, after {run['equilibration_ps']:g} ps of equilibration. Errors "
        "are standard errors from blocks. The noise is what half of the DFT frames differ from the "
        "other half, over two. The DFT frames have one density and no stresses, so that nothing in "
        "training but the forces decides the pressure. A box this small slows diffusion: the "
        "correction of Yeh and Hummer (2004) takes the measured viscosity, which is an estimate if "
        "the liquid has another. Nuclei are classical; experiments have the quantum ones, which "
        "widen the O–H and H–H peaks. Experiment: A. K. Soper, ISRN Phys. Chem. 2013, 279463; M. "
        "Holz et al., Phys. Chem. Chem. Phys. 2, 4740 (2000)."
    )


def extremum(curve: Curve, window: tuple[float, float], is_maximum: bool) -> tuple[float, float]:
    """Return where a curve is highest or lowest within a window, and its value there.

    A parabola through the point and its neighbours gives the place between them.
    """
    r, g = curve
    inside = np.flatnonzero((r >= window[0]) & (r <= window[1]))
    k = inside[np.argmax(g[inside]) if is_maximum else np.argmin(g[inside])]
    a, b, c = np.polyfit(r[k - 1 : k + 2] - r[k], g[k - 1 : k + 2], 2)
    shift = -b / (2 * a) if a else np.inf
    if abs(shift) > r[k + 1] - r[k]:  # no extremum here: the edge of the window
        return float(r[k]), float(g[k])
    return float(r[k] + shift), float(c + b * shift / 2)


def measured_diffusion(temperature: float) -> float:
    """Return the measured self-diffusion of water, 10⁻⁹ m²/s (Holz et al., 2000)."""
    return float(16.35 * (temperature / 215.05 - 1) ** 2.063)


def figures(
    runs: dict[str, Result], dft: Result, experiment: np.ndarray, folder: Path
) -> list[Path]:
    """Draw the radial distribution functions of all runs, and what else they gave."""
    paths = [folder / "rdf.png", folder / "diffusion.png"]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.8), layout="constrained")
        axes = figure.subplots(1, 3)
        for axis, pair in zip(axes, _COLUMN, strict=True):
            _draw_rdf(axis, pair, list(runs.values()), dft, experiment)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
        save(figure, paths[0])
        diffusing = [run for run in runs.values() if run["diffusion"]]
        if not diffusing:
            return paths[:1]
        figure = Figure(figsize=(5.4, 3.8), layout="constrained")
        _draw_diffusion(figure.subplots(), diffusing)
        save(figure, paths[1])
    return paths


def _draw_rdf(
    axis: Any, pair: str, runs: list[Result], dft: Result, experiment: np.ndarray
) -> None:
    column = _COLUMN[pair]
    r, g, error = experiment[:, 0], experiment[:, column], experiment[:, column + 1]
    axis.fill_between(r, g - error, g + error, color="#9aa5ad", alpha=0.5, lw=0)
    axis.plot(r, g, color="#6b7780", lw=1.0, label="experiment, 298 K")
    axis.plot(*_curve(dft, pair), color="black", lw=1.4, ls="--", label="DFT frames")
    for colour, run in zip(_COLOURS, runs, strict=False):
        axis.plot(*_curve(run, pair), color=colour, lw=1.6, label=_title(run))
    axis.set(xlim=(1.2 if pair == "O-H" else 1.0, 6.2), xlabel="r (Å)", ylabel="g(r)")
    far = [g[r > 1.75] for r, g in (_curve(run, pair) for run in [*runs, dft])]
    axis.set_ylim(0, 1.15 * max(g.max() for g in far))
    axis.set_title(pair.replace("-", "–"))


def _draw_diffusion(axis: Any, runs: list[Result]) -> None:
    for colour, run in zip(_COLOURS, runs, strict=False):
        found = run["diffusion"]
        lags, msd = np.array(found["lags_ps"]), np.array(found["msd_A2"])
        label = f"{_title(run)}: {_shown(found, 2)}·10⁻⁹ m²/s"
        axis.plot(lags, msd, color=colour, label=label)
        fitted = lags >= found["fit_ps"][0]
        slope = 6 * found["value"] / 10
        line = msd[fitted].mean() + slope * (lags[fitted] - lags[fitted].mean())
        axis.plot(lags[fitted], line, color="black", lw=1, ls=":")
    axis.set(xlabel="lag (ps)", ylabel="mean square displacement of O (Å²)", xlim=(0, None))
    axis.set_ylim(bottom=0)
    axis.legend(fontsize=8)


def _title(run: Result) -> str:
    return f"{run['model']}, {run['target_temperature_K']:g} K, {run['time_ps']:.3g} ps"


def _curve(result: Result, pair: str) -> Curve:
    values = result["rdf"][pair]
    return np.array(values["r_A"]), np.array(values["g"])


def _shown(quantity: dict[str, Any] | None, digits: int) -> str:
    if quantity is None:
        return "too short"
    error = quantity["error"]
    return f"{quantity['value']:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def _corrected(run: Result) -> str:
    found = run["diffusion"]
    return f"{found['value'] + found['finite_size_correction']:.2f}" if found else "too short"


def _machine(run: Result) -> str:
    machine = run["machine"]
    return machine["gpu"] or f"{machine['cpu']}, threads: {machine['threads']}"
