"""How fast the network is on a GPU, beside other implementations and the machine's own limits."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.build import molecule
from correct import within_tolerance
from measuring import milliseconds, peak_gb, reset_peak, wait
from report import Report, Skipped
from torch.autograd import DeviceType

from openmm_nequip.benchmarking.budget import Budget
from openmm_nequip.benchmarking.engines import ENGINES
from openmm_nequip.benchmarking.models import (
    Model,
    Unavailable,
    make_model,
    nequip_state,
    upstream_data,
)
from openmm_nequip.benchmarking.results import Results
from openmm_nequip.benchmarking.samples import Sample
from openmm_nequip.benchmarking.training import measure_training
from openmm_nequip.data.frame import Frame
from openmm_nequip.data.graph import Graph, collate
from openmm_nequip.kernels.replay import ReplayedStep

#: Engines in addition to those of ``openmm-nequip benchmark``.
COMPILED = ("torch.compile", "openequivariance", "cuequivariance")
_MODIFIERS = {
    "openequivariance": "enable_OpenEquivariance",
    "cuequivariance": "enable_CuEquivariance",
}
#: Atoms of H, C, N, O; as many and as dense as the molecules of the data sets.
_MOLECULES = {"aspirin": (8, 9, 0, 4), "3bpa": (12, 12, 2, 1)}


def ceilings(device: str, mebibytes: int = 1024, width: int = 8192) -> dict:
    """Measure what the machine can do at most: memory, arithmetic, launches."""
    source = torch.empty(mebibytes << 18, device=device)
    target = torch.empty_like(source)
    copied = milliseconds(lambda: target.copy_(source), device, 0.5)["fastest_ms"]
    found: dict[str, Any] = {"copy_gb_s": 2 * source.nbytes / copied * 1e-6}
    for name, dtype in (("float32", torch.float32), ("float64", torch.float64)):
        a = torch.randn(width, width, device=device, dtype=dtype)
        took = milliseconds(lambda a=a: a @ a, device, 0.5)["fastest_ms"]
        found[f"{name}_tflop_s"] = 2 * width**3 / took * 1e-9
    small = torch.zeros(1, device=device)
    for _ in range(10):
        small.add_(1)
    wait(device)
    start = time.perf_counter()
    for _ in range(1000):
        small.add_(1)
    found["launch_us"] = 1e3 * (time.perf_counter() - start)
    return found


def step(size: str, atoms: int, engine: str, device: str, seconds: float = 1.0) -> dict:
    """Time energies and forces of a prepared graph."""
    model = model_of(size)
    sample = model.sample(atoms)
    graph = model.graph(sample)
    try:
        call = _prepare(model, engine, device, sample, graph)
    except Unavailable as reason:
        raise Skipped(str(reason)) from None
    reset_peak(device)
    result = milliseconds(call, device, seconds)
    return result | {"edges": graph.edge_index.shape[1], "peak_gb": peak_gb(device)}


def model_of(size: str) -> Model:
    """Return a network whose splines need not be chosen anew for each item."""
    model = make_model(size)
    model.potential.metadata["radial_spline"] = {"intervals": 256}
    return model


def _prepare(
    model: Model, engine: str, device: str, sample: Sample, graph: Graph
) -> Callable[[], Any]:
    if engine in ("fused", "reference", "torch.compile"):
        potential = model.potential
        if engine == "fused":
            potential = potential.with_engine("fused")
        potential, graph = potential.to(device), graph.to(device)
        if engine == "torch.compile":
            potential.network = torch.compile(potential.network, dynamic=True)
        return lambda: potential(graph)
    if engine in ENGINES:
        return ENGINES[engine](model, device).prepare(sample)
    network = model.upstream
    try:
        with nequip_state():
            from nequip.model.modify_utils import modify

            network = modify(network, [{"modifier": _MODIFIERS[engine]}]).to(device)
    except ImportError as error:
        raise Skipped(f"{engine} is not installed ({error})") from None
    data = upstream_data(graph, device)
    return lambda: network(dict(data))


def replay(size: str, atoms: int, device: str, seconds: float = 1.0) -> dict:
    """Time neighbours, energies and forces as a replayed CUDA graph (elsewhere without a graph)."""
    model = model_of(size)
    frame = model.sample(atoms).frame
    potential = model.potential.with_engine("fused").to(device)
    step, errors, positions = None, [], torch.empty(0)
    # captured, replayed where the atoms are elsewhere, captured anew for more neighbours
    for scale, shake in ((1.0, 0.0), (1.0, 0.03), (0.9, 0.0)):
        rng = np.random.default_rng(0)
        points = scale * frame.positions + rng.normal(scale=shake, size=frame.positions.shape)
        graph = model.potential.to_graph(replace(frame, positions=points))
        box = frame.cell if frame.cell is None else torch.from_numpy(frame.cell).to(device)
        if step is None:
            step = ReplayedStep(potential.requires_grad_(False), graph.types.to(device))
        positions = graph.positions.to(device)
        found = step(positions, box)[1].cpu()
        errors.append(within_tolerance(found, model.potential(graph).forces)["force_error"])
    times = milliseconds(lambda: step(positions, box), device, seconds)
    return times | {"captures": step.captures, "capacity": step.capacity,
                    "force_error": max(errors)}  # fmt: skip


def largest(report: Report, size: str, engine: str, device: str, atoms: int, most: int) -> None:
    """Double the system until something fails."""
    while atoms <= most:
        name = f"largest/{size}/{engine}/{atoms}"
        item = report.measure(name, step, size, atoms, engine, device, 0.5, limit=90)
        if "ms" not in item:
            return
        atoms *= 2


def small_molecule(name: str, seed: int = 0) -> Frame:
    """Return ethanol, or as many atoms, as dense, as another molecule has."""
    rng = np.random.default_rng(seed)
    if name == "ethanol":
        atoms = molecule("CH3CH2OH")
        return Frame(atoms.numbers, atoms.positions + 0.03 * rng.normal(size=(9, 3)))
    numbers = np.repeat([1, 6, 7, 8], _MOLECULES[name])
    grid = np.argwhere(np.ones((3, 3, 3)))[: len(numbers)]
    positions = 1.7 * grid + rng.uniform(-0.2, 0.2, grid.shape)
    return Frame(rng.permutation(numbers), positions)


def train(size: str, name: str, batch: int, engine: str, device: str, seconds: float = 1.0) -> dict:
    """Time training steps: energies and forces, their loss, its gradient, the optimizer."""
    potential = make_model(size, type_names=["H", "C", "N", "O"]).potential
    if engine == "fused":
        potential = potential.with_engine("fused")
    potential = potential.to(device).train()
    graph = collate([potential.to_graph(small_molecule(name, seed)) for seed in range(batch)])
    optimizer = torch.optim.Adam(potential.parameters(), lr=1e-4)
    energies = torch.randn(batch, dtype=torch.float64, device=device)
    forces = torch.randn_like(graph.positions)

    def one_step() -> None:
        optimizer.zero_grad(set_to_none=True)
        output = potential(graph)
        loss = (output.energy - energies).square().mean()
        (loss + (output.forces - forces).square().mean()).backward()
        optimizer.step()

    reset_peak(device)
    result = milliseconds(one_step, device, seconds)
    return result | {"frames_per_s": 1e3 * batch / result["ms"], "peak_gb": peak_gb(device)}


def train_program(engine: str, device: str, epochs: int, limit: float) -> dict:
    """Time the training command, or nequip-train: data loading, loop and all."""
    with tempfile.TemporaryDirectory() as folder:
        results = Results(Path(folder), {})
        measure_training([engine], None, epochs, 1, device, Budget(limit), results)
    row = results.rows[0]
    if row.status == "unavailable":
        raise Skipped(row.reason)
    if row.status != "measured":
        raise RuntimeError(row.reason)
    return {"ms": 1e3 * float(np.median(row.seconds)), **row.details}


def profile(size: str, atoms: int, engine: str, device: str, steps: int = 5) -> dict:
    """Return the kernels that take most of the device's time, and how much of it is idle."""
    model = model_of(size)
    sample = model.sample(atoms)
    call = _prepare(model, engine, device, sample, model.graph(sample))
    for _ in range(3):
        call()
    on_gpu = device.startswith("cuda")
    activities = [torch.profiler.ProfilerActivity.CPU]
    if on_gpu:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as trace:
        call()
        wait(device)
        start = time.perf_counter()
        for _ in range(steps):
            call()
        wait(device)
        passed = time.perf_counter() - start
    steps += 1  # with the one before the clock
    kind = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    events = sorted(trace.key_averages(), key=lambda event: -getattr(event, kind))
    if on_gpu:  # kernels themselves; what launched them has their time too
        events = [event for event in events if event.device_type == DeviceType.CUDA]
    microseconds = [(event, getattr(event, kind) / steps) for event in events]
    busy = sum(us for _, us in microseconds)
    return {
        "busy_ms": busy / 1e3,
        "busy_share": busy / (1e6 * passed / (steps - 1)),
        "kernels": sum(event.count for event, us in microseconds if us > 0) // steps,
        "top": [
            {"name": event.key[:120], "ms": us / 1e3, "calls": event.count // steps}
            for event, us in microseconds[:15]
        ],
    }
