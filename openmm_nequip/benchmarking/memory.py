"""Peak memory of one evaluation, in a process of its own."""

import json
import resource
import subprocess
import sys
from typing import Any

from .budget import Budget, Forecast
from .energy import cost_of_call, describe
from .engines import ENGINES
from .machine import memory_of_process, reset_peak
from .models import Unavailable, make_model
from .results import Results, Row
from .timing import stopwatch

_SMALL = 192  # atoms


def measure_memory(
    model: str, atoms: int, engines: list[str], device: str, budget: Budget, results: Results
) -> None:
    """Measure engines one after the other, each in a fresh process.

    Parameters
    ----------
    model, atoms, engines
        Keys of `SHAPES` and `ENGINES`, and the number of atoms.
    device
        Where to compute; on a GPU it is the GPU's memory that is measured.
    budget
        Ends a process that takes too long.
    results
        Get the rows.
    """
    for engine in engines:
        row = Row("memory", model, atoms, engine)
        if budget.left() <= 0:
            row.status, row.reason = "skipped", "the time is used up"
        else:
            _measure(row, device, budget)
        results.add(row)


def _measure(row: Row, device: str, budget: Budget) -> None:
    command = [sys.executable, "-m", __name__, row.engine, row.model, str(row.atoms), device]
    command.append(str(budget.left()))
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=budget.left())
    except subprocess.TimeoutExpired:
        row.status, row.reason = "skipped", "took longer than the time that was left"
        return
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        row.status, row.reason = "failed", last
        return
    answer = json.loads(done.stdout.splitlines()[-1])
    for key, value in answer.items():
        setattr(row, key, value)


def _evaluate(engine_name: str, model_name: str, atoms: int, device: str, left: float) -> dict:
    """Return fields of the row."""
    import torch

    model = make_model(model_name)
    try:
        engine = ENGINES[engine_name](model, device)
    except Unavailable as error:
        return {"status": "unavailable", "reason": str(error)}
    except Exception as error:
        return {"status": "failed", "reason": describe(error)}
    small, large = model.sample(_SMALL), model.sample(atoms)
    edges = [model.graph(sample).edge_index.shape[1] for sample in (small, large)]
    call = engine.prepare(small)
    call()
    forecast = Forecast(Budget(left))
    forecast.note(engine_name, edges[0], *cost_of_call(call))
    answer: dict[str, Any] = {"edges": edges[1]}
    if reason := forecast.objection(engine_name, edges[1], 1):
        return {**answer, "status": "skipped", "reason": reason}
    call = engine.prepare(large)
    on_gpu = device.startswith("cuda")
    before = torch.cuda.memory_allocated() if on_gpu else memory_of_process("VmRSS")
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    reset_peak()
    answer["seconds"] = [stopwatch(call)]
    if on_gpu:
        peak = torch.cuda.max_memory_allocated()
    else:
        # the kernel's counters are not exact: a peak may read a little less than what was there
        peak = max(before, memory_of_process("VmHWM") or _lifetime_peak())
    answer["details"] = {"peak_mb": peak / 1e6, "before_mb": before / 1e6}
    return answer


def _lifetime_peak() -> int:
    """Return the peak over the whole life of the process, where nothing else is known."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    name, shape, number, place, seconds_left = sys.argv[1:]
    print(json.dumps(_evaluate(name, shape, int(number), place, float(seconds_left))))
