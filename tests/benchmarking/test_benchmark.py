"""The benchmark measures what it says, in turn, and hides nothing."""

import json
import sys

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from openmm_nequip.benchmarking import energy, engines, md, memory, profile, run
from openmm_nequip.benchmarking.budget import Budget, Forecast
from openmm_nequip.benchmarking.models import (
    SHAPES,
    Disagreement,
    Evaluation,
    Unavailable,
    compare,
    make_model,
)
from openmm_nequip.benchmarking.results import Results, Row, plot, read, tables
from openmm_nequip.benchmarking.run import Settings
from openmm_nequip.benchmarking.samples import aspirin, water
from openmm_nequip.benchmarking.timing import alternate, calls_per_repeat, quartiles
from openmm_nequip.benchmarking.training import per_epoch
from openmm_nequip.errors import InputError

TINY = {"num_layers": 2, "l_max": 1, "num_features": 4, "radial_mlp_width": 8}


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path, {"machine": {}, "versions": {}, "settings": {}})


@pytest.fixture
def tiny(monkeypatch):
    """Every shape a small network, so that whole runs take seconds."""
    for name, shape in SHAPES.items():
        monkeypatch.setitem(SHAPES, name, {"r_max": shape["r_max"], "parity": True, **TINY})


def forecast(seconds: float = 1e6) -> Forecast:
    return Forecast(Budget(seconds))


# ---- structures


def test_water_has_the_density_and_geometry_of_water():
    sample = water(192, width=10.0)
    volume = float(np.linalg.det(sample.frame.cell))
    grams = 64 * 18.015 / 6.02214e23
    assert abs(grams / (volume * 1e-24) - 0.997) < 1e-4
    positions = sample.frame.positions.reshape(64, 3, 3)
    first, second = (positions[:, k] - positions[:, 0] for k in (1, 2))
    for bond in (first, second):
        assert np.abs(np.linalg.norm(bond, axis=1) - 0.9572).max() < 1e-9
    angle = np.degrees(np.arccos((first * second).sum(1) / 0.9572**2))
    assert np.abs(angle - 104.52).max() < 1e-6
    assert (sample.frame.numbers.reshape(64, 3) == [8, 1, 1]).all()


def test_water_is_reproducible_and_does_not_overlap():
    sample = water(192, width=10.0)
    assert np.array_equal(sample.frame.positions, water(192, width=10.0).frame.positions)
    assert not np.array_equal(sample.frame.positions, water(192, 10.0, seed=1).frame.positions)
    edge = sample.frame.cell[0, 0]
    vectors = sample.frame.positions[:, None] - sample.frame.positions
    distances = np.linalg.norm(vectors - edge * np.round(vectors / edge), axis=2)
    other = np.arange(192)[:, None] // 3 != np.arange(192) // 3
    assert distances[other].min() > 0.7


def test_boxes_narrower_than_asked_for_are_clusters():
    assert water(21, width=10.0).frame.cell is None
    assert water(192, width=10.0).frame.pbc == (True, True, True)
    with pytest.raises(InputError, match="20 atoms are no whole number of water molecules"):
        water(20, width=10.0)


def test_aspirin_is_aspirin():
    sample = aspirin()
    assert np.bincount(sample.frame.numbers).tolist() == [0, 8, 0, 0, 0, 0, 9, 0, 4]
    distances = np.linalg.norm(
        sample.frame.positions[:, None] - sample.frame.positions, axis=2
    ) + 9 * np.eye(21)
    assert distances.min() > 0.9
    bonded = distances < 1.6
    assert bonded.sum() // 2 == 21  # 21 atoms, one ring
    neighbours = bonded.sum(1)
    assert sorted(neighbours[sample.frame.numbers == 6]) == [3] * 8 + [4]
    angles = int((neighbours * (neighbours - 1) // 2).sum())
    assert len(sample.springs) == 21 + angles


# ---- clocks


def test_repeats_alternate():
    order = []
    calls = {name: (lambda name=name: order.append(name)) for name in "abc"}
    seconds = alternate(calls, repeats=3, times={"a": 1, "b": 2, "c": 1})
    assert "".join(order) == 3 * "abbc"
    assert {name: len(values) for name, values in seconds.items()} == dict.fromkeys("abc", 3)


def test_quick_calls_are_repeated_within_a_repeat():
    assert calls_per_repeat(1.0) == 1
    assert calls_per_repeat(0.001, shortest=0.05) == 50
    assert calls_per_repeat(0.0) == 200


def test_quartiles():
    assert quartiles([4.0, 1.0, 2.0, 3.0, 5.0]) == (2.0, 3.0, 4.0)


def test_only_steps_within_an_epoch_after_the_first_count():
    ends = [(0, 0.0), (0, 9.0), (1, 20.0), (1, 21.0), (1, 22.0), (2, 50.0), (2, 53.0)]
    assert per_epoch(ends) == [1.0, 3.0]


# ---- budget


def test_what_does_not_fit_is_refused_with_a_reason():
    budget = forecast(100.0)
    assert budget.objection("slow", 1000, 5) == ""  # nothing known yet
    budget.note("slow", 10_000, seconds=1.0, memory=10**6)
    assert budget.objection("slow", 50_000, 4) == ""  # 20 s of 25
    assert "about 5 s a call, 30 s in all" in budget.objection("slow", 50_000, 6)
    budget.note("large", 10_000, seconds=1e-6, memory=10**9)
    assert "GB of memory" in budget.objection("large", 10**9, 1)
    budget.note("small", 100, seconds=1.0)  # says little about large cases
    assert budget.objection("small", 10_000, 5) == ""
    assert "30 s in all" in budget.objection("small", 100, 30)
    assert "is used up" in forecast(0.0).objection("slow", 1, 1)


# ---- engines


def test_ours_and_upstream_have_the_same_weights(results):
    pytest.importorskip("nequip")
    model = make_model("S", **TINY)
    energy.measure_energy(model, [21], ["reference", "nequip"], 2, "cpu", forecast(), results)
    ours, theirs = results.rows
    assert (ours.engine, theirs.engine) == ("reference", "nequip")
    assert ours.status == theirs.status == "measured"
    assert ours.details["relative_difference"]["forces"] < 1e-9
    assert 0 < theirs.details["relative_difference"]["forces"] < 1e-5


def test_different_weights_are_an_error(results):
    pytest.importorskip("nequip")
    model = make_model("S", **TINY)
    with torch.no_grad():
        for weight in model.potential.network.layers[0].linear_1.parameters():
            weight *= 1.01
    energy.measure_energy(model, [21], ["reference", "nequip"], 2, "cpu", forecast(), results)
    assert [row.status for row in results.rows] == ["measured", "disagrees"]
    assert "differ from the reference engine's by" in results.rows[1].reason
    assert not results.rows[1].seconds


@pytest.mark.parametrize(("energy_factor", "force_factor"), [(1.001, 1.0), (1.0, 1.001)])
def test_small_disagreement_is_noticed(energy_factor, force_factor):
    forces = np.random.default_rng(0).normal(size=(5, 3))
    expected = Evaluation(-3.0, forces)
    assert compare(expected, Evaluation(-3.0, forces), 3.0) == {"energy": 0.0, "forces": 0.0}
    found = Evaluation(-3.0 * energy_factor, forces * force_factor)
    with pytest.raises(Disagreement):
        compare(expected, found, 3.0)
    with pytest.raises(Disagreement):
        compare(expected, Evaluation(float("nan"), forces), 3.0)


def test_missing_and_broken_peers_are_rows_with_reasons(results, monkeypatch):
    class Missing(engines.Engine):
        def __init__(self, model, device):
            raise Unavailable("nothing is not installed")

    class Broken(engines.Ours):
        def prepare(self, sample):
            raise RuntimeError("no luck\nat all")

    monkeypatch.setitem(engines.ENGINES, "missing", Missing)
    monkeypatch.setitem(engines.ENGINES, "broken", Broken)
    model = make_model("S", **TINY)
    names = ["missing", "reference", "broken"]
    energy.measure_energy(model, [21, 24], names, 2, "cpu", forecast(), results)
    assert [(row.atoms, row.engine, row.status, row.reason) for row in results.rows] == [
        (atoms, *what)
        for atoms in (21, 24)
        for what in [
            ("missing", "unavailable", "nothing is not installed"),
            ("reference", "measured", ""),
            ("broken", "failed", "RuntimeError: no luck"),
        ]
    ]
    notes = tables(results.document())[0].notes
    assert notes == [
        "missing (S at 21 atoms, S at 24 atoms) unavailable: nothing is not installed",
        "broken (S at 21 atoms, S at 24 atoms) failed: RuntimeError: no luck",
    ]


def test_without_nequip_the_rest_is_measured(results, monkeypatch):
    monkeypatch.setitem(sys.modules, "nequip", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    model = make_model("S", **TINY)
    energy.measure_energy(model, [21], ["reference", "nequip"], 2, "cpu", forecast(), results)
    assert [row.status for row in results.rows] == ["measured", "unavailable"]
    assert "pip install" in results.rows[1].reason


def test_compiling_is_not_done_unasked(results):
    model = make_model("S", **TINY)
    names = ["reference", "nequip-aotinductor"]
    energy.measure_energy(model, [21], names, 2, "cpu", forecast(), results, compile=False)
    assert results.rows[1].status == "skipped"
    assert "--full" in results.rows[1].reason


def test_larger_boxes_are_forecast_from_a_small_one(results, monkeypatch):
    monkeypatch.setattr(energy, "_SMALL", 21)
    model = make_model("S", **TINY)
    energy.measure_energy(model, [192], ["reference"], 5, "cpu", forecast(1e-3), results)
    assert results.rows[0].status == "skipped"


# ---- molecular dynamics and memory


def test_md_steps(results):
    pytest.importorskip("nequip")
    model = make_model("aspirin", **TINY)
    names = ["reference", "nequip"]
    md.measure_md(model, [21], names, 2, "cpu", "Reference", forecast(), results)
    assert [row.engine for row in results.rows] == [
        "reference, TorchForce",
        "reference, PythonForce",
        "openmm-ml nequip",
    ]
    for row in results.rows:
        if row.status == "failed":  # no openmm-torch here
            assert "TorchForce" in row.engine
            continue
        assert row.status == "measured", row.reason
        assert len(row.seconds) == 2
        assert row.details["relative_difference"]["forces"] < 1e-4
        expected = 0.5e-6 * 86400 / np.median(row.seconds)
        assert abs(row.details["ns_per_day"] / expected - 1) < 1e-9


def test_parts_of_a_step_add_up(results):
    pytest.importorskip("numba")
    model = make_model("S", **TINY)
    profile.measure_profile(model, [21, 192], 2, "Reference", forecast(), results)
    for atoms in (21, 192):
        rows = [row for row in results.rows if row.atoms == atoms]
        names = [row.engine for row in rows]
        assert (names[0], names[-1]) == ("neighbour list", "OpenMM")
        assert "convolution, backward" in names
        assert len(set(names)) == len(names) > 5
        assert all(len(row.seconds) == 2 and min(row.seconds) > 0 for row in rows)
    table = tables(results.document())[0]
    for size in ("21", "192"):
        shares = [float(cells[-1]) for cells in table.rows if cells[1] == size]
        assert abs(sum(shares) - 100) < 1


def test_memory_is_that_of_a_process_of_its_own(results):
    memory.measure_memory("S", 24, ["reference"], "cpu", Budget(1e6), results)
    row = results.rows[0]
    assert row.status == "measured", row.reason
    assert row.details["peak_mb"] >= row.details["before_mb"] > 50
    assert row.edges > 0


# ---- whole runs


def test_a_run_and_its_file(tiny, tmp_path):
    settings = Settings(
        parts=["energy"],
        models=["S", "M"],
        engines=["reference"],
        atoms=[21, 24],
        repeats=3,
        minutes=100,
        threads=1,
    )
    document = run.run(settings, tmp_path)
    assert json.loads((tmp_path / "benchmark.json").read_text()) == document
    assert document == read(tmp_path / "benchmark.json")
    assert document["machine"]["threads"] == 1
    assert {"cpu", "cores", "device", "memory_gb", "load_average"} <= set(document["machine"])
    assert {"python", "torch", "OpenMM"} <= set(document["versions"])
    assert document["settings"]["repeats"] == 3
    assert document["finished"] >= document["started"]
    cases = [(row["model"], row["atoms"]) for row in document["rows"]]
    assert cases == [("S", 21), ("S", 24), ("M", 21), ("M", 24)]
    for row in document["rows"]:
        assert row["status"] == "measured"
        assert len(row["seconds"]) == 3
        assert row["lower_quartile"] <= row["median"] <= row["upper_quartile"]
        assert row["median"] == sorted(row["seconds"])[1]
        assert row["edges"] > 0
    table = tables(document)[0]
    assert [cells[:2] for cells in table.rows] == [
        ["S", "21"],
        ["S", "24"],
        ["M", "21"],
        ["M", "24"],
    ]
    assert table.markdown().count("\n") == 5
    assert (tmp_path / "benchmark.png").stat().st_size > 10_000


def test_results_are_not_overwritten(tmp_path):
    Results(tmp_path, {}).add(Row("energy", "S", 21, "reference", seconds=[1.0]))
    before = (tmp_path / "benchmark.json").read_text()
    with pytest.raises(InputError, match="--overwrite"):
        run.run(Settings(parts=[]), tmp_path)
    assert (tmp_path / "benchmark.json").read_text() == before
    Results(tmp_path, {}, overwrite=True)
    assert read(tmp_path / "benchmark.json")["rows"] == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"parts": ["enery"]}, "unknown part 'enery' .did you mean 'energy'"),
        ({"models": ["XL"]}, "unknown model 'XL'"),
        ({"engines": ["fussed"]}, "unknown engine 'fussed' .did you mean 'fused'"),
    ],
)
def test_unknown_names_are_refused(settings, message, tmp_path):
    with pytest.raises(InputError, match=message):
        run.run(Settings(**settings), tmp_path)
    assert not list(tmp_path.iterdir())


def test_other_files_are_refused(tmp_path):
    (tmp_path / "other.json").write_text('{"schema": 0}')
    with pytest.raises(InputError, match="not a file of"):
        read(tmp_path / "other.json")
    with pytest.raises(InputError, match="cannot read results"):
        read(tmp_path / "none.json")


def test_one_size_has_no_plot(tmp_path):
    row = Row("energy", "S", 21, "reference", seconds=[1.0]).document()
    assert not plot({"rows": [row]}, tmp_path / "plot.png")
    assert not (tmp_path / "plot.png").exists()


def test_command(tiny, tmp_path, monkeypatch):
    from openmm_nequip.cli import app, commands  # noqa: F401

    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(sys, "argv", ["openmm-nequip"])
    arguments = "--part energy --model S --atoms 21 --engine reference --repeats 1 --threads 1"
    folder = tmp_path / "out"
    result = CliRunner().invoke(app, ["benchmark", str(folder), *arguments.split()])
    assert result.exit_code == 0, result.output
    assert "reference" in result.output
    assert read(folder / "benchmark.json")["rows"][0]["status"] == "measured"
    again = CliRunner().invoke(app, ["benchmark", str(folder), *arguments.split()])
    assert isinstance(again.exception, InputError)
