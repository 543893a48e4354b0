"""The run folder: what is in it, and the promise that no result is ever overwritten."""

import csv
import io
import json
import math
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import torch
import yaml

from ..data.splits import Split
from ..errors import InputError
from ..locks import lock
from ..modelfile import write_atomically

#: Keys that may differ when an unfinished run goes on; all others would mix two experiments.
CHANGEABLE = (
    "training.max_epochs",
    "training.max_time",
    "training.early_stopping",
    "training.val_interval",
    "training.checkpoint_minutes",
    "training.engine",
    "training.accelerator",
    "training.devices",
    "training.num_nodes",
    "training.strategy",
    "training.num_threads",
    "data.num_workers",
    "data.stream_from_disk",
    "output",
    "name",
)
_SAME = 1e-6  # two figures of the same data may differ in their last digits on two machines


class RunFolder:
    """Files of one training run; only the first process writes.

    Parameters
    ----------
    path
        The folder.
    writes
        Whether this process is the one that writes.

    Raises
    ------
    InputError
        The run is finished or running elsewhere, or the folder holds something else.
    """

    def __init__(self, path: Path, writes: bool = True):
        self.path = path
        self.writes = writes
        self.config = path / "config.yaml"
        self.checkpoint = path / "checkpoints" / "last.ckpt"
        self.best = path / "checkpoints" / "best.safetensors"
        self.metrics = path / "metrics.json"
        self.log = path / "log.csv"
        self._lock: IO[str] | None = None
        if path.exists() and not path.is_dir():
            raise InputError(f"output '{path}' is a file; choose a folder with output=...")
        if self.metrics.exists():
            raise InputError(
                f"the run in '{path}' is finished (see {self.metrics.name}) and is not "
                "overwritten; start a new one with output=<another folder>"
            )
        if path.is_dir() and not self.config.exists() and any(_visible(path)):
            raise InputError(
                f"folder '{path}' holds files that are not of a training run; choose another "
                "with output=..."
            )
        self._is_new = not path.exists()
        if writes:
            self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
            self._lock = lock(self.path, "training")

    def release(self) -> None:
        """Let other processes use the folder."""
        if self._lock is not None:
            self._lock.close()
            (self.path / ".lock").unlink(missing_ok=True)
            self._lock = None
            with suppress(OSError):  # they are empty only where a run was refused
                self.checkpoint.parent.rmdir()
                if self._is_new:
                    self.path.rmdir()

    def record(self, config: dict[str, Any], splits: dict[str, Split]) -> None:
        """Write the resolved configuration and the split, or compare them with those there.

        Raises
        ------
        InputError
            The folder holds an unfinished run with another configuration, or with other data.
        """
        if self.config.exists():
            old = _flat(yaml.safe_load(self.config.read_text()) or {})
            new = _flat(config)
            changed = [k for k in sorted({*old, *new}) if not _same(old.get(k), new.get(k))]
            changed = [k for k in changed if k not in CHANGEABLE]
            files = {self.path / f"{name}.json": split for name, split in splits.items()}
            moved = [f for f, split in files.items() if f.exists() and Split.load(f) != split]
            if moved and all(key.startswith("model.") for key in changed):
                raise InputError(
                    f"the data has changed since the unfinished run in '{self.path}' began (its "
                    f"{moved[0].name} does not fit); restore it, or start a new run with output=..."
                )
            if changed:
                shown = ", ".join(f"{k}: {old.get(k)} -> {new.get(k)}" for k in changed[:6])
                raise InputError(
                    f"'{self.path}' holds an unfinished run with another configuration "
                    f"({shown}); undo the change to go on, or start a new run with output=..."
                )
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        self.write(self.config, text)
        if self.writes:
            for name, split in splits.items():
                split.save(self.path / f"{name}.json")

    def write(self, path: Path, text: str) -> None:
        """Write a text file atomically."""
        if self.writes:
            write_atomically(path, text.encode())

    def write_json(self, path: Path, values: Any) -> None:
        """Write a JSON file atomically."""
        self.write(path, json.dumps(values, indent=2) + "\n")

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Replace the last checkpoint; an interrupted write leaves the old one."""
        if self.writes:
            buffer = io.BytesIO()
            torch.save(state, buffer)
            write_atomically(self.checkpoint, buffer.getvalue())

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Return the last checkpoint, or `None` if there is none.

        Raises
        ------
        InputError
            It cannot be read.
        """
        if not self.checkpoint.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(
                self.checkpoint, map_location="cpu", weights_only=True
            )
        except Exception as error:  # torch raises a dozen kinds for damaged files
            raise InputError(
                f"checkpoint '{self.checkpoint}' cannot be read ({type(error).__name__}); "
                "remove it to train from the start, or start a new run with output=..."
            ) from None
        return state

    def start_log(self, rows: list[dict[str, float]]) -> None:
        """Write the log up to the checkpoint from which the run goes on."""
        if not rows:
            with suppress(FileNotFoundError):
                if self.writes:
                    self.log.unlink()
            return
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        self.write(self.log, buffer.getvalue())

    def append_log(self, row: dict[str, float]) -> None:
        """Add one line to the log."""
        if not self.writes:
            return
        if not self.log.exists():
            self.start_log([row])
            return
        with self.log.open("a", newline="") as file:
            csv.DictWriter(file, list(row)).writerow(row)


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(_same(old[key], new[key]) for key in old)
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_same, old, new))
    if isinstance(old, float) and isinstance(new, float):
        return math.isclose(old, new, rel_tol=_SAME)
    return bool(old == new)


def _visible(path: Path) -> list[Path]:
    return [p for p in path.iterdir() if p.name not in (".lock", "cache", "checkpoints")]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as ``section.key``; a mapping that is a value is compared as a whole."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and prefix == "":
            flat |= _flat(value, f"{key}.")
        else:
            flat[prefix + key] = value
    return flat
