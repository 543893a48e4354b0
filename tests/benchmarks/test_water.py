"""The benchmark of liquid water: its measures, on liquids whose properties are known."""

import importlib.util
import json
import sys
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
from ase.build import molecule
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from openmm_nequip.architectures import Architecture
from openmm_nequip.errors import InputError
from openmm_nequip.potential import Potential

FOLDER = Path(__file__).parents[2] / "benchmarks/water"
BOX = 12.444661


@pytest.fixture(scope="module")
def scripts():
    """The two modules of the folder."""
    sys.path.append(str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location("water_evaluate", FOLDER / "evaluate.py")
        found = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found)
        yield found
    finally:
        sys.path.remove(str(FOLDER))
        sys.modules.pop("report", None)


@pytest.fixture
def report(scripts):
    return scripts.report


def liquid(frames: int, seed: int = 0) -> list[ase.Atoms]:
    """Water molecules on a lattice, turned and shaken at random; oxygen atoms first."""
    rng = np.random.default_rng(seed)
    single = molecule("H2O")
    rest = single.positions - single.positions[0]
    sites = (np.array(list(np.ndindex(4, 4, 4))) + 0.5) * BOX / 4
    found = []
    for _ in range(frames):
        turned = np.array([Rotation.random(rng=rng).apply(rest) for _ in sites])
        positions = turned + (sites + rng.normal(0, 0.15, sites.shape))[:, None]
        order = positions[:, 0], positions[:, 1:].reshape(-1, 3)
        found.append(ase.Atoms("O64H128", np.concatenate(order), cell=[BOX] * 3, pbc=True))
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder of reference data with lattices of water molecules and a made-up experiment."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "water_pbe0").mkdir()
    (folder / "water_rdf").mkdir()
    for k in range(2):
        ase.io.write(folder / f"water_pbe0/data_{k}.xyz", liquid(4, seed=k))
    r = np.arange(0, 10, 0.03)
    g = 1 - np.exp(-((r / 2.5) ** 6)) + 1.5 * np.exp(-(((r - 2.8) / 0.2) ** 2))
    columns = np.stack([r, g, 0.02 + 0 * r, g, 0.02 + 0 * r, g, 0.02 + 0 * r], axis=1)
    np.savetxt(folder / "water_rdf/soper2013_dist_funcs.txt", columns)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A potential that does next to nothing: molecules fly apart slowly."""
    import torch

    torch.manual_seed(0)
    network = Architecture(
        type_names=["H", "O"], r_max=3.0, num_layers=1, l_max=1, num_features=4,
        avg_num_neighbors=5.0, per_type_energy_scales=1e-4, per_type_energy_shifts=0.0,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("model") / "nothing.safetensors"
    Potential(network).save(path)
    return path


def test_structure_of_known_molecules(scripts):
    frames = liquid(3)
    found = scripts.structure(*scripts.coordinates(frames), scripts.bonds_of(frames[0]))
    bond = np.linalg.norm(molecule("H2O").positions[1] - molecule("H2O").positions[0])
    assert found["bond_A"]["mean"] == pytest.approx(bond, abs=1e-3)
    assert found["bond_A"]["std"] < 1e-3
    assert found["longest_bond_A"] == pytest.approx(bond, abs=1e-3)
    assert found["frames_with_broken_bonds"] == 0
    # Two hydrogen atoms at the bond length: 4πρ∫ g r² dr, ρ that of the hydrogen atoms.
    r, g = (np.array(found["rdf"]["O-H"][key]) for key in ("r_A", "g"))
    near = r < 1.2
    count = 4 * np.pi * 128 / BOX**3 * (g[near] * r[near] ** 2).sum() * scripts.BIN
    assert count == pytest.approx(2, rel=0.02)


def test_a_broken_bond_is_seen(scripts):
    frames = liquid(3)
    direction = frames[1].positions[64] - frames[1].positions[0]
    frames[1].positions[64] += 0.6 * direction / np.linalg.norm(direction)
    bonds = scripts.bonds_of(frames[0])
    found = scripts.structure(*scripts.coordinates(frames), bonds)
    assert found["frames_with_broken_bonds"] == 1
    assert found["longest_bond_A"] == pytest.approx(1.57, abs=0.01)
    frames[0].positions[64] += 5.0
    with pytest.raises(InputError, match="not of water molecules"):
        scripts.bonds_of(frames[0])


def test_difference_leaves_out_the_bonds(scripts):
    r = np.arange(0.025, 6.2, 0.05)
    one = {"r_A": r.tolist(), "g": np.ones_like(r).tolist()}
    other = {"r_A": r.tolist(), "g": np.where(r < 1.3, 20.0, 1.1).tolist()}
    assert scripts.difference(one, other, "O-H") == pytest.approx(0.1)


def test_extremum_lies_between_the_points(report):
    r = np.arange(2.0, 4.0, 0.05)
    curve = (r, 2.5 - 3 * (r - 2.763) ** 2)
    assert report.extremum(curve, (2.4, 3.2), True) == pytest.approx((2.763, 2.5))
    assert report.extremum(curve, (2.99, 3.5), True)[0] == pytest.approx(3.0)
    assert report.extremum((r, -curve[1]), (2.4, 3.2), False) == pytest.approx((2.763, -2.5))


def test_measured_properties_of_water(scripts, report):
    assert report.measured_diffusion(298.15) == pytest.approx(2.299, abs=0.01)
    assert report.measured_diffusion(323.15) == pytest.approx(3.956, abs=0.03)
    assert scripts.viscosity(298.15) == pytest.approx(0.890, rel=0.01)
    assert scripts.viscosity(323.15) == pytest.approx(0.547, rel=0.01)


def test_whole_evaluation(scripts, data, model, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENMM_NEQUIP_DATA", str(data))
    arguments = [str(model), "--time", "0.1", "--equilibration", "0.06", "--stresses", "3"]
    arguments += ["--output", str(tmp_path)]

    def call() -> str:
        outcome = CliRunner().invoke(scripts.app, arguments)
        assert outcome.exit_code == 0, outcome.output + str(outcome.exception)
        return outcome.output

    text = call()
    ((name, found),) = json.loads((tmp_path / "results.json").read_text()).items()
    assert (found["frames"], found["frames_with_broken_bonds"]) == (6, 6)
    assert found["time_ps"] == pytest.approx(0.1)
    assert found["density_g_mL"] == pytest.approx(0.993, abs=0.001)
    assert found["pressure_bar"]["frames"] == 3
    ideal = 191 * 1.380649e-23 * 330 / (BOX * 1e-10) ** 3 / 1e5  # its atoms feel next to nothing
    assert found["pressure_bar"]["value"] == pytest.approx(ideal, rel=0.01)
    assert found["diffusion"] is None
    assert "| diffusion in this box, 10⁻⁹ m²/s | too short |" in text
    assert (tmp_path / "table.md").read_text().startswith("|  | nothing, 330 K, 0.1 ps |")
    assert (tmp_path / "rdf.png").stat().st_size > 10_000
    before = (tmp_path / "results.json").read_bytes()
    monkeypatch.setattr(scripts, "run", None)
    assert f"{name} is finished" in call()
    assert (tmp_path / "results.json").read_bytes() == before


def test_diffusion_and_its_figure(scripts, tmp_path):
    frames = liquid(2)
    rng = np.random.default_rng(3)
    spread = np.sqrt(2 * 0.25 * scripts.FRAME)  # 0.25 Å²/ps are 2.5e-9 m²/s
    walk = np.cumsum(rng.normal(0, spread, (4000, 192, 3)), axis=0)
    numbers, positions, boxes = scripts.coordinates(frames)
    found = scripts._diffusion(numbers, positions[0] + walk, 300.0, BOX)
    # To be in the frame of the centre of mass takes off a little of independent walks.
    assert found["value"] == pytest.approx(2.5, abs=3 * found["error"] + 0.05)
    assert found["error"] < 0.2
    assert found["fit_ps"] == [1.0, 4.0]
    assert found["finite_size_correction"] == pytest.approx(0.59, abs=0.03)
    result = scripts.structure(numbers, positions, boxes, scripts.bonds_of(frames[0]))
    result |= {"diffusion": found, "model": "walk", "target_temperature_K": 300.0, "time_ps": 80.0}
    experiment = np.ones((100, 7)) * np.linspace(0, 8, 100)[:, None]
    paths = scripts.report.figures({"walk": result}, result, experiment, tmp_path)
    assert [path.name for path in paths] == ["rdf.png", "diffusion.png"]
    assert all(path.stat().st_size > 10_000 for path in paths)


def test_data_must_be_there(scripts, model, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENMM_NEQUIP_DATA", str(tmp_path))
    outcome = CliRunner().invoke(scripts.app, [str(model)])
    assert isinstance(outcome.exception, InputError)
    assert "with water_pbe0/ and water_rdf/" in str(outcome.exception)


def test_reference_frames_are_of_classical_nuclei(scripts, reference_data, monkeypatch):
    names = ("water_rdf", *(f"water_pbe0/data_{k}.xyz" for k in range(3)))
    monkeypatch.setenv("OPENMM_NEQUIP_DATA", str(reference_data.with_all(*names)))
    frames = scripts.reference_frames()
    assert len(frames) == 320
    found = scripts.structure(*scripts.coordinates(frames), scripts.bonds_of(frames[0]))
    # Zero-point motion would spread the bond by 0.07 Å.
    assert 0.02 < found["bond_A"]["std"] < 0.035
    assert found["frames_with_broken_bonds"] == 0
    curve = scripts.report._curve(found, "O-O")
    place, height = scripts.report.extremum(curve, (2.4, 3.2), True)
    assert place == pytest.approx(2.75, abs=0.06)
    assert 2.2 < height < 3.6
