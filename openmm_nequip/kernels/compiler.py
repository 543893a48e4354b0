"""Compiled kernels whose threads share a loop, and which have the same bits in every process.

Numba has two machine codes of a parallel loop in the process that compiles it, of which the other
one goes to the disk, and they may round differently. So a kernel that is not on the disk is
compiled by another process, and then read from there as by everybody after.
"""

# mypy: disable-error-code="no-untyped-def"

import atexit
import linecache
import logging
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib import import_module
from pathlib import Path
from threading import Lock, Timer
from typing import Any, BinaryIO

import numba
from numba import get_num_threads, njit, threading_layer
from numba.core.event import Event, Listener, register

from . import generated

_IDLE = 30.0  # s, after which the compiling process ends
_log = logging.getLogger(__name__)


class Kernel:
    """A function with `numba.prange` loops; compiled, and cached on the disk, for each signature.

    Parameters
    ----------
    function
        At the top level of a module that can be imported, or of a generated one.
    options
        Of `numba.njit`.
    """

    def __init__(self, function: Callable[..., Any], **options: Any):
        self.function = function
        self.dispatcher = njit(parallel=True, nogil=True, cache=True, **options)(function)
        _kernels[function] = self

    def __call__(self, *args: Any) -> Any:
        """Call the compiled function."""
        if _lost_threads:
            raise RuntimeError(
                "the threads of the compiled kernels did not survive a fork of this process: start "
                "others with multiprocessing.get_context('spawn')"
            )
        with _start_threads():
            return self._run(args)

    def _run(self, args: tuple[Any, ...]) -> Any:
        try:
            return self.dispatcher(*args)
        except _NotOnDisk as missing:
            problem = _compiler.compile(self, missing.signature)
        if problem:
            _log.warning(
                "the process that compiles kernels failed (%s): compiling in this one, where the "
                "last bits of results may differ", problem,
            )  # fmt: skip
        _may_compile.add(self)
        try:
            return self.dispatcher(*args)
        finally:
            _may_compile.discard(self)


@cache
def _start_threads() -> AbstractContextManager[Any]:
    """Start Numba's threads without a change to PyTorch's; return what callers have to hold.

    Where both use the same OpenMP library, Numba sets the number of threads of both as it starts.
    Without OpenMP and TBB its threads serve one caller at a time.
    """
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 0
    get_num_threads()
    if torch:
        torch.set_num_threads(before)
    return Lock() if threading_layer() == "workqueue" else nullcontext()


def _after_fork() -> None:
    """Remember in the child that OpenMP's threads have stayed in the parent."""
    global _lost_threads
    _lost_threads = _start_threads.cache_info().currsize > 0 and threading_layer() == "omp"


def _cache_somewhere() -> None:
    """Give Numba a folder for compiled code where it would not find one.

    Beside the package nobody may be allowed to write, and a container's user may have no home.
    """
    if numba.config.CACHE_DIR:
        return
    beside = Path(__file__).parent / "__pycache__"
    try:
        beside.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=beside):
            return
    except OSError:
        numba.config.CACHE_DIR = os.environ["NUMBA_CACHE_DIR"] = str(generated.folder())


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Kernel]:
    """Make a `Kernel` of the function that follows, with options of `numba.njit`."""
    return lambda function: Kernel(function, **options)


class _NotOnDisk(Exception):
    def __init__(self, signature: tuple[Any, ...]):
        super().__init__("not compiled yet")
        self.signature = signature


class _Guard(Listener):
    """Stops Numba before it compiles a kernel in a process that is not there for it."""

    def on_start(self, event: Event) -> None:
        found = _kernels.get(event.data["dispatcher"].py_func)
        if found is not None and found not in _may_compile and not _serving:
            raise _NotOnDisk(event.data["args"])

    def on_end(self, event: Event) -> None:
        """Nothing to do."""


class _Compiler:
    """The other process, started when it is needed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._replies: BinaryIO
        self._turn = Lock()
        self._announced: set[str] = set()

    def compile(self, kernel: Kernel, signature: tuple[Any, ...]) -> str:
        """Compile to the disk; return what went wrong, or an empty string."""
        function = kernel.function
        path = function.__code__.co_filename
        source = None
        if function.__module__.startswith(generated.PREFIX):
            self._announce(function.__globals__.get("__doc__") or "")
            source = "".join(linecache.getlines(path))
        request = (function.__module__, path, source, function.__name__, signature)
        problem = ""
        with self._turn:
            for _ in range(2):  # it may have ended just now, having been idle
                try:
                    return self._ask(request)
                except (OSError, EOFError, pickle.PickleError) as error:
                    problem = f"{type(error).__name__} {error}".strip()
                    self.close()
        return problem

    def _ask(self, request: tuple[Any, ...]) -> str:
        if self._process is None or self._process.poll() is not None:
            self.close()
            replies, end = os.pipe()  # on standard output anybody may print
            self._replies = os.fdopen(replies, "rb")
            paths = f"import sys; sys.path[:] = {sys.path!r}"
            code = f"{paths}; import {__name__} as c; c.serve({end})"
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=2, pass_fds=(end,)
                )
            finally:
                os.close(end)
        assert self._process.stdin is not None
        pickle.dump(request, self._process.stdin)
        self._process.stdin.flush()
        reply: str = pickle.load(self._replies)
        return reply

    def _announce(self, title: str) -> None:
        """Say what takes so long, once for each module."""
        if title not in self._announced:
            self._announced.add(title)
            _log.warning(
                "compiling kernels for %s (once on this machine; seconds to minutes)",
                title.rstrip("."),
            )

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            process.communicate()
            self._replies.close()


def serve(answer_to: int) -> None:
    """Compile what standard input asks for, until it ends or nothing has come for a while.

    Parameters
    ----------
    answer_to
        File descriptor.
    """
    global _serving
    _serving = True
    requests, replies = sys.stdin.buffer, os.fdopen(answer_to, "wb")
    while True:
        idle = Timer(_IDLE, os._exit, (0,))
        idle.daemon = True
        idle.start()
        try:
            request = pickle.load(requests)
        except EOFError:
            return
        idle.cancel()
        try:
            _compile(*request)
            reply = ""
        except Exception as error:
            reply = f"{type(error).__name__}: {error}"
        try:
            pickle.dump(reply, replies)
            replies.flush()
        except OSError:  # who asked has ended
            return


def _compile(module: str, path: str, source: str | None, name: str, signature) -> None:
    if source is None:
        kernel = getattr(import_module(module), name)
    else:
        kernel = getattr(generated.execute(module, path, source), name)
    kernel.dispatcher.compile(signature)


_kernels: dict[Callable[..., Any], Kernel] = {}
_may_compile: set[Kernel] = set()
_serving = False
_lost_threads = False
_compiler = _Compiler()
register("numba:compile", _Guard())
atexit.register(_compiler.close)
os.register_at_fork(after_in_child=_after_fork)
_cache_somewhere()
