"""Splits: what is drawn, what is recorded, what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest

from openmm_nequip.data.fingerprint import fingerprint, geometry_hash
from openmm_nequip.data.splits import Duplicate, Split, check_duplicates, is_split, split_frames
from openmm_nequip.data.store import StoreDataset, write_store
from openmm_nequip.errors import InputError

from .make import frames

DATA = frames(20)


def test_numbers():
    split = split_frames(DATA, 10, 4, 3, seed=1)
    assert [len(split.train), len(split.val), len(split.test)] == [10, 4, 3]
    assert len({*split.train, *split.val, *split.test}) == 17
    assert split == split_frames(DATA, 10, 4, 3, seed=1)
    assert split.train != split_frames(DATA, 10, 4, 3, seed=2).train
    assert split.train == split_frames(DATA, 10, 2, 5, seed=1).train
    assert split.seed == 1
    assert split.fingerprint == fingerprint(DATA)


def test_fractions_and_rest():
    split = split_frames(DATA, 0.5, 0.1, "rest")
    assert [len(split.train), len(split.val), len(split.test)] == [10, 2, 8]
    split = split_frames(DATA, "rest", 4)
    assert [len(split.train), len(split.val), len(split.test)] == [16, 4, 0]
    assert len(split_frames(DATA, 1.0).train) == 20
    split = split_frames(DATA[:15], 0.8, 0.1, 0.1)  # 12, 1.5 and 1.5
    assert [len(split.train), len(split.val), len(split.test)] == [12, 2, 1]
    assert len(split_frames(DATA, 1).train) == 1


@pytest.mark.parametrize("kind", ["npz", "json", "txt", "list"])
def test_index_files(tmp_path, kind):
    path = tmp_path / f"split.{kind}"
    wanted = {"train": [3, 1, 4], "val": [5, 9]}
    train = val = path
    if kind == "npz":
        np.savez(path, train=wanted["train"], validation=wanted["val"])
    elif kind == "json":
        path.write_text(json.dumps(wanted))
    elif kind == "txt":
        path.write_text("3\n1 4\n")
        val = wanted["val"]
    else:
        train, val = wanted["train"], wanted["val"]
    split = split_frames(DATA, train, val, "rest")
    assert split.train == wanted["train"]
    assert split.val == wanted["val"]
    assert split.test == sorted({*range(20)} - {1, 3, 4, 5, 9})
    assert split_frames(DATA, train, val).seed is None


def test_recorded(tmp_path):
    split = split_frames(DATA, 5, 5)
    split.save(tmp_path / "split.json")
    split.save(tmp_path / "split.json")
    assert Split.load(tmp_path / "split.json") == split
    assert [path.name for path in tmp_path.iterdir()] == ["split.json"]
    with pytest.raises(InputError, match="already holds another split"):
        split_frames(DATA, 6, 5).save(tmp_path / "split.json")
    again = split_frames(DATA, tmp_path / "split.json", tmp_path / "split.json")
    assert again.train == split.train
    split.check(DATA)
    with pytest.raises(InputError, match="belongs to other data"):
        split.check([*DATA[:-1], replace(DATA[-1], energy=-1.0)])


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ((21,), "train: 21 frames asked for, 20 of 20 are left"),
        ((15, 6), "val: 6 frames asked for, 5 of 20 are left"),
        ((0,), "the training set is empty"),
        ((1.5,), "neither a number of frames nor a fraction"),
        ((-1,), "neither a number of frames nor a fraction"),
        ((True,), "not a number of frames"),
        (([0, 20],), "index 20 is out of range, there are 20 frames"),
        (([0, 0],), "index 0 occurs more than once"),
        (([0, 1], [1, 2]), "frame 1 is in both train and val"),
        ((["a"],), "must be a list of whole numbers"),
        (("rest", "rest"), "only one set can be 'rest'"),
        (("no.npz",), "index file 'no.npz' does not exist"),
    ],
)
def test_refused(sets, message):
    with pytest.raises(InputError, match=message):
        split_frames(DATA, *sets)


def test_bad_index_files(tmp_path):
    (tmp_path / "a.txt").write_text("1 two")
    with pytest.raises(InputError, match="whole numbers separated by white space"):
        split_frames(DATA, tmp_path / "a.txt")
    (tmp_path / "a.json").write_text('{"train": [1], "test": [2]}')
    with pytest.raises(InputError, match=r"no 'val' among its keys \(train, test\)"):
        split_frames(DATA, 1, tmp_path / "a.json")
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        split_frames(DATA, tmp_path / "b.json")
    with pytest.raises(InputError, match="not a split"):
        Split.load(tmp_path / "a.json")
    (tmp_path / "c.json").write_text("5")
    assert not is_split(tmp_path / "c.json")
    with pytest.raises(InputError, match="must be a list of whole numbers"):
        split_frames(DATA, tmp_path / "c.json")
    np.savez(tmp_path / "d.npz", train=[1, 2])
    whole = (tmp_path / "d.npz").read_bytes()
    for content in (b"1 2 3", b"", whole[: len(whole) // 2]):
        (tmp_path / "d.npz").write_bytes(content)
        with pytest.raises(InputError, match=r"d\.npz is not a readable \.npz file"):
            split_frames(DATA, tmp_path / "d.npz")


def test_duplicates_across_sets():
    data = [*DATA[:5], replace(DATA[0], energy=0.0, source="again")]
    sets = ([0, 1, 2], [5])
    with pytest.raises(InputError, match=r"1 configuration is in .* \(train 0 = val 5\)"):
        split_frames(data, *sets)
    with pytest.warns(UserWarning, match="train 0 = val 5"):
        split_frames(data, *sets, on_duplicates="warn")
    assert split_frames(data, *sets, on_duplicates="ignore").val == [5]
    assert split_frames(data, [0, 5], [1]).train == [0, 5]


def test_duplicates_between_files():
    sets = {"train": DATA[:5], "test": [DATA[7], DATA[3]]}
    with pytest.raises(InputError, match="train 3 = test 1"):
        check_duplicates(sets)
    with pytest.warns(UserWarning, match="train 3 = test 1"):
        assert check_duplicates(sets, "warn") == [Duplicate("train", 3, "test", 1)]
    assert check_duplicates({"train": DATA[:5], "test": DATA[5:]}) == []


def test_geometry_hash():
    frame = frames(1, periodic=True)[0]
    assert geometry_hash(frame) == geometry_hash(replace(frame, energy=0.0, forces=None))
    moved = frame.positions.copy()
    moved[0, 0] = np.nextafter(moved[0, 0], 1)
    others = [
        replace(frame, positions=moved),
        replace(frame, cell=frame.cell * 1.001),
        replace(frame, numbers=frame.numbers[::-1]),
        replace(frame, pbc=(True, True, False)),
        replace(frame, cell=None, pbc=(False,) * 3),
    ]
    assert len({geometry_hash(f) for f in [frame, *others]}) == 6
    zero = replace(frame, positions=np.zeros((3, 3)))
    assert geometry_hash(zero) == geometry_hash(replace(zero, positions=-np.zeros((3, 3))))


def test_fingerprint_sees_labels_and_order():
    data = frames(2, periodic=True)
    variants = [
        data,
        data[::-1],
        data[:1],
        [replace(data[0], energy=0.0), data[1]],
        [replace(data[0], forces=None), data[1]],
        [replace(data[0], stress=data[0].stress * 2), data[1]],
    ]
    assert len({fingerprint(v) for v in variants}) == 6
    assert fingerprint(data) == fingerprint(frames(2, periodic=True))


def test_store_splits_like_its_frames(tmp_path):
    write_store(DATA, tmp_path / "x.h5", ["H", "O"], 3.0)
    assert split_frames(StoreDataset(tmp_path / "x.h5"), 10, 5) == split_frames(DATA, 10, 5)
