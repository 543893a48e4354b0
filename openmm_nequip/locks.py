"""One process at a time in a folder of results."""

import fcntl
from pathlib import Path
from typing import IO

from .errors import InputError


def lock(folder: Path, doing: str) -> IO[str]:
    """Keep every other process out of a folder until the returned file is closed.

    The system lifts the lock of a killed process. A file system without locks does not lock.

    Parameters
    ----------
    folder
        Must exist; its ``.lock`` is made.
    doing
        For the message: what the other process would be doing.

    Raises
    ------
    InputError
        Another process has the folder.
    """
    file = (folder / ".lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise InputError(
            f"another process is {doing} in '{folder}': wait for it, or give another output="
        ) from None
    except OSError:  # a file system without locks
        pass
    return file
