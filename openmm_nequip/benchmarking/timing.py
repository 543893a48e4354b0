"""Alternating repeats, and what they say."""

import time
from collections.abc import Callable, Mapping

import numpy as np

_SHORTEST = 0.05  # seconds; quicker calls are repeated within one reading of the clock
_MOST_CALLS = 200


def stopwatch(call: Callable[[], object], times: int = 1) -> float:
    """Return the seconds that one of `times` calls takes on average."""
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


def calls_per_repeat(seconds: float, shortest: float = _SHORTEST) -> int:
    """Return how many calls of `seconds` one repeat should have."""
    return int(np.clip(np.ceil(shortest / max(seconds, 1e-9)), 1, _MOST_CALLS))


def alternate(
    calls: Mapping[str, Callable[[], object]],
    repeats: int,
    times: Mapping[str, int],
) -> dict[str, list[float]]:
    """Time several things in turn: a, b, c, a, b, c, ...

    Parameters
    ----------
    calls
        What to time, by name; they have been called before.
    repeats
        Rounds.
    times
        Calls within one repeat, by name.

    Returns
    -------
    dict
        Seconds per call in each repeat, by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            seconds[name].append(stopwatch(call, times[name]))
    return seconds


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Return lower quartile, median and upper quartile."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return float(low), float(middle), float(high)
