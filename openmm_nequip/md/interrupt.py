"""Signals that ask a run to stop."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Stop:
    """Whether somebody wants the run to stop: Ctrl-C, or a batch system's SIGTERM.

    Attributes
    ----------
    requested
        As soon as the run can be saved.
    insisted
        At once.
    """

    requested = insisted = False

    @contextmanager
    def listening(self) -> Iterator["Stop"]:
        """Turn the first signal into a request; a second one interrupts.

        Raises
        ------
        KeyboardInterrupt
            At the second signal, also where that has broken off a call of a force in Python,
            which OpenMM reports as an exception of its own.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self  # only the main thread gets signals
            return

        def request(number: int, frame: Any) -> None:
            if self.requested:
                self.insisted = True
                raise KeyboardInterrupt
            self.requested = True

        numbers = (signal.SIGINT, signal.SIGTERM)
        usual = {number: signal.signal(number, request) for number in numbers}
        try:
            yield self
        except Exception:
            if self.insisted:
                raise KeyboardInterrupt from None
            raise
        finally:
            for number, handler in usual.items():
                signal.signal(number, handler)
