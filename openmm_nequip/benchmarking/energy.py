"""Energy and forces of a prepared graph: what the networks cost, without neighbour lists."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .budget import Forecast
from .engines import ENGINES, Call, Engine
from .machine import memory_of_process, reset_peak
from .models import Disagreement, Evaluation, Model, Unavailable, compare
from .results import Results, Row
from .timing import alternate, calls_per_repeat, stopwatch

_SMALL = 192  # atoms; larger cases are forecast from one of at most this size
_CHECKED = 20_000  # edges up to which the reference is evaluated for a check alone


@dataclass
class _Case:
    """The engines that take part in one case, and how their numbers compare."""

    expected: Evaluation | None = None
    scale: float = 1.0
    calls: dict[str, Call] = field(default_factory=dict)
    times: dict[str, int] = field(default_factory=dict)
    rows: dict[str, Row] = field(default_factory=dict)


def measure_energy(
    model: Model,
    sizes: list[int],
    engines: list[str],
    repeats: int,
    device: str,
    forecast: Forecast,
    results: Results,
    compile: bool = True,
) -> None:
    """Measure every engine on every size; what cannot be measured is a row with the reason.

    Parameters
    ----------
    model, sizes, engines
        Potential, numbers of atoms, names of `ENGINES`.
    repeats
        Rounds of alternating repeats.
    device
        Where to compute.
    forecast
        Decides what can be afforded.
    results
        Get the rows.
    compile
        Whether engines that take minutes to compile may do so.
    """
    ready, problems = set_up(model, engines, device, compile)
    if min(sizes) > _SMALL:
        _forecast_from_small(model, ready, forecast)
    for atoms in sorted(sizes):
        _measure_case(model, atoms, engines, ready, problems, repeats, forecast, results)


def set_up(
    model: Model, engines: list[str], device: str, compile: bool
) -> tuple[dict[str, Engine], dict[str, tuple[str, str]]]:
    """Build engines; of those that cannot be built, return status and reason."""
    ready: dict[str, Engine] = {}
    problems: dict[str, tuple[str, str]] = {}
    for name in engines:
        if name == "nequip-aotinductor" and not compile:
            problems[name] = (
                "skipped",
                "compiling takes minutes: --full, or ask for it by --engine",
            )
            continue
        try:
            ready[name] = ENGINES[name](model, device)
        except Unavailable as reason:
            problems[name] = ("unavailable", str(reason))
        except Exception as error:  # a peer's failure must not end the run
            problems[name] = ("failed", describe(error))
    return ready, problems


def describe(error: Exception) -> str:
    """Return the kind of an exception and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _forecast_from_small(model: Model, ready: dict[str, Engine], forecast: Forecast) -> None:
    sample = model.sample(_SMALL)
    edges = model.graph(sample).edge_index.shape[1]
    for name, engine in ready.items():
        try:
            call = engine.prepare(sample)
            call()
            forecast.note(name, edges, *cost_of_call(call))
        except Exception:
            continue  # reported with the cases themselves


def _measure_case(
    model: Model,
    atoms: int,
    engines: list[str],
    ready: dict[str, Engine],
    problems: dict[str, tuple[str, str]],
    repeats: int,
    forecast: Forecast,
    results: Results,
) -> None:
    sample = model.sample(atoms)
    edges = model.graph(sample).edge_index.shape[1]
    case = _Case()
    if edges <= _CHECKED:
        _expect(case, model, sample)
    for name in engines:
        row = case.rows[name] = Row("energy", model.name, len(sample.frame), name, edges)
        if name in problems:
            row.status, row.reason = problems[name]
        elif reason := forecast.objection(name, edges, repeats + 2):
            row.status, row.reason = "skipped", reason
        else:
            _enter(case, row, ready[name], sample, repeats, forecast)
    seconds = alternate(case.calls, repeats, case.times)
    for name, row in case.rows.items():
        row.seconds = seconds.get(name, [])
        results.add(row)


def _expect(case: _Case, model: Model, sample: Any) -> None:
    """Evaluate the reference engine for comparison."""
    potential = model.potential
    output = potential(model.graph(sample).to(potential.device))
    case.expected = Evaluation(float(output.energy), output.forces.cpu().numpy())
    case.scale = float(output.atomic_energies.abs().sum())


def _enter(
    case: _Case, row: Row, engine: Engine, sample: Any, repeats: int, forecast: Forecast
) -> None:
    """Call an engine for the first time, check its numbers, and let it take part."""
    name, edges = row.engine, row.edges or 1
    outputs: list[Any] = []
    try:
        call = engine.prepare(sample)
        row.details["first_call_s"] = stopwatch(lambda: outputs.append(call()))
        found = engine.read(outputs.pop())
        if not np.isfinite(found.forces).all():
            raise Disagreement("forces are not finite")
        if engine.same_weights and case.expected is not None:
            row.details["relative_difference"] = compare(case.expected, found, case.scale)
        once, memory = cost_of_call(call)
    except Disagreement as error:
        row.status, row.reason = "disagrees", str(error)
        return
    except Exception as error:
        row.status, row.reason = "failed", describe(error)
        return
    forecast.note(name, edges, once, memory)
    if reason := forecast.objection(name, edges, repeats):
        row.status, row.reason = "skipped", reason
        return
    case.calls[name] = call
    case.times[name] = calls_per_repeat(once)
    row.details |= {"calls_per_repeat": case.times[name], "memory_mb": memory / 1e6}
    if engine.note:
        row.details["note"] = engine.note


def cost_of_call(call: Call) -> tuple[float, int]:
    """Return the seconds of a call, and the bytes by which it raises the resident memory.

    The bytes are those at the peak; 0 where they are not known.
    """
    before = memory_of_process("VmRSS")
    reset_peak()
    seconds = stopwatch(call)
    return seconds, max(0, memory_of_process("VmHWM") - before)
