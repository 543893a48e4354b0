"""Signals that ask a run to stop."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Stop:
    """Whether somebody wants the run to stop: Ctrl-C, or a batch system's SIGTERM."""

    requested = False

    @contextmanager
    def listening(self) -> Iterator["Stop"]:
        """Turn the first signal into a request; a second one acts as usual."""
        if threading.current_thread() is not threading.main_thread():
            yield self  # only the main thread gets signals
            return
        usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def restore() -> None:
            for number, handler in usual.items():
                signal.signal(number, handler)

        def request(number: int, frame: Any) -> None:
            self.requested = True
            restore()

        for number in usual:
            signal.signal(number, request)
        try:
            yield self
        finally:
            restore()
