"""``report.html``: one file with everything, for any browser, without a network."""

import json
from dataclasses import replace
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ..modelfile import write_atomically
from ..versions import versions
from .plots import on_same_axes, to_svg
from .replicas import Combined, scattered, table
from .scene import scene, scene_text
from .summary import Analysis, description

_PAGES = Environment(
    loader=PackageLoader("openmm_nequip.analysis"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
)


def save_report(analysis: Analysis) -> Path:
    """Write ``report.html`` into the run folder and return it."""
    run, folder = analysis.run, analysis.run.folder
    made_with = folder / "versions.json"
    shown = scene(run)
    page = _PAGES.get_template("report.html").render(
        title=analysis.title,
        where=str(folder),
        summary=analysis.summary,
        warnings=analysis.summary.get("warnings", []),
        facts=description(analysis.summary),
        sections=analysis.sections,
        svg={picture.name: Markup(to_svg(picture)) for picture in analysis.pictures},
        scene=shown,
        scene_text=scene_text(run, shown),
        viewer=Markup(_source("viewer.js")),
        config=(folder / "config.yaml").read_text().strip(),
        seed=run.config.seed,
        versions=json.loads(made_with.read_text()) if made_with.exists() else {},
        version=_version(),
    )
    return _write(folder, page)


def save_combined_report(folder: Path, analyses: list[Analysis], found: list[Combined]) -> Path:
    """Write ``report.html`` of several replicas into the folder above them and return it."""
    page = _PAGES.get_template("replicas.html").render(
        title=analyses[0].title,
        where=str(folder),
        analyses=analyses,
        rows=table(found),
        cautions=scattered(found),
        comparisons=_comparisons(analyses),
        version=_version(),
    )
    return _write(folder, page)


def _comparisons(analyses: list[Analysis]) -> list[tuple[str, list[tuple[str, str, Markup]]]]:
    """Return the pictures that all replicas have: a title, and name, caption and SVG of each."""
    found = []
    for first in analyses[0].pictures:
        same = [p for analysis in analyses for p in analysis.pictures if p.name == first.name]
        if len(same) < len(analyses):
            continue
        panels = []
        for analysis, picture in zip(analyses, on_same_axes(same), strict=True):
            name = analysis.run.folder.name
            own = replace(picture, name=f"{picture.name}-{name}")  # parts of an SVG have global ids
            panels.append((name, picture.caption, Markup(to_svg(own))))
        found.append((first.title, panels))
    return found


def _source(name: str) -> str:
    assert _PAGES.loader is not None
    return _PAGES.loader.get_source(_PAGES, name)[0]


def _version() -> str:
    return versions().get("openmm-nequip", "")


def _write(folder: Path, page: str) -> Path:
    path = folder / "report.html"
    write_atomically(path, page.encode())
    return path
