"""The report in a real browser, headless: no script fails, the viewer draws, nothing sticks out."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from openmm_nequip.analysis.folder import open_run
from openmm_nequip.analysis.replicas import combine
from openmm_nequip.analysis.report import save_combined_report, save_report
from openmm_nequip.analysis.summary import analyze_together

from .runs import ethanol_in_water, write_run
from .test_summary import FRAMES, shaken

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome")

WIDTHS = (1400, 500, 360)  # desktop, small tablet, phone
PROBE = """<script>
const errors = [];
addEventListener("error", (event) => errors.push(event.message || "not loaded"), true);
addEventListener("load", () => setTimeout(() => {
  const canvas = document.querySelector("canvas"), page = document.documentElement;
  const drawn = canvas && canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  parent.postMessage({
    errors, window: innerWidth, room: page.clientWidth, width: page.scrollWidth,
    colours: drawn ? new Set(new Uint32Array(drawn.data.buffer)).size : 0,
  }, "*");
}, 500));
</script>"""
# A browser has no narrower window than 500 pixels, but frames of any width.
FRAME = """<!doctype html>
<iframe src="page.html" style="border: 0; width: WIDTHpx; height: 900px"></iframe>
<script>
addEventListener("message", (event) => (document.body.textContent = JSON.stringify(event.data)));
</script>"""


def look(text: str, width: int, folder: Path) -> dict:
    """Open a page at this width and return what it says of itself."""
    assert BROWSER is not None
    (folder / "page.html").write_text(text.replace("<head>", "<head>" + PROBE, 1))
    (folder / "frame.html").write_text(FRAME.replace("WIDTH", str(width)))
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/user",
         "--window-size=1500,1000", "--virtual-time-budget=10000", "--dump-dom",
         (folder / "frame.html").as_uri()],
        capture_output=True, text=True, timeout=600, check=True,
    )  # fmt: skip
    found = re.search(r"<body>(\{.*\})</body>", done.stdout)
    assert found, done.stdout + done.stderr
    return json.loads(html.unescape(found[1]))


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Return the reports of an ML region in water and of two replicas of it."""
    folder, structure = tmp_path_factory.mktemp("browser"), ethanol_in_water()
    log = {"ml_potential_kJ_mol": -400000 + np.random.default_rng(0).normal(size=FRAMES + 10)}
    runs = [
        open_run(write_run(folder / name, structure, shaken(structure), log, list(range(9))))
        for name in ("replica-1", "replica-2")
    ]
    analyses = list(analyze_together(runs))
    one = save_report(analyses[0])
    several = save_combined_report(folder, analyses, combine(analyses))
    return {"report": one.read_text(), "replicas": several.read_text()}


@pytest.mark.parametrize("width", WIDTHS)
def test_the_report_works_at_every_width(pages, width, tmp_path):
    found = look(pages["report"], width, tmp_path)
    assert found["errors"] == []
    assert found["window"] == width
    assert found["width"] == found["room"]  # no scrolling to the side
    assert found["colours"] > 100  # balls and sticks are shaded


def test_the_report_of_replicas_fits_a_phone(pages, tmp_path):
    found = look(pages["replicas"], 360, tmp_path)
    assert found["errors"] == []
    assert found["width"] == found["room"]


def test_a_broken_page_is_noticed(pages, tmp_path):
    broken = pages["report"].replace("showMolecule(document", "showNothing(document")
    broken = broken.replace("<main>", '<main><div style="width: 800px">wide</div>')
    found = look(broken, 500, tmp_path)
    assert found["errors"] == ["Uncaught ReferenceError: showNothing is not defined"]
    assert found["width"] > found["room"]
    assert found["colours"] == 1
