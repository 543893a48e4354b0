"""What the fused engine does on a GPU: correctness, time per step, largest system, training.

Needs a CUDA GPU, and stops within eight minutes with what it has by then::

    python benchmarks/gpu.py --output gpu.json

Every item is measured for itself: one that fails is recorded with its error. Weights are random;
steps are energies and forces, with the neighbours known unless the item says otherwise.
"""

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import os
import signal
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.build import molecule

from openmm_nequip.architectures.nequip import PRESETS, NequIPConfig
from openmm_nequip.data.frame import Frame
from openmm_nequip.data.graph import Graph, collate
from openmm_nequip.kernels import ops, torch_backend
from openmm_nequip.kernels.edges import Edges
from openmm_nequip.kernels.form import form, form_key
from openmm_nequip.kernels.replay import MOST_ATOMS, ReplayedStep
from openmm_nequip.potential import Potential
from openmm_nequip.versions import versions

R_MAX = 5.0
ELEMENTS = ["H", "C", "O"]
#: Of the kernels against float64, relative to the largest element; of whole forces with splines.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
FORCE_TOLERANCE = 1e-4


class Report:
    """Measures items one by one within the time, and keeps the file up to date."""

    def __init__(self, path: Path, seconds: float, device: str):
        self.path, self.device = path, device
        self.end = time.monotonic() + seconds
        gpu = torch.cuda.get_device_properties(device) if device.startswith("cuda") else None
        packages = versions()
        for name in ("triton", "nequip", "openequivariance"):
            if importlib.util.find_spec(name):
                packages[name] = importlib.metadata.version(name)
        self.document: dict[str, Any] = {
            "machine": {
                "gpu": gpu and gpu.name,
                "memory_gb": gpu and round(gpu.total_memory / 1e9, 1),
                "capability": gpu and f"{gpu.major}.{gpu.minor}",
                "cuda": torch.version.cuda,
            },
            "versions": packages,
            "items": [],
        }

    def measure(self, name: str, function: Callable[[], dict], limit: float = 60.0) -> dict:
        """Run one item, for `limit` seconds at most."""
        item: dict[str, Any] = {"name": name}
        left = min(limit, self.end - time.monotonic())
        start = time.monotonic()
        if left < 2:
            item["error"] = "no time left"
        else:
            signal.setitimer(signal.ITIMER_REAL, left)
            try:
                item |= function()
            except Exception as error:
                message = str(error).strip().splitlines() or [""]
                item["error"] = f"{type(error).__name__}: {message[0][:300]}"
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        item["took_s"] = round(time.monotonic() - start, 2)
        self.document["items"].append(item)
        self.path.write_text(json.dumps(self.document, indent=2))
        values = ", ".join(f"{key} {_short(value)}" for key, value in item.items() if key != "name")
        print(f"{name:44s} {values}", flush=True)
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
        return item


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _alarm(*_: Any) -> None:
    raise TimeoutError("took too long")


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def milliseconds(call: Callable[[], Any], device: str, seconds: float = 1.0) -> dict[str, float]:
    """Return the median time of a call, after calls that compile and allocate."""
    for _ in range(3):
        call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or (len(times) < 100 and time.perf_counter() < end):
        _wait(device)
        start = time.perf_counter()
        call()
        _wait(device)
        times.append(1e3 * (time.perf_counter() - start))
    return {"ms": statistics.median(times), "fastest_ms": min(times), "calls": len(times)}


def make_potential(size: str) -> Potential:
    """Return a model of this size with random weights, in float32, on the CPU."""
    torch.manual_seed(1)
    config = NequIPConfig(type_names=ELEMENTS, r_max=R_MAX, avg_num_neighbors=55.0, **PRESETS[size])
    return Potential(config).eval()


def water(atoms: int, seed: int = 0) -> Frame:
    """Return molecules on a jittered grid, randomly turned; periodic if wide enough."""
    rng = np.random.default_rng(seed)
    molecules = atoms // 3
    edge = (29.97 * molecules) ** (1 / 3)
    sites = int(np.ceil(molecules ** (1 / 3) - 1e-9))
    grid = np.argwhere(np.ones((sites,) * 3))[:molecules]
    oxygens = (grid + 0.5 + rng.uniform(-0.05, 0.05, (molecules, 3))) * edge / sites
    turns = np.linalg.qr(rng.normal(size=(molecules, 3, 3)))[0]
    shape = np.array([[0, 0, 0], [0.757, 0.586, 0], [-0.757, 0.586, 0]])
    positions = (oxygens[:, None] + shape @ turns).reshape(-1, 3)
    periodic = edge >= 2 * R_MAX
    cell = edge * np.eye(3) if periodic else None
    return Frame(np.tile([8, 1, 1], molecules), positions, cell, (periodic,) * 3)


def small_molecule(name: str, seed: int = 0) -> Frame:
    """Return ethanol, or 21 atoms as many and as dense as aspirin's."""
    rng = np.random.default_rng(seed)
    if name == "ethanol":
        atoms = molecule("CH3CH2OH")
        return Frame(atoms.numbers, atoms.positions + 0.03 * rng.normal(size=(9, 3)))
    grid = np.argwhere(np.ones((3, 3, 3)))[:21]
    return Frame(
        np.array([6] * 9 + [1] * 8 + [8] * 4), 1.7 * grid + rng.uniform(-0.2, 0.2, (21, 3))
    )


def check_kernels(key: str, dtype: torch.dtype, device: str, atoms: int = 60) -> dict:
    """Compare the five operators with plain PyTorch in float64."""
    f, generator = form(key), torch.Generator().manual_seed(0)
    edge_index = torch.randint(0, atoms - 1, (2, 10 * atoms), generator=generator)
    edges = Edges.of(edge_index.to(device), atoms)
    num_edges = edge_index.shape[1]
    sizes: dict[str, tuple[int, ...]] = {
        "x": (atoms, f.x_dim), "y": (num_edges, f.y_dim), "w": (num_edges, f.w_dim),
        "g": (atoms, f.out_dim), "table": (67, f.w_dim),
    }  # fmt: skip
    sizes |= {f"a{name}": sizes[name] for name in "xyw"}
    values = {name: torch.randn(size, generator=generator) for name, size in sizes.items()}
    values["r"] = 1.1 * torch.rand(num_edges, generator=generator)
    exact = {name: value.to(device, torch.float64) for name, value in values.items()}
    given = {name: value.to(dtype) for name, value in exact.items()}
    found: dict[str, Any] = {}
    for function, names in (
        ("convolution", "x y w"),
        ("convolution_backward", "g x y w"),
        ("convolution_double_backward", "ax ay aw g x y w"),
        ("radial_convolution", "x y r table"),
        ("radial_convolution_backward", "g x y r table"),
    ):
        call, reference = getattr(ops, function), getattr(torch_backend, function)
        results = [call(*(given[n] for n in names.split()), edges, key) for _ in range(2)]
        expected = reference(*(exact[n] for n in names.split()), edges, key)
        if isinstance(expected, torch.Tensor):
            results, expected = [(r,) for r in results], (expected,)
        pairs = list(zip(results[0], expected, strict=True))
        found[function] = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
        if not all(torch.equal(a, b) for a, b in zip(*results, strict=True)):
            raise AssertionError(f"{function} differs from call to call")
    if not max(found.values()) <= TOLERANCE[dtype]:
        raise AssertionError(f"largest relative errors {found}")
    return found


def check_forces(size: str, atoms: int, device: str) -> dict:
    """Compare the forces of the fused engine with those of the reference."""
    potential = make_potential(size).to(device)
    graph = potential.to_graph(water(atoms))
    expected = potential(graph).forces
    found = potential.with_engine("fused")(graph).forces
    error = float((found - expected).abs().max() / expected.abs().max())
    if not error <= FORCE_TOLERANCE:
        raise AssertionError(f"forces differ by {error:.2e} of the largest")
    return {"force_error": error}


def step(size: str, atoms: int, engine: str, device: str, seconds: float = 1.0) -> dict:
    """Time energies and forces."""
    if engine in ("nequip-compile", "openequivariance"):
        return _upstream_step(size, atoms, engine, device, seconds)
    potential = make_potential(size).to(device)
    if engine == "fused":
        potential = potential.with_engine("fused")
    elif engine == "torch.compile":
        potential.network = torch.compile(potential.network, dynamic=True)
    graph = potential.to_graph(water(atoms))
    _reset_peak(device)
    result = milliseconds(lambda: potential(graph), device, seconds)
    return result | {"edges": graph.edge_index.shape[1], "peak_gb": _peak(device)}


def _upstream_step(size: str, atoms: int, engine: str, device: str, seconds: float) -> dict:
    """Time the nequip package: its compiled model, or OpenEquivariance's kernels in it."""
    from openmm_nequip.benchmarking.models import make_model, nequip_state, upstream_data

    model = make_model(size, type_names=ELEMENTS)
    if engine == "openequivariance":
        from nequip.model.modify_utils import modify

        importlib.import_module("openequivariance")
        with nequip_state():
            network = modify(model.upstream, [{"modifier": "enable_OpenEquivariance"}])
        network = network.to(device)
    else:
        network = model.compiled(device)
    data = upstream_data(model.potential.to_graph(water(atoms)), device)
    _reset_peak(device)
    result = milliseconds(lambda: network(dict(data)), device, seconds)
    return result | {"edges": data["edge_index"].shape[1], "peak_gb": _peak(device)}


def replay(size: str, atoms: int, device: str, seconds: float = 1.0) -> dict:
    """Time neighbours, energies and forces as a replayed CUDA graph (elsewhere without a graph)."""
    potential = make_potential(size).to(device).with_engine("fused")
    graph = potential.to_graph(water(atoms))
    box = graph.cell[0] if graph.cell.any() else None
    step = ReplayedStep(potential.requires_grad_(False), graph.types)
    forces, expected = step(graph.positions, box)[1], potential(graph).forces
    error = float((forces - expected).abs().max() / expected.abs().max())
    if not error <= FORCE_TOLERANCE:
        raise AssertionError(f"forces differ by {error:.2e} of the largest")
    times = milliseconds(lambda: step(graph.positions, box), device, seconds)
    return times | {"captures": step.captures, "capacity": step.capacity, "force_error": error}


def largest(report: Report, size: str, engine: str, device: str, atoms: int, most: int) -> None:
    """Double the system until something fails."""
    while atoms <= most:
        call = _bind(step, size, atoms, engine, device, 0.5)
        item = report.measure(f"largest/{size}/{engine}/{atoms}", call, limit=90)
        if "error" in item:
            return
        atoms *= 2


def train(size: str, name: str, batch: int, engine: str, device: str, seconds: float = 1.0) -> dict:
    """Time training steps: energies and forces, their loss, its gradient, the optimizer."""
    potential = make_potential(size).to(device)
    if engine == "fused":
        potential = potential.with_engine("fused")
    graph: Graph = collate(
        [potential.to_graph(small_molecule(name, seed)) for seed in range(batch)]
    )
    potential.train()
    optimizer = torch.optim.Adam(potential.parameters(), lr=1e-4)
    energies = torch.randn(batch, dtype=torch.float64, device=device)
    forces = torch.randn_like(graph.positions)

    def one_step() -> None:
        optimizer.zero_grad(set_to_none=True)
        output = potential(graph)
        loss = (output.energy - energies).square().mean()
        (loss + (output.forces - forces).square().mean()).backward()
        optimizer.step()

    _reset_peak(device)
    result = milliseconds(one_step, device, seconds)
    return result | {"frames_per_s": 1e3 * batch / result["ms"], "peak_gb": _peak(device)}


def _reset_peak(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()


def _peak(device: str) -> float | None:
    if not device.startswith("cuda"):
        return None
    return torch.cuda.max_memory_allocated() / 1e9


def _bind(function: Callable[..., dict], *arguments: Any) -> Callable[[], dict]:
    return lambda: function(*arguments)


def run(report: Report, device: str, quick: bool = False) -> None:
    """Measure everything, what matters most first."""
    sizes = ["S"] if quick else ["S", "M", "L"]
    counts = [21, 192] if quick else [21, 192, 3000, 30000]
    seconds = 0.01 if quick else 1.0
    for size in sizes:
        potential = make_potential(size)
        keys = dict.fromkeys(form_key(layer.convolution) for layer in potential.network.layers)
        dtypes = [torch.float32, torch.float64] if size == "S" else [torch.float32]
        for k, key in enumerate(keys):
            for dtype in dtypes:
                name = f"kernels/{size}/{k}/{str(dtype).removeprefix('torch.')}"
                report.measure(name, _bind(check_kernels, key, dtype, device), limit=90)
        report.measure(f"forces/{size}", _bind(check_forces, size, 192, device))
        for atoms in counts:
            call = _bind(step, size, atoms, "fused", device, seconds)
            report.measure(f"step/{size}/{atoms}/fused", call)
        for atoms in [n for n in counts if n <= MOST_ATOMS]:
            call = _bind(replay, size, atoms, device, seconds)
            report.measure(f"step/{size}/{atoms}/fused, graph", call)
    for size in sizes:
        for atoms in counts:
            call = _bind(step, size, atoms, "reference", device, seconds)
            report.measure(f"step/{size}/{atoms}/reference", call, limit=30)
    for name in ("ethanol", "aspirin"):
        for batch in (5, 32):
            for engine in ("fused", "reference"):
                call = _bind(train, sizes[-1], name, batch, engine, device, seconds)
                report.measure(f"train/{sizes[-1]}/{name}/{batch}/{engine}", call, limit=40)
    if not quick:
        largest(report, "S", "fused", device, 99_999, 3_200_000)
        largest(report, "S", "reference", device, 24_000, 800_000)
        for engine in ("torch.compile", "openequivariance", "nequip-compile"):
            for size in ("S", "M"):
                for atoms in (192, 3000):
                    call = _bind(step, size, atoms, engine, device, seconds)
                    report.measure(f"step/{size}/{atoms}/{engine}", call, limit=75)


def print_table(document: dict[str, Any]) -> None:
    """Print times of steps, one line per size and number of atoms."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    engines: dict[str, None] = {}
    for item in document["items"]:
        kind, *parts = item["name"].split("/")
        if kind == "step":
            size, atoms, engine = parts
            engines[engine] = None
            value = "-" if "error" in item else f"{item['ms']:.3f}"
            rows.setdefault((size, atoms), {})[engine] = value
    print("\nms per step")
    print(f"{'size':6s}{'atoms':>8s}" + "".join(f"{engine:>18s}" for engine in engines))
    for (size, atoms), values in rows.items():
        cells = "".join(f"{values.get(engine, ''):>18s}" for engine in engines)
        print(f"{size:6s}{atoms:>8s}{cells}")
    failed = [item for item in document["items"] if "error" in item]
    for item in failed:
        print(f"{item['name']}: {item['error']}")


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("gpu.json"))
    parser.add_argument("--seconds", type=float, default=450.0, help="stop after this time")
    parser.add_argument("--device", default="cuda", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit("benchmarks/gpu.py: PyTorch finds no CUDA GPU on this machine")
    report = Report(options.output, options.seconds, options.device)
    previous = signal.signal(signal.SIGALRM, _alarm)
    # an item that never comes back to Python cannot be interrupted; all others are in the file
    watchdog = threading.Timer(options.seconds + 20, os._exit, (3,))
    watchdog.daemon = True
    watchdog.start()
    try:
        run(report, options.device, options.quick)
    finally:
        watchdog.cancel()
        signal.signal(signal.SIGALRM, previous)
    print_table(report.document)


if __name__ == "__main__":
    main()
