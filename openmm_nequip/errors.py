"""The exception that means "your input, not our bug"."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something the user gave is wrong: one line that says what, where and how to fix it.

    The command line prints the message without a traceback; library callers catch it as a
    `ValueError`.
    """


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)``, or an empty string where nothing is close to `word`."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else ""
