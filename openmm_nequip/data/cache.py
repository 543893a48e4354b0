"""Stores made once: found again as long as data, options, elements and cutoff are the same."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .readers import iter_frames
from .store import SCHEMA, StoreDataset, write_store


def cached_store(
    path: str | Path,
    folder: str | Path,
    elements: Sequence[str] | None,
    r_max: float,
    **options: Any,
) -> StoreDataset:
    """Return the store of a data file, writing it on the first call.

    The store is named by a hash of the file's contents, the reading options, the elements and the
    cutoff, so that changing any of them makes a new store.

    Parameters
    ----------
    path
        Data file or DeePMD folder.
    folder
        Where stores are kept; it is made if need be.
    elements
        Chemical symbols in the order of the potential's types; `None`: those of the file.
    r_max
        Cutoff of the neighbour lists, Å.
    options
        Keywords of `read_frames`.

    Raises
    ------
    InputError
        As `read_frames` and `write_store`.
    """
    stream = iter_frames(path, **options)
    symbols = None if elements is None else list(elements)
    text = json.dumps([SCHEMA, symbols, float(r_max), options], sort_keys=True, default=str)
    key = hashlib.sha256(text.encode() + _digest(Path(path))).hexdigest()[:16]
    store = Path(folder) / f"{key}.h5"
    if not store.exists():
        store.parent.mkdir(parents=True, exist_ok=True)
        write_store(stream, store, elements, r_max)
    return StoreDataset(store)


def _digest(path: Path) -> bytes:
    """Hash a file, or every file of a folder with its name."""
    total = hashlib.sha256()
    files = sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
    for file in files:
        total.update(f"{file.relative_to(path)} {file.stat().st_size}\0".encode())
        with file.open("rb") as data:
            while block := data.read(1 << 20):
                total.update(block)
    return total.digest()
