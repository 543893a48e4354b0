"""Items that are measured one by one, each of which may fail, hang or crash alone."""

import ctypes
import json
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from openmm_nequip.benchmarking.machine import all_versions, describe
from openmm_nequip.benchmarking.md import fastest_platform
from openmm_nequip.modelfile import write_atomically

#: After these a process can do nothing more on its GPU; in small letters.
_POISONED = (
    "cuda error", "cuda_error", "cuda driver error", "triton error", "illegal memory access",
    "device-side assert", "cublas_status", "unspecified launch failure",
)  # fmt: skip
_DIE_WITH_PARENT = 1  # Linux's PR_SET_PDEATHSIG


class Skipped(Exception):
    """An item cannot be measured here; the message says why."""


def _serve(pipe: Connection) -> None:
    """Measure what comes through the pipe, until it is closed."""
    os.setsid()  # what it starts can be ended with it
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)  # also where that is killed
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        try:
            answer = function(*arguments)
        except Skipped as reason:
            answer = {"skipped": str(reason)}
        except Exception as error:
            answer = describe_error(error)
            answer["traceback"] = "".join(traceback.format_exception(error)[-30:])[-6000:]
        pipe.send(answer)


def describe_error(error: Exception) -> dict:
    """Return the beginning and the end of a message, and whether the GPU is lost with it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    shown = lines if len(lines) <= 4 else [lines[0], "...", *lines[-3:]]
    poisoned = any(word in str(error).lower() for word in _POISONED)
    answer = {"error": f"{type(error).__name__}: {' | '.join(shown)[:800]}"}
    return answer | ({"gpu_lost": True} if poisoned else {})


class Worker:
    """A process that measures items; begun anew when one has taken it down."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._process: Any = None
        self._pipe: Any = None

    def __call__(self, function: Callable[..., dict], arguments: tuple, limit: float) -> dict:
        """Return what the function returns, or an ``error``; it has `limit` seconds."""
        if self._process is None:
            self._pipe, theirs = self._context.Pipe()
            self._process = self._context.Process(target=_serve, args=(theirs,), daemon=False)
            self._process.start()
            theirs.close()
        try:
            self._pipe.send((function, arguments))
            if self._pipe.poll(limit):
                answer = self._pipe.recv()
            else:
                self.stop(at_once=True)
                return {"error": f"took longer than {limit:.0f} s"}
        except (EOFError, ConnectionError):
            code = self.stop()
            return {"error": f"the process ended with exit code {code}"}
        if "gpu_lost" in answer:
            self.stop()
        return answer

    def stop(self, at_once: bool = False) -> int | None:
        """End the process and what it has started; return its exit code, `None` if there is none.

        It is given time to end by itself, unless `at_once`.
        """
        if self._process is None:
            return None
        with suppress(OSError):
            self._pipe.close()  # which is what it waits for
        if not at_once:
            self._process.join(5)
        with suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.join()
        code, self._process = self._process.exitcode, None
        return code


class Report:
    """Measures items within the time, and keeps the file and the log up to date.

    Parameters
    ----------
    path
        JSON file; the log is beside it.
    seconds
        For all items together.
    device
        Where to compute.
    only
        Beginnings of the names of the items to measure; nothing is all.
    patience
        What the limits of the items are multiplied by, on slow machines.
    """

    def __init__(
        self,
        path: Path,
        seconds: float,
        device: str,
        only: Sequence[str] = (),
        patience: float = 1.0,
    ):
        self.path, self.log, self.only = path, path.with_suffix(".log"), tuple(only)
        self.patience = patience
        self.end = time.monotonic() + seconds
        self.worker = Worker()
        self.document: dict[str, Any] = {
            "machine": describe(torch.get_num_threads(), device, fastest_platform(device))
            | _gpu(device),
            "versions": all_versions(),
            "items": [],
        }
        self.log.write_text("")

    def measure(
        self, name: str, function: Callable[..., dict], *arguments: Any, limit: float = 60.0
    ) -> dict:
        """Measure one item, for `limit` seconds times the patience at most."""
        item: dict[str, Any] = {"name": name}
        if self.only and not name.startswith(self.only):
            return item
        start = time.monotonic()
        left = min(limit * self.patience, self.end - start)
        if left < 1:
            item["skipped"] = "no time left"
        else:
            item |= self.worker(function, arguments, left)
        item["took_s"] = round(time.monotonic() - start, 2)
        self.document["items"].append(item)
        write_atomically(self.path, json.dumps(self.document, indent=1).encode())
        unseen = ("name", "top", "traceback")
        values = [f"{key} {_short(value)}" for key, value in item.items() if key not in unseen]
        self.print(f"{name:44s} {', '.join(values)}")
        if "traceback" in item:
            with self.log.open("a") as file:
                file.write(item["traceback"])
        return item

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.end - time.monotonic()

    def print(self, line: str) -> None:
        """Print a line, and add it to the log."""
        print(line, flush=True)
        with self.log.open("a") as file:
            file.write(line + "\n")


def _gpu(device: str) -> dict[str, Any]:
    if not device.startswith("cuda"):
        return {}
    gpu = torch.cuda.get_device_properties(device)
    return {
        "gpu_memory_gb": round(gpu.total_memory / 1e9, 1),
        "capability": f"{gpu.major}.{gpu.minor}",
        "cuda": torch.version.cuda,
    }


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
