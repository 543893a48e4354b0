"""Whether kernels, forces and whole networks compute on the GPU what they compute on the CPU."""

import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from openmm_nequip.benchmarking.models import make_model
from openmm_nequip.kernels import ops, torch_backend
from openmm_nequip.kernels.edges import Edges
from openmm_nequip.kernels.form import form, form_key

#: Of the kernels against float64, relative to the largest element; of whole forces with splines.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
FORCE_TOLERANCE = 1e-4

_ROOT = Path(__file__).parents[2]


def kernel_keys(size: str) -> list[str]:
    """Return the different convolutions of a size of network."""
    network = make_model(size).potential.network
    return list(dict.fromkeys(form_key(layer.convolution) for layer in network.layers))


def check_kernels(key: str, dtype: torch.dtype, device: str, atoms: int = 60) -> dict:
    """Compare the five operators with plain PyTorch in float64."""
    if not ops.is_compiled(torch.device(device).type):
        raise RuntimeError("the kernels are not compiled here: plain PyTorch would be compared")
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
        for k, (a, b) in enumerate(zip(results[0], expected, strict=True)):
            found[f"{function}/{k}"] = float((a - b).abs().max() / b.abs().max())
        if not all(torch.equal(a, b) for a, b in zip(*results, strict=True)):
            raise AssertionError(f"{function} differs from call to call")
    if wrong := {name: error for name, error in found.items() if not error <= TOLERANCE[dtype]}:
        raise AssertionError(f"relative errors {wrong}")
    return {"largest_error": max(found.values())}


def compile_kernels(sizes: list[str], device: str, processes: int) -> dict:
    """Compile the kernels of networks in several processes; the files on the disk are shared."""
    wanted = [(key, torch.float32) for size in reversed(sizes) for key in kernel_keys(size)]
    wanted += [(key, torch.float64) for key in kernel_keys(sizes[0])]
    chosen = list(dict.fromkeys(wanted))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context) as pool:
        futures = [pool.submit(check_kernels, *what, device, 20) for what in chosen]
        failed = [str(f.exception())[:200] for f in futures if f.exception()]
    return {"kernels": len(chosen), "processes": processes} | ({"failed": failed} if failed else {})


def check_forces(size: str, atoms: int, device: str) -> dict:
    """Compare the forces of the fused engine with those of the reference on the CPU."""
    model = make_model(size)
    graph = model.graph(model.sample(atoms))
    expected = model.potential(graph).forces
    found = model.potential.with_engine("fused").to(device)(graph.to(device)).forces.cpu()
    return within_tolerance(found, expected)


def within_tolerance(
    found: torch.Tensor, expected: torch.Tensor, tolerance: float = FORCE_TOLERANCE
) -> dict:
    """Return the error relative to the largest force, or raise AssertionError."""
    error = float((found - expected).abs().max() / expected.abs().max())
    if not error <= tolerance:
        raise AssertionError(f"forces differ by {error:.2e} of the largest")
    return {"force_error": error}


def run_tests(paths: list[str], device: str, processes: int, seconds: float) -> dict:
    """Run tests of the repository on the device for a time; what fails is named."""
    environment = os.environ | {"OPENMM_NEQUIP_TEST_DEVICE": device}
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", *paths]
    if processes > 1:
        command += ["-n", str(processes), "--dist", "loadgroup"]
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, cwd=_ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            code: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
            code = None
        output.seek(0)
        text = output.read()
    line = r"(?:^\[gw\d+\] \[ *\d+%\] |^\S+::.* )(PASSED|FAILED|ERROR|SKIPPED)"
    outcomes = Counter(re.findall(line, text, re.MULTILINE))
    found: dict[str, Any] = {name.lower(): count for name, count in outcomes.items()}
    if code is None:
        found["unfinished"] = f"stopped after {seconds:.0f} s"
    elif code != 0:
        wrong = re.findall(r"^(?:FAILED|ERROR) (.{1,200})", text, re.MULTILINE)
        found |= {"error": f"pytest ended with {code}", "tests": wrong or text.splitlines()[-3:]}
    return found
