"""Results of `record`, by what they are of."""

from typing import Any

import tasks

Results = list[dict[str, Any]]

ENERGY, FORCES = "energy_mae_meV", "forces_mae_meV_per_A"


def case_of(result: dict[str, Any]) -> tasks.Case:
    """Return the run that a result is of."""
    names = ("task", "frames", "seed", "molecule", "split", "l_max")
    later = {name: result.get(name) for name in ("start", "change")}  # older results lack them
    return tasks.Case(**{name: result[name] for name in names}, **later)


def current(results: Results) -> Results:
    """Return the results of runs with today's configuration files, and of the first split."""
    return [
        r
        for r in results
        if r["split"] in (None, "01")
        and r["digest"] == tasks.digest(tasks.configuration(case_of(r)))
    ]


def select(results: Results, **values: Any) -> Results:
    """Return the results with these values."""
    return [r for r in results if all(r[key] == value for key, value in values.items())]


def sizes(results: Results) -> list[int]:
    """Return the sizes of the training sets."""
    return sorted({r["frames"] for r in results})
