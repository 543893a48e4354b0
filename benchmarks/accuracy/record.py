"""The file of results: a list that only ever grows."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openmm_nequip.errors import InputError
from openmm_nequip.modelfile import write_atomically

RESULTS = Path(__file__).parent / "results.json"


def read(path: Path = RESULTS) -> list[dict[str, Any]]:
    """Return the results of all finished runs; none where there is no file.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    if not path.exists():
        return []
    try:
        results = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read results from '{path}': {error}") from None
    if not isinstance(results, list) or any("run" not in result for result in results):
        raise InputError(f"'{path}' is not a list of results of benchmarks/accuracy/run.py")
    return results


def append(path: Path, results: list[dict[str, Any]]) -> int:
    """Add results of other runs than those that are there; return how many were added.

    Raises
    ------
    InputError
        The file has another result of the same run, which is never replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent):
        old = read(path)
        known = {result["run"]: result for result in old}
        for result in results:
            if result["run"] in known and known[result["run"]] != result:
                raise InputError(
                    f"'{path}' has another result of {result['run']}; results are not replaced"
                )
        new = [result for result in results if result["run"] not in known]
        if new:
            text = json.dumps(old + new, indent=1, ensure_ascii=False) + "\n"
            write_atomically(path, text.encode())
    return len(new)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time change the files of a folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
