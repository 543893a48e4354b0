"""From a run folder to its summary and figures."""

import itertools
import json

import ase
import ase.build
import mdtraj
import numpy as np
import pytest
from openmm import app
from PIL import Image
from scipy.spatial import distance

from openmm_nequip.analysis import surroundings
from openmm_nequip.analysis.folder import open_run, read_log
from openmm_nequip.analysis.plots import save_plots
from openmm_nequip.analysis.report import save_report
from openmm_nequip.analysis.scene import scene
from openmm_nequip.analysis.summary import Analysis, analyze, save_summary, table
from openmm_nequip.analysis.transport import diffusion_coefficient
from openmm_nequip.errors import InputError
from openmm_nequip.md.images import shortest
from openmm_nequip.md.solvation import SHAPES
from openmm_nequip.md.structure import Structure, from_ase, load_structure

from .runs import ethanol_in_water, write_run
from .test_solvation import chain

FRAMES = 41


def shaken(structure: Structure, frames: int = FRAMES, by: float = 1e-4) -> np.ndarray:
    """Frames (nm) whose coordinates differ at random from the structure's."""
    noise = np.random.default_rng(1).normal(0, by, (frames, *structure.positions.shape))
    return structure.positions + noise


def made(analysis: Analysis) -> set[str]:
    return {picture.name for picture in analysis.pictures}


def test_the_summary_says_what_is_in_the_folder(tmp_path):
    structure = load_structure("ethanol")
    time = np.arange(FRAMES) * 0.005
    log = {"temperature_K": 250.0 + np.arange(FRAMES), "total_kJ_mol": -1000 + 0.5 * time}
    analysis = analyze(write_run(tmp_path / "run", structure, shaken(structure), log,
                                 ensemble="nve"))  # fmt: skip
    summary, results = analysis.summary, analysis.summary["results"]
    assert (summary["atoms"], summary["formula"], summary["frames"]) == (9, "C2H6O", FRAMES)
    assert summary["finished"] is True
    assert summary["time_ps"] == pytest.approx(0.2)
    assert summary["averages_from_ps"] == pytest.approx(0.04)
    assert results["temperature"]["value"] == pytest.approx(250 + np.arange(8, 41).mean())
    assert "remark" not in results["temperature"]  # no thermostat
    drift = results["total energy drift"]
    assert drift["value"] == pytest.approx(0.5 / 9 * 10.364270, rel=1e-3)  # kJ/mol in meV
    assert drift["unit"] == "meV/atom/ps"
    assert results["bond length C-C"]["value"] == pytest.approx(1.5113, abs=1e-3)
    assert {name for name in results if name.startswith("bond")} == {
        f"bond length {pair}" for pair in ("C-C", "C-H", "C-O", "H-O")
    }
    np.testing.assert_allclose(analysis.run.times, time)
    assert made(analysis) == {
        "rmsd", "radius_of_gyration", "rmsf", "torsions", "conformers", "sasa", "bonds", "energy",
        "temperature", "drift",
    }  # fmt: skip


def test_positions_come_back_in_angstrom(tmp_path):
    structure = load_structure("ethanol")
    run = write_run(tmp_path / "run", structure, shaken(structure, 400), {"step": np.arange(400)})
    found = analyze(run).summary["results"]["RMSD from the first frame"]["value"]
    # Two frames that each differ from the structure by 1e-3 Å per coordinate, less the six
    # rigid motions out of 27 coordinates.
    assert found == pytest.approx(1e-3 * np.sqrt(2 * 3 * 21 / 27), rel=0.15)


def test_a_torsion_that_turns_is_counted(tmp_path):
    # The hydroxyl group of ethanol: trans for the first 100 frames of 400, then gauche.
    structure = load_structure("ethanol")
    atoms = ase.Atoms([a.element.symbol for a in structure.topology.atoms()],
                      structure.positions * 10)  # fmt: skip
    frames = []
    for k in range(400):
        atoms.set_dihedral(0, 1, 2, 3, 180 if k < 100 else 65, indices=[3])
        frames.append(atoms.positions / 10)
    log = {"step": np.arange(400)}
    analysis = analyze(write_run(tmp_path / "run", structure, np.array(frames), log))
    results = analysis.summary["results"]
    assert results["trans share of C1-C2-O3-H4"]["value"] == pytest.approx(20 / 320)
    assert results["share of conformer 1"]["value"] == pytest.approx(300 / 320)
    assert results["share of conformer 1"]["remark"] == "65°"
    assert results["share of conformer 2"]["value"] == pytest.approx(20 / 320)


def test_averages_begin_where_production_does(tmp_path):
    structure = load_structure("ethanol")
    log = {"temperature_K": np.concatenate([np.full(20, 50.0), 300 + np.arange(30) % 2])}
    analysis = analyze(write_run(tmp_path / "run", structure, shaken(structure, 30), log))
    assert analysis.summary["averages_from_ps"] == 0.0
    assert analysis.summary["results"]["temperature"]["value"] == pytest.approx(300.5)
    assert len(analysis.run.production["step"]) == 30
    with pytest.raises(InputError, match="has 0 rows so far"):
        analyze(write_run(tmp_path / "heating", structure, shaken(structure, 0), log))


def test_the_region_of_a_mixed_system_comes_first(tmp_path):
    structure = ethanol_in_water()
    frames = shaken(structure)
    # Split the molecules across the box, in every frame elsewhere: nothing may change.
    away = np.random.default_rng(2).integers(-1, 2, frames.shape) * np.diag(structure.box)
    folder = write_run(tmp_path / "run", structure, frames + away, {"step": np.arange(FRAMES)},
                       region=list(range(9)))  # fmt: skip
    analysis = analyze(folder)
    assert [section.title for section in analysis.sections] == [
        "The ML region", "Around the ML region", "The solvent", "Energy and temperature",
    ]  # fmt: skip
    assert analysis.summary["composition"] == "C2H6O + 40 H2O"
    region = analysis.summary["ml_region"]
    assert (region["formula"], region["atoms"]) == ("C2H6O", 9)
    alone = load_structure("ethanol")
    expected = analyze(write_run(tmp_path / "alone", alone, frames[:, :9],
                                 {"step": np.arange(FRAMES)})).summary["results"]  # fmt: skip
    found = analysis.summary["results"]
    for name in ("RMSD from the first frame", "radius of gyration", "RMSF of the atoms",
                 "solvent-accessible surface", "bond length C-O"):  # fmt: skip
        assert found[name]["value"] == pytest.approx(expected[name]["value"], rel=2e-3), name


def test_frames_of_the_region_alone_are_used_where_there_are_some(tmp_path):
    structure = ethanol_in_water(10)
    folder = write_run(
        tmp_path / "run", structure, shaken(structure), {"step": np.arange(FRAMES)},
        region=list(range(9)), force_field=["tip3p.xml"], ml_region="resname MOL",
        ml_trajectory_interval=5,
    )  # fmt: skip
    closer = shaken(structure, 2 * FRAMES - 1)[:, :9]
    part = mdtraj.Topology.from_openmm(structure.topology).subset(range(9))
    trajectory = mdtraj.Trajectory(closer, part)
    trajectory.unitcell_vectors = np.repeat(structure.box[None], len(closer), axis=0)
    trajectory.save_dcd(str(folder / "region.dcd"))
    positions, times = open_run(folder).frames
    np.testing.assert_allclose(times, np.arange(81) * 0.0025)
    moved = positions - positions.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(moved, 10 * (closer - closer.mean(axis=1, keepdims=True)), atol=1e-4)
    assert len(analyze(folder).run.times) == FRAMES


def test_water_around_the_region_is_counted(tmp_path):
    structure = ethanol_in_water()
    box = np.diag(structure.box)
    gap = structure.positions[9::3][None] - structure.positions[:3][:, None]
    gap -= np.round(gap / box) * box
    expected = int((np.linalg.norm(gap, axis=2).min(axis=0) < 0.35).sum())
    assert expected > 3
    run = write_run(tmp_path / "run", structure, shaken(structure, by=1e-6),
                    {"step": np.arange(FRAMES)}, region=list(range(9)))  # fmt: skip
    assert analyze(run).summary["results"]["waters next to it"]["value"] == expected


def test_hydrogen_bonds_have_a_figure(tmp_path):
    structure = ethanol_in_water()
    run = write_run(tmp_path / "run", structure, shaken(structure), {"step": np.arange(FRAMES)},
                    region=list(range(9)))  # fmt: skip
    analysis = analyze(run)
    results, pictures = analysis.summary["results"], {p.name: p for p in analysis.pictures}
    shown = pictures["hydrogen_bonds"].draw.keywords
    np.testing.assert_allclose(shown["times"], 0.005 * np.arange(8, FRAMES))
    for kind in ("given", "taken"):
        mean = results[f"hydrogen bonds to water, {kind}"]["value"]
        assert shown["counts"][kind].mean() == pytest.approx(mean)
    of_water = pictures["hydrogen_bonds_water"].draw.keywords["counts"]["given by a water"]
    mean = results["hydrogen bonds that a water gives"]["value"]
    assert of_water.mean() == pytest.approx(mean)
    assert mean > 0


def test_hydrogen_bonds_in_vacuum_are_counted(tmp_path):
    # Three waters in a row; in the second half of the frames the last one is far away.
    near, far = chain(3, 2.9)[0], chain(3, 2.9)[0]
    far[6:] += [5.0, 0, 0]
    structure = from_ase(ase.Atoms("OHHOHHOHH", near))
    frames = np.array([near] * 20 + [far] * 20) / 10
    run = write_run(tmp_path / "run", structure, frames, {"step": np.arange(50)})
    analysis = analyze(run)
    assert analysis.summary["results"]["hydrogen bonds inside"]["value"] == pytest.approx(1.5)
    (picture,) = [p for p in analysis.pictures if p.name == "hydrogen_bonds_inside"]
    assert picture.draw.keywords["counts"]["inside"].tolist() == [2] * 20 + [1] * 20
    alone = load_structure("ethanol")  # has one acceptor, which is the donor
    run = write_run(tmp_path / "alone", alone, shaken(alone), {"step": np.arange(FRAMES)})
    assert "hydrogen bonds inside" not in analyze(run).summary["results"]


def test_distributions_are_those_of_all_frames_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("openmm_nequip.analysis.folder._CHUNK", 5 * 129)
    structure = ethanol_in_water()
    frames = shaken(structure, FRAMES, by=0.02)
    folder = write_run(tmp_path / "run", structure, frames, {"step": np.arange(FRAMES)},
                       region=list(range(9)))  # fmt: skip
    topology = mdtraj.load_topology(folder / "topology.pdb")
    scale = np.linspace(0.95, 1.1, FRAMES)[:, None, None]
    trajectory = mdtraj.Trajectory(frames * scale, topology)
    trajectory.unitcell_vectors = structure.box * scale
    trajectory.save_dcd(str(folder / "trajectory.dcd"))
    (picture,) = [p for p in analyze(folder).pictures if p.name == "rdf_region"]
    r, g = picture.draw.keywords["curves"]["O-O(water)"]
    pairs = np.array([(2, k) for k in range(9, 129, 3)])
    half = 0.5 * 1.2 * 0.95
    expected = mdtraj.compute_rdf(trajectory[8:], pairs, (0, half), n_bins=len(r))
    np.testing.assert_allclose(r, 10 * expected[0], rtol=1e-5)
    np.testing.assert_allclose(g, expected[1], rtol=1e-5)


def test_water_with_a_virtual_site_is_one_molecule(tmp_path):
    structure = ethanol_in_water(30)
    topology, old = app.Topology(), list(structure.topology.residues())
    chain, places, positions = topology.addChain(), {}, []
    for residue in old:
        new = topology.addResidue(residue.name, chain)
        for atom in residue.atoms():
            places[atom] = topology.addAtom(atom.name, atom.element, new)
            positions.append(structure.positions[atom.index])
        if residue.name == "HOH":
            topology.addAtom("M", None, new)
            positions.append(positions[-3] + 0.01)
    for first, second in structure.topology.bonds():
        topology.addBond(places[first], places[second])
    topology.setPeriodicBoxVectors(structure.topology.getPeriodicBoxVectors())
    four = Structure(topology, np.array(positions), structure.box)
    folder = write_run(tmp_path / "run", four, shaken(four), {"step": np.arange(FRAMES)},
                       region=list(range(9)))  # fmt: skip
    analysis = analyze(folder)
    assert analysis.summary["composition"] == "C2H6O + 30 H2O"
    assert set(scene(analysis.run)["elements"][9:]) == {"O", "H"}


@pytest.mark.parametrize("size", [1, 2, 3])
def test_small_molecules_are_no_special_case(tmp_path, size):
    atoms = ase.build.molecule("H2O")[:size]
    structure = from_ase(atoms)
    folder = write_run(tmp_path / "run", structure, shaken(structure), {"step": np.arange(FRAMES)})
    analysis = analyze(folder)
    assert scene(analysis.run)["kinds"] == [0] * size
    assert ("RMSD from the first frame" in analysis.summary["results"]) == (size > 2)


def test_a_liquid_has_no_molecule_in_the_focus(tmp_path):
    structure = ethanol_in_water(60)
    water = ase.Atoms([a.element.symbol for a in structure.topology.atoms()][9:],
                      structure.positions[9:] * 10, cell=structure.box * 10, pbc=True)  # fmt: skip
    structure = from_ase(water)
    rng = np.random.default_rng(3)
    # Each molecule walks at random by steps of 0.1 Å per direction every 0.1 ps: D = 0.05 Å²/ps.
    walk = np.cumsum(rng.normal(0, 0.01, (2000, 60, 1, 3)), axis=0).repeat(3, axis=2)
    frames = structure.positions + walk.reshape(2000, 180, 3)
    run = write_run(tmp_path / "run", structure, frames, {"step": np.arange(2000)}, timestep=10.0,
                    ensemble="npt")  # fmt: skip
    analysis = analyze(run)
    assert [s.title for s in analysis.sections] == [
        "All atoms", "The liquid", "Energy and temperature"
    ]  # fmt: skip
    found = analysis.summary["results"]["diffusion coefficient of the water"]
    assert found["unit"] == "10⁻⁹ m²/s"
    oxygens = 10 * frames[400:, ::3]  # Å
    moved = oxygens - oxygens.mean(axis=1, keepdims=True)
    direct = diffusion_coefficient(moved, spacing=0.1, fit_from=1.0)
    assert found["value"] == pytest.approx(10 * direct.value, rel=2e-4)
    assert found["error"] == pytest.approx(10 * direct.error, rel=2e-4)
    assert abs(found["value"] - 0.5) < 4 * found["error"]
    assert found["error"] < 0.05
    assert {"rdf", "diffusion", "density"} <= made(analysis)


def test_diffusion_is_that_of_all_molecules_where_some_are_followed(tmp_path, monkeypatch):
    structure = ethanol_in_water(60)
    water = ase.Atoms([a.element.symbol for a in structure.topology.atoms()][9:],
                      structure.positions[9:] * 10, cell=structure.box * 10, pbc=True)  # fmt: skip
    structure = from_ase(water)
    steps = np.random.default_rng(4).normal(0, 0.01, (4000, 60, 1, 3))
    steps -= steps.mean(axis=1, keepdims=True)  # the liquid rests
    walk = np.cumsum(steps, axis=0).repeat(3, axis=2).reshape(4000, 180, 3)
    run = write_run(tmp_path / "run", structure, structure.positions + walk,
                    {"step": np.arange(4000)}, timestep=10.0)  # fmt: skip
    oxygens = np.arange(0, 180, 3)
    found = []
    for seed in range(12):  # with 4 of 60, a quarter would be missing
        some = np.sort(np.random.default_rng(seed).choice(oxygens, 4, replace=False))
        found.append(surroundings._diffusion(open_run(run), list(some[:, None]), 60).value)
    everything = surroundings._diffusion(open_run(run), list(oxygens[:, None]), 60).value
    error = np.std(found, ddof=1) / np.sqrt(12)
    assert error < 0.05 * everything
    assert abs(np.mean(found) - everything) < 3 * error


@pytest.mark.parametrize("cells", [2, 3])
def test_a_crystal_is_no_molecule(tmp_path, cells):
    """Of silicon: bonds lead back to an atom's own image."""
    atoms = ase.build.bulk("Si", cubic=True).repeat(cells)
    structure = from_ase(atoms)
    frames = shaken(structure, by=0.003)
    analysis = analyze(write_run(tmp_path / "run", structure, frames, {"step": np.arange(FRAMES)}))
    assert len(analysis.run.solute) == 0
    results = analysis.summary["results"]
    assert results["bond length Si-Si"]["value"] == pytest.approx(2.352, abs=0.01)
    assert "rdf" in made(analysis)
    assert not {"radius of gyration", "solvent-accessible surface"} & set(results)


def test_a_molecule_across_the_border_of_the_box_is_no_crystal(tmp_path):
    molecule = ase.build.molecule("C6H6")
    molecule.set_cell([9.0] * 3)
    molecule.pbc = True
    molecule.positions += 8.0
    molecule.wrap()
    structure = from_ase(molecule)
    run = open_run(write_run(tmp_path / "run", structure, shaken(structure),
                             {"step": np.arange(FRAMES)}))  # fmt: skip
    assert len(run.solute) == 12


def test_molecules_diffuse_as_their_centre_of_mass(tmp_path):
    """Hydrogen chloride in a box: the centre walks, and the molecule turns about it quickly."""
    rng = np.random.default_rng(5)
    count, steps = 64, 3000
    grid = 5.0 * np.stack(np.meshgrid(*[np.arange(4)] * 3), -1).reshape(-1, 1, 3)
    stick = np.array([[0.0, 0, 0], [1.27, 0, 0]]) - [[1.27 * 1.008 / 36.458, 0, 0]]
    atoms = ase.Atoms("ClH" * count, (grid + stick).reshape(-1, 3), cell=[20.0] * 3, pbc=True)
    walk = np.cumsum(rng.normal(0, 0.1, (steps, count, 1, 3)), axis=0)  # 0.05 Å²/ps
    axes = rng.normal(size=(steps, count, 1, 3))
    axes /= np.linalg.norm(axes, axis=-1, keepdims=True)
    lengths = np.array([-1.27 * 1.008 / 36.458, 1.27 * (1 - 1.008 / 36.458)])
    frames = grid + walk + axes * lengths[:, None]
    structure = from_ase(atoms)
    run = write_run(tmp_path / "run", structure, frames.reshape(steps, -1, 3) / 10,
                    {"step": np.arange(steps)}, timestep=10.0)  # fmt: skip
    results = analyze(run).summary["results"]
    found = results["diffusion coefficient of HCl"]
    assert abs(found["value"] - 0.5) < 4 * found["error"]
    assert found["error"] < 0.05


def test_each_kind_of_molecule_diffuses_by_itself(tmp_path):
    atoms = ase.Atoms()
    for k, name in enumerate(["N2", "CO"] * 32):
        molecule = ase.build.molecule(name)
        molecule.positions += 4.0 * np.array([k % 4, k // 4 % 4, k // 16])
        atoms += molecule
    atoms.set_cell([16.0] * 3)
    atoms.pbc = True
    structure = from_ase(atoms)
    slow_and_fast = np.tile([0.01, 0.01, 0.02, 0.02], 32)[None, :, None]
    steps = np.random.default_rng(6).normal(0, 1, (2000, 64, 3)).repeat(2, axis=1)
    frames = structure.positions + np.cumsum(steps * slow_and_fast, axis=0)
    run = write_run(tmp_path / "run", structure, frames, {"step": np.arange(2000)}, timestep=10.0)
    analysis = analyze(run)
    for name, value in (("N2", 0.5), ("CO", 2.0)):
        found = analysis.summary["results"][f"diffusion coefficient of {name}"]
        assert abs(found["value"] - value) < 4 * found["error"]
    assert {"diffusion_N2", "diffusion_CO"} <= made(analysis)


def test_a_ligand_at_the_end_of_a_long_molecule_stays_there(tmp_path):
    """Its nearest image is beside the end, not beside the middle."""
    chain_atoms = [[1.5 * k, 0.0, 0.0] for k in range(13)]
    ligand = np.array([[20.5, 1.5, 0], [21.7, 1.5, 0]])
    atoms = ase.Atoms("C13N2", [*chain_atoms, *ligand], cell=[26.0, 15, 15], pbc=True)
    structure = from_ase(atoms)
    for shift in (0.0, 5.0, 8.0):
        moved = structure.positions + np.array([shift / 10, 0, 0])
        wrapped = moved - np.floor(moved / [2.6, 1.5, 1.5]) * [2.6, 1.5, 1.5]
        frames = np.repeat(wrapped[None], 5, axis=0)
        run = open_run(write_run(tmp_path / f"{shift}", structure, frames, {"step": np.arange(5)}))
        xyz = run.trajectory.xyz[-1] * 10
        np.testing.assert_allclose(xyz[13] - xyz[12], [2.5, 1.5, 0], atol=1e-3)


@pytest.mark.parametrize("shape", ["cube", "dodecahedron", "octahedron"])
def test_the_shortest_image(shape):
    box = 3.0 * SHAPES[shape]
    vectors = np.random.default_rng(0).uniform(-8, 8, (200, 3))
    images = np.array(list(itertools.product(range(-5, 6), repeat=3))) @ box
    expected = np.linalg.norm(vectors[:, None] + images, axis=-1).min(axis=1)
    np.testing.assert_allclose(np.linalg.norm(shortest(vectors, box), axis=1), expected, rtol=1e-9)
    boxes = np.repeat(box[None], 200, axis=0)
    np.testing.assert_allclose(shortest(vectors, boxes), shortest(vectors, box), atol=1e-9)


def methanol(count: int) -> ase.Atoms:
    """Molecules on a grid in a box, Å."""
    molecules = ase.build.molecule("CH3OH")
    molecules.set_cell([4.5] * 3)
    box = molecules.repeat((count, count, count))
    box.pbc = True
    return box


def test_a_solvent_other_than_water_does_not_cover_the_region(tmp_path):
    box = methanol(3)
    ethanol = ase.build.molecule("CH3CH2OH")
    alone = from_ase(ethanol)
    ethanol.positions += box.cell.lengths() / 2 - ethanol.positions.mean(axis=0)
    gaps = distance.cdist(box.positions, ethanol.positions).min(axis=1).reshape(-1, 6).min(axis=1)
    around = np.flatnonzero(gaps > 1.8)
    atoms = ethanol + box[(6 * around[:, None] + np.arange(6)).ravel()]
    atoms.set_cell(box.cell)
    atoms.pbc = True
    assert len(around) > 15
    areas = []
    for name, structure, region in (
        ("liquid", from_ase(atoms), None),
        ("mixed", from_ase(atoms), list(range(9))),
        ("alone", alone, None),
    ):
        run = write_run(tmp_path / name, structure, structure.positions[None].repeat(12, axis=0),
                        {"step": np.arange(12)}, region=region)  # fmt: skip
        opened = open_run(run)
        assert opened.focus.tolist() == list(range(9))
        assert len(opened.solute) == 9
        areas.append(analyze(run).summary["results"]["solvent-accessible surface"]["value"])
    assert areas[0] == pytest.approx(areas[2], rel=1e-3)
    assert areas[1] == pytest.approx(areas[2], rel=1e-3)


def test_a_liquid_has_no_distance_from_its_first_frame(tmp_path):
    structure = from_ase(methanol(3))
    run = write_run(tmp_path / "run", structure, structure.positions[None].repeat(12, axis=0),
                    {"step": np.arange(12)})  # fmt: skip
    analysis = analyze(run)
    assert analysis.sections[0].title == "All atoms"
    assert "RMSD from the first frame" not in analysis.summary["results"]
    assert "bond length C-O" in analysis.summary["results"]


@pytest.mark.parametrize("ensemble", ["nve", "npt"])
def test_figures_and_summaries_are_written(tmp_path, ensemble):
    structure = load_structure("ethanol") if ensemble == "nve" else ethanol_in_water(10)
    folder = write_run(tmp_path / "run", structure, shaken(structure), {"step": np.arange(FRAMES)},
                       ensemble=ensemble)  # fmt: skip
    analysis = analyze(folder)
    plots = save_plots(analysis.title, analysis.pictures, folder / "plots")
    save_summary(analysis, plots)
    assert {path.stem for path in plots} == {"overview", *made(analysis)}
    assert ("drift" in made(analysis), "density" in made(analysis)) == (
        ensemble == "nve", ensemble == "npt",
    )  # fmt: skip
    for path in plots:
        assert (np.asarray(Image.open(path).convert("L")) < 128).any()
    assert json.loads((folder / "summary.json").read_text()) == analysis.summary
    text = (folder / "summary.md").read_text()
    assert "plots/overview.png" in text
    assert "made-up" in text
    assert ("thermostat 300 K" in text) == (ensemble != "nve")
    assert table(analysis.summary)[0] == ("system", f"{analysis.run.composition}, "
                                          f"{analysis.summary['atoms']} atoms")  # fmt: skip


def test_a_row_in_the_writing_is_left_out(tmp_path):
    structure = load_structure("ethanol")
    path = write_run(tmp_path / "run", structure, shaken(structure), {"step": np.arange(FRAMES)})
    path /= "state.csv"
    for unfinished in ("410,0.20", "410,0.205,-1000,20,-980,300,3"):
        whole = path.read_text()
        path.write_text(whole + unfinished)
        assert read_log(path)["step"][-1] == FRAMES - 1
        path.write_text(whole)


def test_a_potential_that_was_not_evaluated_has_no_energy(tmp_path):
    structure = ethanol_in_water(10)
    log = {"ml_potential_kJ_mol": np.full(FRAMES, np.nan), "dE_dlambda_kJ_mol": np.arange(FRAMES)}
    folder = write_run(tmp_path / "run", structure, shaken(structure), log, region=list(range(9)),
                       force_field=["tip3p.xml"], ml_region="resname MOL",
                       lambda_interpolate=0.0)  # fmt: skip
    (folder / "log.txt").write_text("what was done\n")
    for missing in ("nan", ""):
        text = (folder / "state.csv").read_text().replace("nan", missing)
        (folder / "state.csv").write_text(text)
        analysis = analyze(folder)
        assert "potential energy of the ML region" not in analysis.summary["results"]
        assert "ml_energy" not in made(analysis)
        assert analysis.summary["results"]["dE/dλ"]["value"] == np.arange(FRAMES)[8:].mean()
        assert "NaN" not in json.dumps(analysis.summary)
        save_report(analysis)


def test_not_a_run_folder_is_one_clear_line(tmp_path):
    with pytest.raises(InputError, match="not a run folder"):
        analyze(tmp_path)
    structure = load_structure("ethanol")
    folder = write_run(tmp_path / "run", structure, shaken(structure), {"step": np.arange(FRAMES)})
    (folder / "trajectory.dcd").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"cannot read '.*trajectory.dcd'"):
        analyze(folder)
    (folder / "trajectory.dcd").unlink()
    with pytest.raises(InputError, match="no trajectory"):
        analyze(folder)


@pytest.mark.parametrize("suffix", ["dcd", "xtc", "h5"])
def test_files_of_different_runs_are_not_taken_together(tmp_path, suffix):
    if suffix == "h5":
        pytest.importorskip("tables")
    steps = {"step": np.arange(FRAMES)}
    for name in ("ethanol", "water"):
        structure = load_structure(name)
        write_run(tmp_path / name, structure, shaken(structure), steps, trajectory=suffix)
    folder = tmp_path / "ethanol"
    found = mdtraj.load(folder / "trajectory.dcd", top=folder / "topology.pdb")
    (tmp_path / "water/trajectory.dcd").unlink()
    found.save(str(tmp_path / f"water/trajectory.{suffix}"))
    with pytest.raises(InputError, match="has 9 atoms and the topology beside it 3"):
        analyze(tmp_path / "water")


def test_a_damaged_log_is_one_clear_line(tmp_path):
    structure = load_structure("ethanol")
    folder = write_run(tmp_path / "run", structure, shaken(structure), {"step": np.arange(FRAMES)})
    for text in ("foo,bar\n", "foo,bar\n1,2\n3,4\n5,6\n", "time_ps\n1\nx\n"):
        (folder / "state.csv").write_text(text)
        with pytest.raises(InputError, match=r"state.csv' is damaged"):
            analyze(folder)


@pytest.mark.parametrize(("equilibration", "first"), [(40, 0), (0, FRAMES // 5)])
def test_averages_leave_out_a_fifth_unless_there_was_an_equilibration(
    tmp_path, equilibration, first
):
    structure = load_structure("ethanol")
    steps = {"step": 10 * (np.arange(FRAMES + 8) - 8)}
    times = {"heating": 80 - equilibration, "equilibration": equilibration}
    run = open_run(write_run(tmp_path / "run", structure, shaken(structure), steps, **times))
    assert run.steady(FRAMES) == first


def test_a_long_trajectory_is_thinned(tmp_path, monkeypatch):
    monkeypatch.setattr("openmm_nequip.analysis.folder._MOST_COORDINATES", 9 * 10)
    structure = load_structure("ethanol")
    run = open_run(write_run(tmp_path / "run", structure, shaken(structure),
                             {"step": np.arange(FRAMES)}))  # fmt: skip
    assert len(run.trajectory) == 9  # every fifth of 41
    np.testing.assert_allclose(run.times, np.arange(9) * 5 * 0.005)


@pytest.mark.parametrize("suffix", ["dcd", "xtc", "h5"])
def test_every_format_is_read_in_pieces(tmp_path, suffix):
    if suffix == "h5":
        pytest.importorskip("tables")
    structure = ethanol_in_water(10)
    frames = shaken(structure, by=0.01)
    folder = write_run(tmp_path / "run", structure, frames, {"step": np.arange(FRAMES)},
                       region=list(range(9)), trajectory=suffix)  # fmt: skip
    if suffix != "dcd":
        whole = mdtraj.load(folder / "trajectory.dcd", top=folder / "topology.pdb")
        whole.save(str(folder / f"trajectory.{suffix}"))
        (folder / "trajectory.dcd").unlink()
    run = open_run(folder)
    assert run.num_frames == FRAMES
    positions, boxes = (np.concatenate(part) for part in zip(*run.chunks(10), strict=True))
    np.testing.assert_allclose(positions, 10 * frames[8::4], atol=1.1e-2)  # 9 of 33 steady ones
    np.testing.assert_allclose(boxes, 10 * structure.box[None].repeat(9, axis=0), rtol=1e-6)
    part = run.load(np.arange(9, 15), stride=5)
    np.testing.assert_allclose(part.xyz, frames[::5, 9:15], atol=1.1e-3)
    assert len(scene(run)["frames"]) == 40


def test_topology_may_be_mmcif(tmp_path):
    from openmm import unit

    structure = ethanol_in_water(10)
    folder = write_run(tmp_path / "run", structure, shaken(structure), {"step": np.arange(FRAMES)},
                       region=list(range(9)))  # fmt: skip
    (folder / "topology.pdb").unlink()
    with (folder / "topology.cif").open("w") as file:
        app.PDBxFile.writeFile(structure.topology, structure.positions * unit.nanometer, file)
    assert analyze(folder).summary["composition"] == "C2H6O + 10 H2O"
