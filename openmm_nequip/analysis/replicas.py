"""Several runs of the same thing: what they agree on, and how well."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import chi2

from ..modelfile import write_atomically
from .results import CONSTANT, Quantity, rounded
from .summary import Analysis

_UNLIKELY = 1e-3  # probability of such a scatter, were the errors of the single runs right


@dataclass(frozen=True)
class Combined:
    """A quantity of several replicas.

    Attributes
    ----------
    mean
        Mean of the replicas; its error is their standard deviation over the root of their number,
        or what follows from their own errors where that is larger.
    single
        The quantity in each replica.
    """

    mean: Quantity
    single: list[Quantity]

    @property
    def is_scattered(self) -> bool:
        """Whether replicas differ by more than their own errors explain."""
        errors = [q.error for q in self.single]
        if all(q.remark == CONSTANT for q in self.single):
            return not _all_alike(self.single)
        if any(not error for error in errors):
            return False
        squares = [
            ((q.value - self.mean.value) / error) ** 2
            for q, error in zip(self.single, errors, strict=True)
            if error
        ]
        return bool(chi2.sf(sum(squares), len(squares) - 1) < _UNLIKELY)


def find_replicas(folder: Path) -> list[Path]:
    """Return the run folders ``replica-1``, ``replica-2``, ... of a folder, in this order."""
    found = {
        int(path.name.removeprefix("replica-")): path
        for path in folder.glob("replica-*")
        if path.name.removeprefix("replica-").isdigit() and (path / "state.csv").exists()
    }
    return [found[number] for number in sorted(found)]


def combine(analyses: list[Analysis]) -> list[Combined]:
    """Average the quantities that all replicas have; at least 2 replicas."""
    tables = [{q.name: q for s in analysis.sections for q in s.quantities} for analysis in analyses]
    found = []
    for name, first in tables[0].items():
        if not all(name in table for table in tables):
            continue
        single = [table[name] for table in tables]
        values = np.array([q.value for q in single])
        scatter = values.std(ddof=1) / np.sqrt(len(values))
        # Few replicas may agree by chance: not better than their own errors allow.
        own = np.sqrt(sum((q.error or 0.0) ** 2 for q in single)) / len(values)
        error = float(max(scatter, own)) or None
        remark = first.remark if all(q.remark == first.remark for q in single) else ""
        if remark == CONSTANT and not _all_alike(single):
            remark = "each replica always the same"
        mean = Quantity(name, float(values.mean()), error, first.unit, remark=remark)
        found.append(Combined(mean, single))
    return found


def _all_alike(single: list[Quantity]) -> bool:
    values = [q.value for q in single]
    return float(np.ptp(values)) <= 1e-6 * max(map(abs, values))


def scattered(found: list[Combined]) -> list[str]:
    """Say which quantities differ between replicas by more than their errors."""
    names = [combined.mean.name for combined in found if combined.is_scattered]
    if not names:
        return []
    return [
        f"Replicas differ by more than their own errors in: {', '.join(names)}. A single one has "
        "not seen everything: trust the error from their scatter, and run for longer."
    ]


def save_combined(folder: Path, analyses: list[Analysis], found: list[Combined]) -> None:
    """Write ``summary.json`` and ``summary.md`` of all replicas into the folder above them."""
    summary: dict[str, Any] = {
        "replicas": [analysis.run.folder.name for analysis in analyses],
        "results": {
            c.mean.name: {
                "value": c.mean.value,
                "error": c.mean.error,
                "unit": c.mean.unit,
                "remark": c.mean.remark,
                "replicas": [q.value for q in c.single],
            }
            for c in found
        },
        "cautions": scattered(found),
    }
    text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / "summary.json", text.encode())
    header = ["", "mean", *summary["replicas"]]
    lines = [f"# {analyses[0].title}", "", f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    lines += [f"| {' | '.join(row)} |" for row in table(found)]
    lines += ["", *summary["cautions"], ""]
    write_atomically(folder / "summary.md", "\n".join(lines).encode())


def table(found: list[Combined]) -> list[list[str]]:
    """Return for each quantity its name and remark, the mean, and the single values."""
    rows = []
    for combined in found:
        mean = combined.mean
        name = f"{mean.name} ({mean.remark})" if mean.remark else mean.name
        single = [rounded(q.value, q.error) for q in combined.single]
        rows.append([name, mean.number(), *single])
    return rows
