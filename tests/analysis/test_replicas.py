"""Several runs: means, scatter and what does not fit."""

import json
import re

import ase
import numpy as np
import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner

from openmm_nequip.analysis import plots
from openmm_nequip.analysis.folder import open_run
from openmm_nequip.analysis.replicas import (
    combine,
    find_replicas,
    save_combined,
    scattered,
    table,
)
from openmm_nequip.analysis.results import Picture, Quantity
from openmm_nequip.analysis.summary import Analysis, analyze, analyze_together
from openmm_nequip.cli import app, commands  # noqa: F401
from openmm_nequip.errors import InputError
from openmm_nequip.md.structure import load_structure

from .runs import write_run
from .test_summary import shaken


def make(folder, shifts):
    structure, rng = load_structure("ethanol"), np.random.default_rng(0)
    for k, shift in enumerate(shifts):
        log = {"potential_kJ_mol": -1000 + shift + rng.normal(size=500)}
        write_run(folder / f"replica-{k + 1}", structure, shaken(structure, 500), log, seed=k + 1)
    return folder


def analyze_all(folder) -> list[Analysis]:
    return list(analyze_together([open_run(path) for path in find_replicas(folder)]))


def test_replicas_are_in_order(tmp_path):
    for name in ("replica-10", "replica-2", "replica-x", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.csv").write_text("")
    (tmp_path / "replica-3").mkdir()  # not begun
    assert [path.name for path in find_replicas(tmp_path)] == ["replica-2", "replica-10"]


def test_the_error_is_that_of_the_scatter(tmp_path):
    analyses = analyze_all(make(tmp_path, [0.0, 0.0, 30.0]))
    found = {c.mean.name: c for c in combine(analyses)}
    energy = found["potential energy"]
    values = [a.summary["results"]["potential energy"]["value"] for a in analyses]
    assert energy.mean.value == pytest.approx(np.mean(values))
    assert energy.mean.error == pytest.approx(np.std(values, ddof=1) / np.sqrt(3))
    assert energy.mean.error == pytest.approx(10.0, rel=0.02)
    assert energy.is_scattered
    assert not found["temperature"].is_scattered
    (caution,) = scattered(list(found.values()))
    assert "potential energy" in caution
    assert "temperature" not in caution


def test_an_agreement_by_chance_does_not_make_the_error_small(tmp_path):
    analyses = analyze_all(make(tmp_path, [0.0, 0.0]))
    for analysis in analyses:
        for section in analysis.sections:
            section.quantities = [Quantity("x", 1.0, 0.3), Quantity("constant", 2.0)]
    x, constant, *_ = combine(analyses)
    assert x.mean.error == pytest.approx(0.3 / np.sqrt(2))
    assert constant.mean.error is None


def test_replicas_that_stay_apart_are_a_reason_for_caution(tmp_path):
    turned(tmp_path, 1, {180: 100})
    turned(tmp_path, 2, {62: 100})
    found = combine(analyze_all(tmp_path))
    (share,) = (c for c in found if c.mean.name.startswith("trans share"))
    assert [q.value for q in share.single] == [1.0, 0.0]
    assert share.mean.text() == "0.50 ± 0.50 (each replica always the same)"
    assert any(share.mean.name in caution for caution in scattered(found))


def test_replicas_that_agree_are_no_reason_for_caution(tmp_path):
    analyses = analyze_all(make(tmp_path, [0.0, 0.0]))
    assert scattered(combine(analyses)) == []


def turned(folder, number, shares):
    """Write a run of ethanol whose hydroxyl torsion has these angles for so many frames."""
    structure = load_structure("ethanol")
    atoms = ase.Atoms([a.element.symbol for a in structure.topology.atoms()],
                      structure.positions * 10)  # fmt: skip
    frames = []
    for angle, count in shares.items():
        atoms.set_dihedral(0, 1, 2, 3, angle, indices=[3])
        frames += [atoms.positions / 10] * count
    order = np.random.default_rng(number).permutation(len(frames))
    log = {"step": np.arange(len(frames) + 10)}  # 10 rows before production: all frames count
    write_run(folder / f"replica-{number}", structure, np.array(frames)[order], log)


def test_a_conformer_has_the_same_number_in_every_replica(tmp_path):
    turned(tmp_path, 1, {180: 60, 62: 40})
    turned(tmp_path, 2, {178: 30, 60: 70})
    turned(tmp_path, 3, {180: 25, 60: 60, -60: 15})  # the last of them is only here
    analyses = analyze_all(tmp_path)
    found = combine(analyses)
    shares = {c.mean.remark: c for c in found if c.mean.name.startswith("share of conformer")}
    assert {
        name: [round(q.value, 2) for q in shares[name].single] for name in ("60°", "180°", "-60°")
    } == {"60°": [0.4, 0.7, 0.6], "180°": [0.6, 0.3, 0.25], "-60°": [0.0, 0.0, 0.15]}
    assert shares["60°"].mean.name == "share of conformer 1"
    rows = table(found)
    assert "share of conformer 2 (180°)" in [row[0] for row in rows]
    save_combined(tmp_path, analyses, found)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["results"]["share of conformer 2"]["remark"] == "180°"


def test_runs_of_other_molecules_are_not_averaged(tmp_path):
    turned(tmp_path, 1, {180: 20})
    water = load_structure("water")
    write_run(tmp_path / "replica-2", water, shaken(water, 20), {"step": np.arange(20)})
    with pytest.raises(InputError, match=r"replica-2' has other atoms .* than .*replica-1"):
        analyze_all(tmp_path)


def test_the_command_makes_reports_of_each_and_of_all(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "save_plots", lambda *arguments: [])  # takes most of the time
    make(tmp_path, [0.0, 0.1, 0.0, 0.0])
    (tmp_path / "replica-3" / "state.csv").write_text("step,time_ps\n")  # has just begun
    (tmp_path / "replica-4" / "trajectory.dcd").write_bytes(b"nothing")
    result = CliRunner().invoke(app, ["analyze", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "potential energy" in result.output
    for name in (".", "replica-1", "replica-2"):
        assert (tmp_path / name / "report.html").exists()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["replicas"] == ["replica-1", "replica-2"]
    temperature = summary["results"]["temperature"]
    assert temperature["value"] == pytest.approx(np.mean(temperature["replicas"]))
    assert "replica-3 left out: " in result.output
    assert "replica-4 left out: cannot read" in result.output
    page = (tmp_path / "report.html").read_text()
    assert 'href="replica-2/report.html"' in page
    assert "± " in page
    shared = analyze(tmp_path / "replica-1").pictures
    assert page.count("<figure") == page.count("<svg ") == 2 * len(shared) > 4
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(ids)


def test_pictures_of_replicas_have_the_same_axes():
    def picture(low: float, high: float) -> Picture:
        return Picture("x", "X", "", lambda ax: ax.set(xlim=(0, high), ylim=(low, high)))

    for shown in plots.on_same_axes([picture(-3.0, 1.0), picture(0.0, 5.0)]):
        ax = Figure().subplots()
        shown.draw(ax)
        assert (ax.get_xlim(), ax.get_ylim()) == ((0.0, 5.0), (-3.0, 5.0))
