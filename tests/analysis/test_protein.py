"""A peptide with known torsions, from the run folder to the results."""

import numpy as np
import pytest

from openmm_nequip.analysis.plots import save_plots
from openmm_nequip.analysis.scene import scene
from openmm_nequip.analysis.summary import analyze
from openmm_nequip.md.structure import Structure

from .runs import write_run
from .test_conformations import peptide

RESIDUES = 12


@pytest.fixture
def folder(tmp_path):
    """A helix for 60 of 100 frames, then stretched."""
    helix = peptide(-57.0, -47.0, RESIDUES)
    frames = np.concatenate([helix.xyz] * 60 + [peptide(-140.0, 140.0, RESIDUES).xyz] * 40)
    topology = helix.topology.to_openmm()
    log = {"step": np.arange(110)}  # 10 rows before production: all frames count
    return write_run(tmp_path / "run", Structure(topology, frames[0], None), frames, log,
                     region=list(range(16, 24)))  # fmt: skip


def test_results_of_a_protein(folder):
    analysis = analyze(folder)
    assert [s.title for s in analysis.sections][:2] == ["The ML region", "Protein"]
    found = analysis.summary["results"]
    assert found["residues in the α basin"]["value"] == pytest.approx(0.6)
    inner = (RESIDUES - 2) / RESIDUES  # DSSP counts both ends out
    assert found["residues in a helix"]["value"] == pytest.approx(0.6 * inner)
    assert found["residues in a strand"]["value"] == 0
    assert found["hydrogen bonds within the protein"]["value"] == 0  # there are no hydrogens
    alpha = 10 * folder_alpha(folder)
    radius = np.sqrt(((alpha - alpha.mean(axis=0)) ** 2).sum(axis=1).mean())
    assert found["RMSD of Cα"]["value"] > 0.2 * radius


def folder_alpha(folder) -> np.ndarray:
    run = analyze(folder).run
    return run.trajectory.xyz[0, run.trajectory.topology.select("name CA")]


def test_figures_of_a_protein(folder):
    analysis = analyze(folder)
    expected = {"ramachandran", "rmsd_protein", "rmsf_protein", "secondary_structure",
                "hydrogen_bonds_protein"}  # fmt: skip
    assert expected <= {picture.name for picture in analysis.pictures}
    chosen = [picture for picture in analysis.pictures if picture.name in expected]
    assert len(save_plots("protein", chosen, folder / "plots")) == 6


def test_of_a_large_protein_the_backbone_is_shown(folder, monkeypatch):
    monkeypatch.setattr("openmm_nequip.analysis.scene._MOST_STICKS", 30)
    shown = scene(analyze(folder).run)
    assert len(shown["elements"]) == 8  # the region
    (trace,) = shown["traces"]
    assert len(trace) == 3 * (4 * (RESIDUES - 1) + 1)
    points = np.array(trace).reshape(-1, 3) / 100
    np.testing.assert_allclose(np.linalg.norm(np.diff(points[::4], axis=0), axis=1), 3.8, atol=0.1)
