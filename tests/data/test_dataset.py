"""Datasets, batches, stores and their cache."""

import pickle
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset

from openmm_nequip.data import dataset as module
from openmm_nequip.data.cache import cached_store
from openmm_nequip.data.dataset import FrameDataset, TypeMap, collate_batch
from openmm_nequip.data.fingerprint import fingerprint, geometry_hashes
from openmm_nequip.data.readers import iter_frames
from openmm_nequip.data.statistics import compute_statistics
from openmm_nequip.data.store import StoreDataset, write_store
from openmm_nequip.errors import InputError

from .make import extxyz, frames

ELEMENTS = ["H", "O"]


def mixed():
    """Return frames with and without a cell and each label."""
    made = [*frames(2, periodic=True), *frames(3, seed=1)]
    made[1] = replace(made[1], stress=None)
    made[2] = replace(made[2], forces=None)
    made[3] = replace(made[3], energy=None)
    return made


def assert_equal(a, b):
    for x, y in zip(a, b, strict=True):
        assert x.dtype == y.dtype
        assert x.shape == y.shape
        assert torch.equal(torch.nan_to_num(x, 7.0), torch.nan_to_num(y, 7.0))


def test_items():
    made = mixed()
    data = FrameDataset(made, ELEMENTS, 5.5)
    graph, targets = data[0]
    assert graph.types.tolist() == [1, 0, 0]
    assert graph.edge_index.shape[1] > 6  # images count
    assert targets.energy.tolist() == [made[0].energy]
    assert targets.num_atoms.tolist() == [3]
    np.testing.assert_array_equal(targets.forces.numpy(), made[0].forces)
    np.testing.assert_array_equal(targets.stress[0].numpy(), made[0].stress)
    assert targets.stress.dtype == targets.forces.dtype == targets.energy.dtype == torch.float64
    assert data[1][1].stress.isnan().all()
    assert data[2][1].forces.isnan().all()
    assert data[2][1].forces.shape == (3, 3)
    assert data[3][1].energy.isnan().all()
    assert data.fingerprint == fingerprint(made)


def test_neighbor_lists_are_computed_once(monkeypatch):
    calls = []
    original = module.make_graph
    monkeypatch.setattr(module, "make_graph", lambda *a: calls.append(1) or original(*a))
    data = FrameDataset(frames(3), ELEMENTS, 4.0)
    for _ in range(2):
        for k in range(3):
            data[k]
    assert len(calls) == 3
    longer = FrameDataset(data.frames, ELEMENTS, 0.5)
    assert longer[0][0].edge_index.shape[1] == 0
    assert data[0][0].edge_index.shape[1] == 6


def test_batches():
    data = FrameDataset(mixed(), ELEMENTS, 4.0)
    loader = DataLoader(data, batch_size=5, collate_fn=collate_batch)
    graph, targets = next(iter(loader))
    assert targets.energy.shape == (5,)
    assert targets.forces.shape == (15, 3)
    assert targets.stress.shape == (5, 3, 3)
    assert targets.num_atoms.tolist() == [3] * 5
    assert graph.batch.tolist() == np.repeat(np.arange(5), 3).tolist()
    assert graph.cell.shape == (5, 3, 3)
    assert torch.equal(targets.stress.isnan().any(-1).any(-1), torch.tensor([0, 1, 1, 1, 1]) > 0)
    assert torch.equal(targets.energy.isnan(), torch.tensor([0, 0, 0, 1, 0]) > 0)


def test_elements():
    with pytest.raises(InputError, match=r"made:0 contains O, .* not among the elements: H"):
        FrameDataset(frames(1), ["H"], 4.0)
    with pytest.raises(InputError, match="'Hh' is not a chemical symbol"):
        TypeMap(["Hh"])
    with pytest.raises(InputError, match="must differ"):
        TypeMap(["H", "H"])


def test_store_gives_the_same_items(tmp_path):
    made = mixed()
    memory = FrameDataset(made, ELEMENTS, 4.0)
    path = write_store(iter(made), tmp_path / "x.h5", ELEMENTS, 4.0)
    assert [p.name for p in tmp_path.iterdir()] == ["x.h5"]
    store = StoreDataset(path)
    assert len(store) == 5
    assert (store.elements, store.r_max) == (ELEMENTS, 4.0)
    for k in range(5):
        for ours, theirs in zip(store[k], memory[k], strict=True):
            assert_equal(ours, theirs)
    assert_equal(store[-1][0], memory[4][0])
    with pytest.raises(IndexError):
        store[5]
    assert store.fingerprint == fingerprint(made) == fingerprint(list(store.frames()))
    assert geometry_hashes(store) == geometry_hashes(made)
    assert store.frame(3).energy is None
    assert store.frame(2).forces is None
    assert store.frame(1).stress is None
    picked = compute_statistics(store.frames([0, 4]), ELEMENTS, 4.0)
    assert picked == compute_statistics([made[0], made[4]], ELEMENTS, 4.0)


def test_store_of_more_frames_than_its_buffer(tmp_path, monkeypatch):
    monkeypatch.setattr("openmm_nequip.data.store._BUFFERED_FRAMES", 3)
    made = frames(10)
    store = StoreDataset(write_store(made, tmp_path / "x.h5", ELEMENTS, 4.0))
    assert [store.frame(k).energy for k in range(10)] == [frame.energy for frame in made]
    assert_equal(store[7][0], FrameDataset(made, ELEMENTS, 4.0)[7][0])


@pytest.mark.parametrize("workers", [0, 2])
def test_store_in_a_loader(tmp_path, workers):
    made = frames(8)
    store = StoreDataset(write_store(made, tmp_path / "x.h5", ELEMENTS, 4.0))
    store[0]  # open in this process, too
    loader = DataLoader(
        Subset(store, [1, 3, 5, 7]), batch_size=2, collate_fn=collate_batch, num_workers=workers
    )
    energies = torch.cat([targets.energy for _, targets in loader])
    assert energies.tolist() == [made[k].energy for k in (1, 3, 5, 7)]
    assert pickle.loads(pickle.dumps(store))[2][1].energy.item() == made[2].energy


def test_store_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x.h5"

    def failing():
        yield from frames(2)
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError):
        write_store(failing(), path, ELEMENTS, 4.0)
    with pytest.raises(InputError, match="no frames"):
        write_store([], path, ELEMENTS, 4.0)
    assert list(tmp_path.iterdir()) == []
    write_store(frames(1), path, ELEMENTS, 4.0)
    with pytest.raises(InputError, match="exists already"):
        write_store(frames(1), path, ELEMENTS, 4.0)


def test_not_a_store(tmp_path, monkeypatch):
    import h5py

    path = tmp_path / "x.h5"
    with pytest.raises(InputError, match="does not exist"):
        StoreDataset(path)
    path.write_bytes(b"junk")
    with pytest.raises(InputError, match="not a readable HDF5 file"):
        StoreDataset(path)
    path.unlink()
    h5py.File(path, "w").close()
    with pytest.raises(InputError, match="not a store of frames"):
        StoreDataset(path)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match=r"pip install openmm-nequip\[train\]"):
        write_store(frames(1), tmp_path / "y.h5", ELEMENTS, 4.0)


def test_cache_follows_data_cutoff_and_options(tmp_path):
    path, folder = tmp_path / "data.xyz", tmp_path / "cache"
    path.write_text(extxyz(frames(3)))
    first = cached_store(path, folder, ELEMENTS, 4.0)
    written = first.path.stat().st_mtime_ns
    again = cached_store(path, folder, ELEMENTS, 4.0)
    assert again.path == first.path
    assert again.path.stat().st_mtime_ns == written
    assert "3 frames (extxyz), energies in eV" in again.summary
    others = [
        cached_store(path, folder, ELEMENTS, 0.5),
        cached_store(path, folder, ["O", "H"], 4.0),
        cached_store(path, folder, ELEMENTS, 4.0, energy_unit="kcal/mol"),
    ]
    path.write_text(extxyz(frames(3, seed=5)))
    others.append(cached_store(path, folder, ELEMENTS, 4.0))
    assert len({store.path for store in [first, *others]}) == 5
    assert others[0][0][0].edge_index.shape[1] == 0
    assert others[3].fingerprint != first.fingerprint


def test_bad_frames_are_kept_in_the_summary(tmp_path):
    path = tmp_path / "data.xyz"
    path.write_text(extxyz(frames(1)) + extxyz(frames(1)).replace("energy", "other"))
    stream = iter_frames(path, on_bad="skip")
    store = StoreDataset(write_store(stream, tmp_path / "x.h5", ELEMENTS, 4.0))
    assert "1 frames left out:\n  frame 1: no energy" in store.summary
