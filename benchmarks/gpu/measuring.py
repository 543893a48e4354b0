"""Clocks and memory of a device."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch


def wait(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def milliseconds(call: Callable[[], Any], device: str, seconds: float = 1.0) -> dict[str, float]:
    """Return the median time of a call, after calls that compile and allocate."""
    for _ in range(3):
        call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or (len(times) < 100 and time.perf_counter() < end):
        wait(device)
        start = time.perf_counter()
        call()
        wait(device)
        times.append(1e3 * (time.perf_counter() - start))
    return {"ms": statistics.median(times), "fastest_ms": min(times), "calls": len(times)}


def reset_peak(device: str) -> None:
    """Let the peak of memory begin at what is allocated now."""
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gb(device: str) -> float | None:
    """Return the peak since `reset_peak`; `None` where there is no GPU."""
    return torch.cuda.max_memory_allocated() / 1e9 if device.startswith("cuda") else None
