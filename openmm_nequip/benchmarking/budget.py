"""Whether a measurement can be afforded: time within the budget, memory within the machine."""

import time
from dataclasses import dataclass, field

from .machine import available_memory

_SHARE = 0.25  # largest part of the time that one engine may take on one case
_MEMORY = 0.8  # largest part of the memory that may be used
_TELLING = 2000  # edges; below, overheads that do not grow with the case take most of the time


@dataclass
class Budget:
    """Seconds of a run."""

    seconds: float
    started: float = field(default_factory=time.monotonic)

    def left(self) -> float:
        """Return the seconds that remain."""
        return self.seconds - (time.monotonic() - self.started)


class Forecast:
    """Tells what an engine will take from what it took on a smaller case.

    Parameters
    ----------
    budget
        Of the run.
    """

    def __init__(self, budget: Budget):
        self.budget = budget
        self._seen: dict[str, tuple[int, float, int]] = {}

    def note(self, engine: str, size: int, seconds: float, memory: int = 0) -> None:
        """Remember what one call took on a case of `size` edges."""
        self._seen[engine] = (size, seconds, memory)

    def objection(self, engine: str, size: int, calls: int) -> str:
        """Return why `calls` calls on a case of `size` cannot be afforded, or an empty string."""
        left = self.budget.left()
        if left <= 0:
            return f"the time of {self.budget.seconds / 60:g} min is used up"
        if engine not in self._seen:
            return ""
        seen_size, seen_seconds, seen_memory = self._seen[engine]
        if seen_size < min(size, _TELLING):
            return ""
        seconds = seen_seconds * size / seen_size
        memory = seen_memory * size / seen_size
        limit = min(left, _SHARE * self.budget.seconds)
        if seconds * calls > limit:
            return (
                f"would take about {seconds:.2g} s a call, {seconds * calls:.0f} s in all, "
                f"of {limit:.0f} s that it may take"
            )
        if memory > _MEMORY * available_memory():
            return f"would need about {memory / 1e9:.1f} GB of memory"
        return ""
