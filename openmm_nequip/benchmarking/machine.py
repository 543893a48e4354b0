"""What the figures were measured on."""

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..versions import versions

_PEERS = ("numba", "triton", "nequip", "mace-torch", "torchani", "openequivariance")


def describe(threads: int, device: str, openmm_platform: str) -> dict[str, Any]:
    """Return CPU, memory, GPU, threads and load of this machine."""
    import torch

    return {
        "cpu": _cpu(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": cores(),
        "threads": threads,
        "memory_gb": round(_memory("MemTotal") / 1e9, 1),
        "load_average": round(os.getloadavg()[0], 2),
        "device": device,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "openmm_platform": openmm_platform,
    }


def all_versions() -> dict[str, str]:
    """Return the versions of the package, of what it is built on, and of its peers."""
    found = versions()
    for package in _PEERS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def available_memory() -> float:
    """Return the bytes that can still be allocated; infinite where that is not known."""
    return _memory("MemAvailable") or float("inf")


def memory_of_process(key: str) -> int:
    """Return ``VmRSS`` (resident now) or ``VmHWM`` (its highest value), bytes; 0 if not known."""
    return _entry(Path("/proc/self/status"), key)


def reset_peak() -> None:
    """Let ``VmHWM`` begin again at what is resident now."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")


def _memory(key: str) -> int:
    return _entry(Path("/proc/meminfo"), key)


def _entry(path: Path, key: str) -> int:
    if not path.exists():
        return 0
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    return 0


def _cpu() -> str:
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
