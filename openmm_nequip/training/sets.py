"""Training, validation and test frames of a run, in memory or streamed from disk."""

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray
from torch.utils.data import Dataset, Subset

from ..data.cache import cached_store
from ..data.dataset import FrameDataset
from ..data.fingerprint import fingerprint
from ..data.frame import Frame
from ..data.readers import read_frames
from ..data.splits import Selection, Split, check_duplicates, is_split, split_frames
from ..data.statistics import is_isolated
from ..data.store import StoreDataset
from ..errors import InputError
from .config import DataConfig

_MIN_VALIDATION, _MAX_VALIDATION = 50, 1000
_MEMORY_PER_BYTE = 20  # what graphs of a data file take in memory, over its size


class StoredFrames:
    """Some of the frames of a store, read when they are needed."""

    def __init__(self, store: StoreDataset, indices: Sequence[int]):
        self.store = store
        self.indices = list(indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Frame]:
        return self.store.frames(self.indices)

    @property
    def geometry_hashes(self) -> NDArray[np.uint8]:
        """As of the store."""
        hashes: NDArray[np.uint8] = self.store.geometry_hashes[self.indices]
        return hashes

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the fingerprint of the store and the indices."""
        chosen = np.asarray(self.indices, dtype="<i8").tobytes()
        return hashlib.sha256(self.store.fingerprint.encode() + chosen).hexdigest()


FrameSet = list[Frame] | StoredFrames


@dataclass
class Sets:
    """The frames of a run.

    Attributes
    ----------
    train, val, test
        Frames of each set; the test set may be empty.
    isolated
        Isolated atoms of the training file and of that for them.
    splits
        How each file was split, by the name under which the split is recorded.
    """

    train: FrameSet
    val: FrameSet
    test: FrameSet
    isolated: list[Frame]
    splits: dict[str, Split]

    @property
    def sizes(self) -> dict[str, int]:
        """Number of frames of each set."""
        return {"train": len(self.train), "val": len(self.val), "test": len(self.test)}

    @property
    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of each set."""
        sets = {"train": self.train, "val": self.val, "test": self.test}
        return {name: fingerprint(frames) for name, frames in sets.items() if len(frames)}

    def elements_of(self, name: str) -> set[str]:
        """Chemical symbols in the frames of a set, ``'train'``, ``'val'`` or ``'test'``."""
        frames: FrameSet = getattr(self, name)
        if isinstance(frames, StoredFrames):
            return {chemical_symbols[z] for z in frames.store.numbers_of(frames.indices)}
        return _elements(frames)

    def elements(self) -> list[str]:
        """Chemical symbols of all frames, by atomic number."""
        symbols = self.elements_of("train") | self.elements_of("val") | self.elements_of("test")
        return sorted(symbols, key=chemical_symbols.index)


def make_dataset(
    frames: FrameSet, elements: Sequence[str], r_max: float, keep: bool = True
) -> Dataset[Any]:
    """Return frames as graphs for a potential with these elements and this cutoff.

    `keep` is that of `FrameDataset`: not for frames that are looked at once.
    """
    if isinstance(frames, StoredFrames):
        assert frames.store.r_max == r_max
        return Subset(frames.store.with_elements(elements), frames.indices)
    return FrameDataset(frames, elements, r_max, keep)


def has_labels(frames: FrameSet, label: str) -> bool:
    """Return whether any frame has ``'energy'``, ``'forces'`` or ``'stress'``."""
    if isinstance(frames, StoredFrames) and label != "forces":  # they are looked up frame by frame
        return frames.store.has(label, frames.indices)
    return any(getattr(frame, label) is not None for frame in frames)


def some_frames(frames: FrameSet, number: int, elements: set[str]) -> FrameSet:
    """Return frames with energies, drawn at random, in which all these elements occur."""
    source = frames.store if isinstance(frames, StoredFrames) else frames
    indices = frames.indices if isinstance(frames, StoredFrames) else list(range(len(frames)))
    chosen: list[int] = []
    missing = set(elements)
    for index in np.random.default_rng(0).permutation(indices).tolist():
        frame = source.frame(index) if isinstance(source, StoreDataset) else source[index]
        if frame.energy is None:
            continue
        added = missing & _elements([frame])
        if len(chosen) < number or added:
            chosen.append(index)
            missing -= added
        if len(chosen) >= number and not missing:
            break
    return _pick(source, sorted(chosen))


class Reader:
    """Reads the files of a `data` section, into memory or into a store on disk.

    Parameters
    ----------
    config
        The section.
    r_max
        Cutoff of the potential, Å.
    cache
        Folder for stores.
    say
        Prints what was read and in which units.
    """

    def __init__(
        self,
        config: DataConfig,
        r_max: float,
        cache: Path,
        say: Callable[[str], None],
    ):
        self.config = config
        self.r_max = r_max
        self.cache = cache
        self.say = say
        self._main = _as_list(config.file)
        groups = [g for g in (config.file, config.val_file, config.test_file) if g is not None]
        paths = [path for group in groups for path in _as_list(group)]
        self.streams = config.stream_from_disk
        if self.streams is None:
            self.streams = sum(map(_size, paths)) * _MEMORY_PER_BYTE > _memory()

    def read(self, paths: str | list[str]) -> Any:
        """Return the frames of one file, or of several: a list or a `StoreDataset`."""
        files = _as_list(paths)
        if self.streams:
            if len(files) > 1:
                raise InputError(
                    f"streaming from disk takes one file, not {len(files)}: join them, or set "
                    "data.stream_from_disk=false"
                )
            self.cache.mkdir(parents=True, exist_ok=True)
            with (self.cache / ".lock").open("w") as lock:  # one process writes, the others wait
                fcntl.flock(lock, fcntl.LOCK_EX)
                store = cached_store(
                    files[0], self.cache, None, self.r_max, **self.options(files[0])
                )
            self.say(f"{store.summary}\nstreamed from {store.path}")
            return store
        frames: list[Frame] = []
        for file in files:
            found = read_frames(file, **self.options(file))
            self.say(found.summary())
            frames += found
        return frames

    def options(self, path: str) -> dict[str, Any]:
        """Return the keywords of `read_frames` for a file.

        Format, units and keys are declared for `data.file`, and for others that end like it.
        """
        config = self.config
        found: dict[str, Any] = {"require": config.require, "on_bad": config.on_bad_frames}
        if path in self._main or Path(path).suffix == Path(self._main[0]).suffix:
            found |= {
                "format": config.format,
                "energy_unit": config.energy_unit,
                "length_unit": config.length_unit,
                "force_unit": config.force_unit,
                "keys": config.keys,
            }
        return found


def load_sets(reader: Reader, seed: int) -> Sets:
    """Read the files and divide them into training, validation and test frames.

    Raises
    ------
    InputError
        A file cannot be read, a set is larger than the file, or sets share frames.
    """
    config = reader.config
    main = reader.read(config.file)
    alone = _isolated(main, reader.r_max)
    if alone:
        reader.say(f"{len(alone)} isolated atoms: for reference energies, in no set that is drawn")
    if config.split_file is not None:
        train, val, test = _from_split_file(config)
        if is_split(config.split_file):
            Split.load(config.split_file).check(main)
    else:
        train, val, test = _selections(config, len(main) - len(alone))
    split = split_frames(
        main, train, val, test, seed=seed, on_duplicates=config.on_duplicates, isolated=alone
    )
    sets = {name: _pick(main, getattr(split, name)) for name in ("train", "val", "test")}
    isolated = list(_pick(main, alone))
    if config.isolated_atoms_file is not None:
        atoms_file = config.isolated_atoms_file
        found = read_frames(atoms_file, **reader.options(atoms_file))
        reader.say(found.summary())
        atoms = [found[i] for i in _isolated(found, reader.r_max)]
        if not atoms:
            raise InputError(f"{atoms_file} has no frame of a single atom far from its images")
        isolated += atoms
    splits = {"split": split}
    for name, path, count in (
        ("val", config.val_file, config.n_val),
        ("test", config.test_file, config.n_test),
    ):
        if path is not None:
            own = reader.read(path)
            part = split_frames(
                own,
                "rest" if count is None else count,
                seed=seed,
                isolated=_isolated(own, reader.r_max),
            )
            sets[name] = _pick(own, part.train)
            splits[f"split_{name}_file"] = part
    if len(splits) > 1:
        check_duplicates(sets, config.on_duplicates)  # type: ignore[arg-type]
    if not len(sets["val"]):
        raise InputError(
            "there are no validation frames: give data.n_val or data.val_file (or fewer "
            "training frames, data.n_train)"
        )
    return Sets(**sets, isolated=isolated, splits=splits)


def _pick(source: Any, indices: list[int]) -> FrameSet:
    if isinstance(source, StoreDataset):
        return StoredFrames(source, indices)
    return [source[i] for i in indices]


def _isolated(frames: Any, r_max: float) -> list[int]:
    """Return the indices of isolated atoms, whose energies no network has to learn."""
    if isinstance(frames, StoreDataset):
        singles = np.flatnonzero(frames.num_atoms == 1).tolist()
        return [i for i in singles if is_isolated(frames.frame(i), r_max)]
    return [i for i, frame in enumerate(frames) if is_isolated(frame, r_max)]


def _from_split_file(config: DataConfig) -> tuple[Selection, Selection, Selection]:
    for key in ("n_train", "n_val", "n_test"):
        if getattr(config, key) is not None:
            raise InputError(f"give either data.split_file or data.{key}, not both")
    path = config.split_file
    assert path is not None
    val = None if config.val_file is not None else path
    test = None if config.test_file is not None else path
    return path, val, test


def _selections(config: DataConfig, total: int) -> tuple[Selection, Selection, Selection]:
    """Fill in the sizes that the configuration leaves open."""
    train: Selection = "rest" if config.n_train is None else config.n_train
    val: Selection = None if config.val_file is not None else config.n_val
    test: Selection = None if config.test_file is not None else config.n_test
    if val is None and config.val_file is None:
        used = _number(config.n_train, total)
        left = total - used - _number(test, total)
        if config.n_train is None:
            val = min(max(1, round(0.1 * left)), _MAX_VALIDATION)
        else:
            val = min(max(_MIN_VALIDATION, round(0.1 * used)), _MAX_VALIDATION, max(left, 0))
    return train, val, test


def _number(selection: Selection, total: int) -> int:
    if isinstance(selection, float):
        return round(selection * total)
    return selection if isinstance(selection, int) else 0


def _elements(frames: Any) -> set[str]:
    return {chemical_symbols[z] for frame in frames for z in np.unique(frame.numbers)}


def _as_list(paths: str | list[str]) -> list[str]:
    return [paths] if isinstance(paths, str) else paths


def _size(path: str) -> int:
    file = Path(path)
    files = file.rglob("*") if file.is_dir() else [file]
    return sum(f.stat().st_size for f in files if f.is_file())


def _memory() -> int:
    """Bytes that this process may have: of the machine, or less in a container or SLURM job."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in _memory_limits():
        with suppress(OSError, ValueError):  # "max" is no number
            limits.append(int(file.read_text()))
    return min(limits)


def _memory_limits() -> Iterator[Path]:
    """Yield the files with the limits of the control groups that this process is in."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers not in ("", "memory"):
                continue
            root = Path("/sys/fs/cgroup") / controllers
            name = "memory.limit_in_bytes" if controllers else "memory.max"
            folder = Path(group.lstrip("/"))
            yield from (root / part / name for part in (folder, *folder.parents))
