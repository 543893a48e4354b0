"""Numbers as people read them, and figures of long series."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from openmm_nequip.analysis.plots import (
    draw_clusters,
    draw_ramachandran,
    draw_rmsf,
    draw_series,
    draw_torsions,
)
from openmm_nequip.analysis.results import Quantity, average, rounded


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (1.23456, 0.0321, "1.235 ± 0.032"),
        (300.123, 4.56, "300.1 ± 4.6"),
        (-424520.4, 62.0, "-424520 ± 62"),
        (12345.6, 234.0, "12346 ± 234"),
        (1.23456, None, "1.235"),
        (2.0, 0.0, "2 ± 0"),
        (1e-9, 2e-10, "1e-09 ± 2e-10"),
    ],
)
def test_two_digits_of_the_error_are_shown(value, error, text):
    assert rounded(value, error) == text


def test_text_of_a_quantity():
    quantity = Quantity("temperature", 300.12, 1.5, "K", remark="thermostat 300 K")
    assert quantity.number() == "300.1 ± 1.5 K"
    assert quantity.text() == "300.1 ± 1.5 K (thermostat 300 K)"


def test_average_of_independent_samples():
    values = np.random.default_rng(0).normal(5.0, 2.0, 4096)
    found = average("x", values, "Å")
    assert found.value == values.mean()
    assert found.error == pytest.approx(2.0 / 64, rel=0.3)
    assert average("x", values[:8]).error == pytest.approx(values[:8].std(ddof=1) / np.sqrt(8))
    assert found.samples == pytest.approx(4096, rel=0.1)


def test_what_never_changed_has_no_error():
    found = average("x", np.ones(100))
    assert (found.value, found.error, found.samples) == (1.0, None, None)
    assert found.remark == "always the same"
    assert average("x", np.ones(1)).remark == "one frame only"


def axes():
    return Figure().subplots()


def test_long_series_are_drawn_as_means_and_ranges():
    ax, time = axes(), np.arange(9000) * 0.1
    values = np.where(np.arange(9000) % 2, 1.0, -1.0) + time
    draw_series(ax, time, values, "x")
    x, y = ax.lines[0].get_data()
    assert len(x) == 1500
    np.testing.assert_allclose(y, x)  # the mean of 6 neighbours
    (band,) = ax.collections
    assert band.get_paths()[0].vertices[:, 1].max() == pytest.approx(values.max())


def test_equilibration_is_marked():
    ax = axes()
    draw_series(ax, np.arange(-5.0, 10), np.zeros(15), "x")
    assert ax.patches[0].get_x() == -5
    assert ax.patches[0].get_width() == 5


def test_many_torsions_are_rows_of_colour():
    angles = {f"t{k}": np.full(50, -150.0 + 60 * k) for k in range(6)}
    ax = axes()
    draw_torsions(ax, angles)
    (image,) = ax.images
    assert image.get_array().shape == (6, 72)
    assert image.get_array().argmax(axis=1).tolist() == [6 + 12 * k for k in range(6)]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(angles)


def test_distributions_of_torsions_are_normalised():
    ax = axes()
    draw_torsions(ax, {"t": np.random.default_rng(0).uniform(-180, 180, 5000)})
    x, y = ax.lines[0].get_data()
    assert (y * (x[1] - x[0])).sum() == pytest.approx(1.0)


@pytest.mark.parametrize("frames", [10, 5000])
def test_ramachandran_has_both_axes_in_full(frames):
    ax = axes()
    draw_ramachandran(ax, np.full((frames, 1), -60.0), np.full((frames, 1), 45.0), ["ALA2"])
    assert ax.get_xlim() == ax.get_ylim() == (-180, 180)
    assert len(ax.images) == (frames == 5000)
    if ax.images:
        row, column = np.unravel_index(ax.images[0].get_array().argmax(), (90, 90))
        assert (column, row) == (30, 56)


def test_fluctuations_are_bars_or_a_line():
    few, many = axes(), axes()
    draw_rmsf(few, np.arange(4.0), list("abcd"))
    assert [bar.get_height() for bar in few.patches] == [0, 1, 2, 3]
    draw_rmsf(many, np.arange(100.0), [""] * 100)
    assert many.lines[0].get_ydata()[-1] == 99


def test_clusters_are_counted_from_one():
    ax = axes()
    draw_clusters(ax, np.arange(4.0), np.array([0, 1, 0, 2]))
    assert [line.get_ydata().tolist() for line in ax.lines] == [[1, 1], [2], [3]]
