"""What an analysis consists of: quantities with errors, pictures, and sections of both."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes

from .observables import block_error, statistical_inefficiency

CONSTANT = "always the same"  # remark on what never changed


@dataclass(frozen=True)
class Quantity:
    """A number with its error.

    Attributes
    ----------
    name
        What it is, for people; the key in ``summary.json``.
    value, error
        In `unit`; the error is a standard error, `None` where it is not known.
    unit
        '' for pure numbers.
    samples
        Independent samples of the average; `None` where it is not one, or they are not known.
    remark
        Said behind the number.
    """

    name: str
    value: float
    error: float | None = None
    unit: str = ""
    samples: float | None = None
    remark: str = ""

    def number(self) -> str:
        """Return value, error and unit; two digits of the error count."""
        return f"{rounded(self.value, self.error)} {self.unit}".rstrip()

    def text(self) -> str:
        """Return the number with the remark behind it."""
        return f"{self.number()} ({self.remark})" if self.remark else self.number()


@dataclass(frozen=True)
class Picture:
    """A figure of one diagram.

    Attributes
    ----------
    name
        Of its file, without suffix.
    title
        Above it.
    caption
        What is to be seen, with the main numbers, for those who cannot see it too.
    draw
        Fills the Axes.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Axes], None]


@dataclass
class Section:
    """Quantities and pictures on one subject, and remarks on how they were made."""

    title: str
    quantities: list[Quantity] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def average(name: str, values: np.ndarray, unit: str = "", remark: str = "") -> Quantity:
    """Return the mean of a correlated time series, with its error and number of samples.

    What never changed has neither: its error is not zero, but unknown.
    """
    values = np.asarray(values, dtype=float)
    if np.ptp(values) <= 1e-12 * abs(values[0]):
        remark = remark or (CONSTANT if len(values) > 1 else "one frame only")
        return Quantity(name, float(values[0]), None, unit, None, remark)
    samples = len(values) / statistical_inefficiency(values)
    return Quantity(
        name,
        float(values.mean()),
        _finite(block_error(values)),
        unit,
        _finite(samples),
        remark,
    )


def rounded(value: float, error: float | None) -> str:
    """Return a number as people write it: '1.234 ± 0.056', or four digits without an error."""
    if error is None:
        return f"{value:.4g}"
    if error == 0:
        return f"{value:.6g} ± 0"
    digits = max(0, 1 - int(np.floor(np.log10(error))))
    if digits > 6:
        return f"{value:.3g} ± {error:.1g}"
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None  # JSON has no NaN
