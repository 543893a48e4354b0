"""The readers on published data sets."""

import numpy as np
import pytest

from openmm_nequip.data.readers import read_frames
from openmm_nequip.data.splits import check_duplicates
from openmm_nequip.data.statistics import compute_statistics
from openmm_nequip.errors import InputError
from tests.conftest import ReferenceData

KCAL = 4.184 / 96.48533212


@pytest.mark.parametrize(
    ("file", "count", "atoms", "periodic"),
    [
        ("3bpa/train_300K.xyz", 500, 27, False),
        ("acac/train_600K.xyz", None, 15, False),
        ("ethanol_ccsdt/ethanol_800.xyz", 800, 9, False),
        ("lips/lips_700.xyz", 700, 83, True),
        ("water_pbe0/data_0.xyz", None, 192, True),
        ("sio2/SiO2_150.xyz", 150, 72, True),
        ("silicon/si_test.xyz", 25, None, True),
    ],
)
def test_extxyz(reference_data, file, count, atoms, periodic):
    data = read_frames(reference_data / file, index=slice(0, count and min(count, 50)))
    assert not data.bad
    for frame in data:
        assert atoms in (None, len(frame))
        assert (frame.cell is not None) == periodic
        assert frame.energy < 0
        net = np.abs(frame.forces.sum(axis=0)).max()
        assert net < 0.05 * len(frame)
    if not file.startswith("sio2"):
        assert all(frame.stress is None for frame in data)


def test_stress_of_nine_numbers(reference_data):
    frame = read_frames(reference_data / "sio2/SiO2_150.xyz", index=slice(0, 1))[0]
    expected = [
        [-0.02823817937514001, -0.012231981694629478, -0.005702077365548219],
        [-0.012231981694629478, -0.0380444601705254, 0.007109014563804663],
        [-0.005702077365548219, 0.007109014563804663, -0.036015619681097934],
    ]
    np.testing.assert_allclose(frame.stress, expected, rtol=1e-12)


def test_rmd17(reference_data):
    path = reference_data / "rmd17/rmd17_ethanol_train_01.npz"
    data = read_frames(path)
    raw = np.load(path)
    assert len(data) == 1000
    np.testing.assert_allclose(data[7].energy, raw["energies"][7] * KCAL, rtol=1e-12)
    np.testing.assert_allclose(data[7].forces, raw["forces"][7] * KCAL, rtol=1e-12)


def test_rmd17_train_and_test_share_nothing(reference_data):
    sets = {
        name: read_frames(reference_data / f"rmd17/rmd17_ethanol_{name}_01.npz")
        for name in ("train", "test")
    }
    assert check_duplicates(sets) == []
    with pytest.raises(InputError, match="1000 configurations are in more than one set"):
        check_duplicates({"train": sets["test"], "test": sets["test"]})


def test_isolated_atoms(reference_data):
    frames = read_frames(reference_data / "3bpa/train_300K.xyz", index=slice(0, 20))
    atoms = read_frames(reference_data / "3bpa/iso_atoms.xyz")
    statistics = compute_statistics(frames, ["H", "C", "N", "O"], 4.5, isolated_atoms=atoms)
    assert statistics.reference_source == "isolated atoms"
    np.testing.assert_allclose(statistics.reference_energies["N"], -1484.9814568572233)
    assert 3 < statistics.energy_rms_per_atom < 8  # atomisation energy of an organic molecule


def test_comp6(reference_data):
    path = reference_data / "s66x8/s66x8_wb97x6-31gd.h5"
    with pytest.raises(InputError, match="units of the file are not known"):
        read_frames(path)
    data = read_frames(path, energy_unit="Hartree", length_unit="Å")
    assert len(data) == 528
    assert data[0].numbers.tolist() == [8, 1, 1, 8, 1, 1]
    np.testing.assert_allclose(data[0].energy, -152.788 * 27.2114, rtol=1e-5)


@pytest.mark.parametrize(
    "name", ["des-monomers", "solvated-amino-acids", "water", "water60", "amino-acid-ligand-test"]
)
def test_spice_conformations(reference_data, name):
    path = reference_data / f"spice_conformations/{name}.hdf5"
    data = read_frames(path, require=(), index=slice(0, 30), on_bad="skip")
    assert data.units.length.name == "nm"
    assert data.units.length.origin == "file attribute"
    assert len(data.frames) + len(data.bad) == 30
    frame = data[0]
    distances = np.linalg.norm(frame.positions[:, None] - frame.positions, axis=-1)
    closest = distances[distances > 0].min()
    assert 0.8 < closest < 2.1  # a bond, in Å
    with pytest.raises(InputError, match="no energy"):
        read_frames(path)


def test_what_is_not_there_is_named(tmp_path):
    (tmp_path / "rmd17").mkdir()
    (tmp_path / "rmd17/here.npz").touch()
    data = ReferenceData(tmp_path)
    assert data / "rmd17/here.npz" == tmp_path / "rmd17/here.npz"
    assert data.with_all("rmd17", "rmd17/here.npz") == tmp_path
    for ask in (data.__truediv__, lambda name: data.with_all("rmd17", name)):
        with pytest.raises(pytest.skip.Exception, match=rf"no vasp/OUTCAR in {tmp_path} \(set"):
            ask("vasp/OUTCAR")
