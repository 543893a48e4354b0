"""The report: complete, safe, and without a network."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest

from openmm_nequip.analysis.folder import open_run
from openmm_nequip.analysis.report import save_report
from openmm_nequip.analysis.scene import scene
from openmm_nequip.analysis.summary import analyze
from openmm_nequip.md.structure import load_structure

from .runs import ethanol_in_water, write_run
from .test_summary import FRAMES, shaken


class Page(HTMLParser):
    """Tags, text and whether every tag is closed."""

    VOID = ("meta", "br", "path", "use", "rect", "image")

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    structure = ethanol_in_water()
    folder = write_run(
        tmp_path_factory.mktemp("report") / "run",
        structure,
        shaken(structure),
        {"ml_potential_kJ_mol": -400000 + np.random.default_rng(0).normal(size=FRAMES + 10)},
        region=list(range(9)),
        ensemble="npt",
    )
    (folder / "warnings.csv").write_text(
        "step,time_ps,kind,message\n10,0.005,force,a large force on <script>alert(1)</script>\n"
    )
    return folder


@pytest.fixture(scope="module")
def analysis(folder):
    return analyze(folder)


@pytest.fixture(scope="module")
def text(analysis):
    return save_report(analysis).read_text()


def test_the_report_has_everything(analysis, text):
    page = Page(text)
    assert page.open == []
    assert len([tag for tag, _ in page.tags if tag == "figure"]) == len(analysis.pictures)
    assert {"energy", "ml_energy", "torsions", "rdf_region"} <= {p.name for p in analysis.pictures}
    labels = [found["aria-label"] for tag, found in page.tags if tag == "svg"]
    assert labels == [picture.caption for picture in analysis.pictures]
    for section in analysis.sections:
        for quantity in section.quantities:
            assert quantity.name in page.text
            assert quantity.number() in page.text
    for line in analysis.summary["cautions"]:
        assert line in page.text
    assert "timestep: 0.5" in page.text  # the configuration
    assert "2.9.1" in page.text  # the versions


def test_the_report_needs_no_network(text):
    assert set(re.findall(r"https?://[^\"' <]+", text)) <= {
        "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink",
    }  # fmt: skip
    for _, attributes in Page(text).tags:
        target = attributes.get("src") or attributes.get("xlink:href") or ""
        assert target == "" or target.startswith(("#", "data:"))
    assert len(text) < 3_000_000


def test_what_comes_from_files_is_text(text):
    assert "<script>alert" not in text
    assert "a large force on &lt;script&gt;" in text


def test_figures_follow_the_colours_of_the_page(text):
    figures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    for figure in figures:
        assert "currentColor" in figure
        assert "#1b1c1d" not in figure
    # What refers to a part of a figure finds its own.
    ids = re.findall(r'\sid="([^"]+)"', "".join(figures))
    for figure in figures:
        assert set(re.findall(r"#([mp][0-9a-f]{10})", figure)) <= set(
            re.findall(r'\sid="([^"]+)"', figure)
        )
    assert len(ids) == len(set(ids))


def test_the_scene_shows_the_region_and_whole_waters_near_it(analysis):
    shown = scene(analysis.run)
    positions = np.array(shown["positions"]).reshape(-1, 3) / 100
    kinds = np.array(shown["kinds"])
    assert shown["elements"][:9] == ["C", "C", "O", "H", "H", "H", "H", "H", "H"]
    assert kinds[:9].tolist() == [0] * 9
    assert set(kinds[9:]) == {2}
    assert shown["elements"][9:] == ["O", "H", "H"] * ((len(kinds) - 9) // 3)
    assert len(shown["bonds"]) == 2 * (8 + 2 * ((len(kinds) - 9) // 3))
    bonds = np.array(shown["bonds"]).reshape(-1, 2)
    assert np.linalg.norm(np.diff(positions[bonds], axis=1), axis=2).max() < 1.7
    near = np.linalg.norm(positions[9::3][:, None] - positions[:9], axis=2).min(axis=1)
    assert near.max() < 6.0
    assert len(shown["frames"]) == 40
    np.testing.assert_allclose(
        np.array(shown["frames"][-1]), np.array(shown["positions"][:27]), atol=1
    )
    width = positions[:9].std(axis=0)
    assert width[0] > width[1] > width[2]


def test_a_chiral_molecule_is_not_reflected(analysis):
    shown = scene(analysis.run)
    points = np.array(shown["positions"]).reshape(-1, 3)[:9] / 100
    original = analysis.run.trajectory.xyz[-1].astype(float)[:9] * 10
    volume = [np.linalg.det(p[[4, 5, 6]] - p[1]) for p in (points, original)]
    assert volume[0] == pytest.approx(volume[1], rel=0.05)


def test_the_script_is_valid(text, tmp_path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs Node.js")
    script = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)[-1]
    (tmp_path / "script.js").write_text(script)
    subprocess.run([node, "--check", tmp_path / "script.js"], check=True)
    json.loads(script[script.index('getElementById("viewer"), ') + 26 : script.rindex(");")])


def test_a_molecule_in_vacuum_has_a_report_too(tmp_path):
    structure = load_structure("ethanol")
    folder = write_run(tmp_path / "run", structure, shaken(structure), {"step": np.arange(FRAMES)})
    (folder / "versions.json").unlink()
    assert "the molecule as sticks" in save_report(analyze(folder)).read_text()


def test_of_a_large_liquid_the_middle_is_shown(tmp_path, monkeypatch):
    monkeypatch.setattr("openmm_nequip.analysis.scene._MOST_STICKS", 60)
    structure = ethanol_in_water(60)
    run = open_run(
        write_run(tmp_path / "run", structure, shaken(structure, 10), {"step": np.arange(10)})
    )
    run.__dict__["solute"] = np.array([], dtype=int)
    shown = scene(run)
    assert 30 <= len(shown["elements"]) <= 60
    assert set(shown["kinds"]) == {0}
    assert shown["frames"] == []
