"""A whole benchmark: what is measured, and in which order."""

import contextlib
import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError, did_you_mean
from ..kernels.engine import set_num_threads
from . import machine
from .budget import Budget, Forecast
from .energy import describe, measure_energy
from .engines import ENGINES, check_names
from .md import fastest_platform, measure_md
from .memory import measure_memory
from .models import SHAPES, make_model
from .profile import measure_profile
from .results import PARTS, PLOT, Results, Row, plot
from .training import measure_training

_MEMORY_ENGINES = ("fused", "reference", "nequip")


@dataclass
class Settings:
    """What to measure.

    Attributes
    ----------
    parts, models, engines
        Keys of `results.PARTS`, `models.SHAPES` and `engines.ENGINES`.
    atoms
        Sizes of the boxes of water; those that are too small for a period are clusters.
    repeats
        Rounds of alternating repeats.
    minutes
        Time for all of it; what does not fit is skipped, with the reason in the results.
    compile
        Whether nequip's models may be compiled, minutes for each.
    threads
        Of the CPU.
    device
        As PyTorch names it.
    platform
        Of OpenMM; `None`: the fastest one for the device.
    memory_atoms
        Size of the box of the memory part, whose model is M where that is among the models.
    data
        Labelled frames for the training part; distorted aspirin molecules if not given.
    """

    parts: list[str] = field(default_factory=lambda: ["energy", "md"])
    models: list[str] = field(default_factory=lambda: ["aspirin", "S", "M"])
    engines: list[str] = field(default_factory=lambda: list(ENGINES))
    atoms: list[int] = field(default_factory=lambda: [21, 192])
    repeats: int = 5
    minutes: float = 2.0
    compile: bool = False
    threads: int = field(default_factory=machine.cores)
    device: str = "cpu"
    platform: str | None = None
    memory_atoms: int = 12_000
    data: Path | None = None

    def check(self) -> None:
        """Raise InputError where a name is unknown."""
        for kind, names, known in (
            ("part", self.parts, PARTS),
            ("model", self.models, SHAPES),
        ):
            for name in names:
                if name not in known:
                    raise InputError(
                        f"unknown {kind} '{name}'{did_you_mean(name, known)}; "
                        f"known: {', '.join(known)}"
                    )
        check_names(self.engines)


def full(**changes: Any) -> Settings:
    """Return the settings of the published figures, which take an hour or more."""
    values: dict[str, Any] = {
        "parts": list(PARTS),
        "models": list(SHAPES),
        "atoms": [21, 192, 648, 3000, 12_000],
        "minutes": 90.0,
        "compile": True,
    }
    return Settings(**(values | changes))


def run(
    settings: Settings,
    folder: Path,
    overwrite: bool = False,
    observer: Callable[[Row], None] = lambda row: None,
    stage: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measure, and write the results as they come.

    Parameters
    ----------
    settings
        What to measure.
    folder
        Gets ``benchmark.json`` and ``benchmark.png``.
    overwrite
        Whether results in `folder` may be replaced.
    observer
        Told about every row.
    stage
        Told what is measured next.

    Returns
    -------
    dict
        The content of ``benchmark.json``.

    Raises
    ------
    InputError
        A setting is wrong, or the folder has results.
    """
    settings.check()
    set_num_threads(settings.threads)
    platform = settings.platform or fastest_platform(settings.device)
    header = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": machine.describe(settings.threads, settings.device, platform),
        "versions": machine.all_versions(),
        "settings": {**asdict(settings), "data": settings.data and str(settings.data)},
    }
    results = Results(folder, header, overwrite, observer)
    budget = Budget(60 * settings.minutes)
    with _quiet():
        for part, name in _plan(settings):
            stage(f"{PARTS[part]}: {name}")
            try:
                _measure(part, name, settings, platform, budget, results)
            except InputError:
                raise
            except Exception as error:  # what was measured before is worth keeping
                results.add(Row(part, name, 0, "all", status="failed", reason=describe(error)))
    results.finish()
    plot(results.document(), folder / PLOT)
    return results.document()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the peers say about their own installation."""
    os.environ.setdefault("TORCHANI_NO_WARN_EXTENSIONS", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _plan(settings: Settings) -> list[tuple[str, str]]:
    """Return parts and models in the order in which they are measured."""
    plan: list[tuple[str, str]] = [
        (part, name)
        for part in ("energy", "md", "profile")
        if part in settings.parts
        for name in settings.models
    ]
    if "training" in settings.parts:
        plan.append(("training", "aspirin"))
    if "memory" in settings.parts:
        boxes = [name for name in settings.models if name != "aspirin"] or ["M"]
        plan.append(("memory", "M" if "M" in boxes else boxes[0]))
    return plan


def _measure(
    part: str, name: str, settings: Settings, platform: str, budget: Budget, results: Results
) -> None:
    sizes = [21] if name == "aspirin" else settings.atoms
    if part == "energy":
        measure_energy(
            make_model(name),
            sizes,
            settings.engines,
            settings.repeats,
            settings.device,
            Forecast(budget),
            results,
            settings.compile,
        )
    elif part == "md":
        measure_md(
            make_model(name),
            sizes,
            settings.engines,
            settings.repeats,
            settings.device,
            platform,
            Forecast(budget),
            results,
        )
    elif part == "profile":
        measure_profile(
            make_model(name), sizes, settings.repeats, platform, Forecast(budget), results
        )
    elif part == "memory":
        engines = [engine for engine in settings.engines if engine in _MEMORY_ENGINES]
        measure_memory(name, settings.memory_atoms, engines, settings.device, budget, results)
    else:
        measure_training(settings.engines, settings.data, 4, 2, settings.device, budget, results)
