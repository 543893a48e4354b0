"""What a run tells whoever watches it."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Protocol

from .reporters import Reading


class Progress(NamedTuple):
    """Where a run is.

    Attributes
    ----------
    step, total
        Steps done and wanted; negative before production.
    time
        ps.
    reading
        Of the state.
    speed
        ns/day; 0 where it is not known yet.
    left
        Seconds to the end at this speed; `None` where that is not known yet.
    first_step
        Where the run begins.
    stage
        'heating', 'equilibration' or 'production'.
    density
        g/mL; `None` without a box.
    """

    step: int
    total: int
    time: float
    reading: Reading
    speed: float
    left: float | None = None
    first_step: int = 0
    stage: str = "production"
    density: float | None = None


class Observer(Protocol):
    """Whoever wants to know what a run does."""

    def message(self, text: str) -> None:
        """Receive one line of text."""

    def progress(self, progress: Progress) -> None:
        """Receive the state of the run, at each row of its log."""


class RunLog:
    """Keeps what a run says in a text file, each line with date and time, and passes it on.

    Parameters
    ----------
    path
        File to write, or to go on with.
    observer
        Is told everything but the notes.
    """

    def __init__(self, path: Path, observer: Observer):
        self._path, self._observer = path, observer

    def note(self, text: str) -> None:
        """Write one line of text into the file only."""
        with self._path.open("a") as file:
            file.write(f"{datetime.now().astimezone().isoformat(' ', 'seconds')}  {text}\n")

    def message(self, text: str) -> None:
        """Receive one line of text."""
        self.note(text)
        self._observer.message(text)

    def progress(self, progress: Progress) -> None:
        """Receive the state of the run, which its state log has."""
        self._observer.progress(progress)


@dataclass(frozen=True)
class Result:
    """How a run ended: if it is not finished, it was stopped by a signal and can go on."""

    finished: bool
    step: int
    total: int
    speed: float
