"""Training, validation and test sets: drawn once, recorded, and free of each other's frames."""

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from ..errors import InputError
from .fingerprint import fingerprint, geometry_hashes
from .frame import Frame, IntArray
from .store import StoreDataset

#: A number of frames, a fraction of all, an index file, the indices themselves, "rest" or None.
Selection = int | float | str | Path | Sequence[int] | None
OnDuplicates = Literal["error", "warn", "ignore"]

_NAMES = {
    "train": ("train", "training", "idx_train"),
    "val": ("val", "valid", "validation", "idx_val"),
    "test": ("test", "testing", "idx_test"),
}


class Duplicate(NamedTuple):
    """One configuration (species, positions, cell) that two sets share."""

    set_a: str
    index_a: int
    set_b: str
    index_b: int


@dataclass(frozen=True)
class Split:
    """Which frames are for training, validation and testing.

    Attributes
    ----------
    train, val, test
        Indices into the frames.
    seed
        Seed of the draw; `None` where every set was given by its indices.
    num_frames
        Number of frames that were split.
    fingerprint
        SHA-256 over the contents of these frames.
    """

    train: list[int]
    val: list[int]
    test: list[int]
    seed: int | None
    num_frames: int
    fingerprint: str

    def save(self, path: str | Path) -> None:
        """Write the split as JSON, atomically.

        Raises
        ------
        InputError
            The file exists and holds something else.
        """
        path = Path(path)
        text = json.dumps(asdict(self)) + "\n"
        if path.exists():
            if path.read_text() == text:
                return
            raise InputError(f"{path} already holds another split; remove it or use another name")
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        with temporary.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> "Split":
        """Read a split written by `save`.

        Raises
        ------
        InputError
            The file is missing or not a split.
        """
        values = _read_json(Path(path))
        try:
            return cls(**values)
        except TypeError:
            raise InputError(f"{path} is not a split written by this package") from None

    def check(self, frames: Sequence[Frame] | StoreDataset) -> None:
        """Raise InputError unless the split was made of exactly these frames."""
        if len(frames) != self.num_frames or fingerprint(frames) != self.fingerprint:
            raise InputError(
                f"the recorded split belongs to other data ({self.num_frames} frames, fingerprint "
                f"{self.fingerprint[:12]}), or the data has changed since: give other indices"
            )


def is_split(path: str | Path) -> bool:
    """Return whether a file of indices says of which frames they are, as `Split.save` does."""
    if Path(path).suffix != ".json":
        return False
    values = _read_json(Path(path))
    return isinstance(values, dict) and "fingerprint" in values


def split_frames(
    frames: Sequence[Frame] | StoreDataset,
    train: Selection,
    val: Selection = None,
    test: Selection = None,
    *,
    seed: int = 0,
    on_duplicates: OnDuplicates = "error",
    isolated: Sequence[int] = (),
) -> Split:
    """Split frames into training, validation and test sets.

    Sets given by number or fraction are drawn at random, without replacement, from the frames
    that no index file claims: training first, then validation, then test. The same seed and
    number of frames give the same split, and more validation or test frames leave the training
    set as it is.

    Parameters
    ----------
    frames
        A sequence of frames or a `StoreDataset`.
    train, val, test
        A number of frames (int); a fraction of all frames (float); an index file (.npz or .json,
        which may name several sets and leave out ``test``, or .txt); indices; ``"rest"`` for all
        that remain (one set only); `None` for none.
    seed
        Seed of the draw.
    on_duplicates
        What to do where the same configuration is in two sets.
    isolated
        Frames of isolated atoms: they are not drawn, and may be in several sets.

    Raises
    ------
    InputError
        A set is empty where it must not be, asks for more frames than there are, an index is out
        of range or in two sets, or two sets share a configuration.
    """
    total = len(frames)
    requests = {"train": train, "val": val, "test": test}
    chosen: dict[str, IntArray] = {}
    for name, request in requests.items():
        if _is_indices(request):
            chosen[name] = _indices(name, request, total)
    _refuse_overlap(chosen)

    drawn = [name for name in requests if name not in chosen]
    claimed = np.concatenate([*chosen.values(), np.zeros(0, np.int64)])
    pool = np.random.default_rng(seed).permutation(total)
    pool = pool[~np.isin(pool, [*claimed, *isolated])]
    rest = [name for name in drawn if requests[name] == "rest"]
    if len(rest) > 1:
        raise InputError(f"only one set can be 'rest', got {' and '.join(rest)}")
    for name in [*(n for n in drawn if n not in rest), *rest]:
        count = len(pool) if name in rest else _count(name, requests[name], total - len(isolated))
        if isinstance(requests[name], float) and 0 < len(pool) == count - 1:
            count -= 1  # fractions that add up to 1, each rounded
        if count > len(pool):
            besides = f" (and {len(isolated)} isolated atoms)" if len(isolated) else ""
            raise InputError(
                f"{name}: {count} frames asked for, {len(pool)} of {total - len(isolated)}{besides}"
                " are left; ask for fewer"
            )
        chosen[name], pool = np.sort(pool[:count]), pool[count:]
    if len(chosen["train"]) == 0:
        raise InputError("the training set is empty: give train as a number, fraction or file")

    hashes = geometry_hashes(frames) if on_duplicates != "ignore" else []
    if hashes:
        alone = set(isolated)
        sets = {
            name: {int(i): hashes[i] for i in chosen[name] if i not in alone} for name in requests
        }
        _report_duplicates(_shared(sets), on_duplicates)
    return Split(
        train=chosen["train"].tolist(),
        val=chosen["val"].tolist(),
        test=chosen["test"].tolist(),
        seed=seed if any(len(chosen[name]) for name in drawn) else None,
        num_frames=total,
        fingerprint=fingerprint(frames),
    )


def check_duplicates(
    sets: Mapping[str, Sequence[Frame] | StoreDataset], on_duplicates: OnDuplicates = "error"
) -> list[Duplicate]:
    """Find configurations that separate sets share, such as a training and a test file.

    Returns
    -------
    list of Duplicate
        Empty where the sets have nothing in common.

    Raises
    ------
    InputError
        There are duplicates and `on_duplicates` is ``"error"``.
    """
    found = _shared({name: dict(enumerate(geometry_hashes(f))) for name, f in sets.items()})
    _report_duplicates(found, on_duplicates)
    return found


def _shared(sets: Mapping[str, Mapping[int, bytes]]) -> list[Duplicate]:
    first: dict[bytes, tuple[str, int]] = {}
    found = []
    for name, hashes in sets.items():
        for index, digest in hashes.items():
            other, other_index = first.setdefault(digest, (name, index))
            if other != name:
                found.append(Duplicate(other, other_index, name, index))
    return found


def _report_duplicates(found: list[Duplicate], on_duplicates: OnDuplicates) -> None:
    if not found or on_duplicates == "ignore":
        return
    pairs = ", ".join(f"{d.set_a} {d.index_a} = {d.set_b} {d.index_b}" for d in found[:5])
    more = ", ..." if len(found) > 5 else ""
    message = (
        f"{len(found)} configuration{'s are' if len(found) > 1 else ' is'} in more than one set "
        f"({pairs}{more}), so errors on held-out data would be too small"
    )
    if on_duplicates == "error":
        raise InputError(
            f"{message}; remove them or allow them with on_duplicates='warn' "
            "(data.on_duplicates: warn)"
        )
    warnings.warn(message, stacklevel=3)


def _is_indices(request: Selection) -> bool:
    return not (request is None or request == "rest" or isinstance(request, int | float))


def _count(name: str, request: Selection, total: int) -> int:
    if request is None:
        return 0
    if isinstance(request, bool) or not isinstance(request, int | float):
        raise InputError(f"{name}: {request!r} is not a number of frames, fraction or file")
    if request < 0 or (isinstance(request, float) and request > 1):
        raise InputError(
            f"{name}: {request} is neither a number of frames nor a fraction in [0, 1]"
        )
    return request if isinstance(request, int) else round(request * total)


def _indices(name: str, request: Selection, total: int) -> IntArray:
    where = name
    if isinstance(request, str | Path):
        where = f"{name}: {request}"
        request = _read_indices(Path(request), name)
    try:
        array = np.asarray(request)
    except ValueError:  # rows of several lengths
        array = np.zeros((0, 0))
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise InputError(f"{where}: frame indices must be a list of whole numbers")
    array = array.astype(np.int64)
    outside = array[(array < 0) | (array >= total)]
    if outside.size:
        raise InputError(f"{where}: index {outside[0]} is out of range, there are {total} frames")
    values, counts = np.unique(array, return_counts=True)
    if (counts > 1).any():
        raise InputError(f"{where}: index {values[counts > 1][0]} occurs more than once")
    return array


def _refuse_overlap(chosen: Mapping[str, IntArray]) -> None:
    names = list(chosen)
    for k, a in enumerate(names):
        for b in names[k + 1 :]:
            shared = np.intersect1d(chosen[a], chosen[b])
            if shared.size:
                raise InputError(f"frame {shared[0]} is in both {a} and {b}; give it to one only")


def _read_indices(path: Path, name: str) -> Sequence[int]:
    """Read the indices of one set from an .npz, .json or text file."""
    if not path.is_file():
        raise InputError(f"{name}: index file '{path}' does not exist")
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as arrays:
                found = {key: arrays[key] for key in arrays.files}
        except Exception as error:  # zipfile, zlib, NumPy: whatever a damaged file causes
            reason = " ".join(str(error).split())
            raise InputError(f"{path} is not a readable .npz file: {reason}") from None
        return _named(path, name, found)
    if path.suffix == ".json":
        values = _read_json(path)
        return _named(path, name, values) if isinstance(values, dict) else values
    try:
        return [int(word) for word in path.read_text().split()]
    except ValueError as error:
        raise InputError(
            f"{path} must hold whole numbers separated by white space: {error}"
        ) from None


def _named(path: Path, name: str, values: Mapping[str, Sequence[int]]) -> Sequence[int]:
    for key in _NAMES[name]:
        if key in values:
            return values[key]
    if len(values) == 1:
        return next(iter(values.values()))
    if name == "test" and any(key in values for key in _NAMES["train"]):
        return []  # there need not be one
    raise InputError(f"{path} has no '{name}' among its keys ({', '.join(values)})")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid JSON: {error}") from None
