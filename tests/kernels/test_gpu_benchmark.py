"""The GPU benchmark, as far as it runs without a GPU."""

import importlib.util
import json
import time
from pathlib import Path

import pytest
import torch

from openmm_nequip.kernels import ops, torch_backend
from openmm_nequip.kernels.form import form_key
from openmm_nequip.nn.convolution import Convolution

SCRIPT = Path(__file__).parents[2] / "benchmarks/gpu.py"


@pytest.fixture(scope="module")
def gpu():
    spec = importlib.util.spec_from_file_location("gpu_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def report(gpu, tmp_path):
    previous = gpu.signal.signal(gpu.signal.SIGALRM, gpu._alarm)
    yield gpu.Report(tmp_path / "gpu.json", 100.0, "cpu")
    gpu.signal.signal(gpu.signal.SIGALRM, previous)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_line(gpu):
    with pytest.raises(SystemExit, match=r"^benchmarks/gpu.py: PyTorch finds no CUDA GPU.*$"):
        gpu.main([])


def test_items_fail_alone(gpu, report):
    def fails() -> dict:
        raise RuntimeError("out of\nmemory")

    def hangs() -> dict:
        time.sleep(10)
        return {}

    report.measure("fails", fails)
    report.measure("hangs", hangs, limit=2.05)
    report.measure("works", lambda: {"ms": 1.0})
    report.end = time.monotonic()
    report.measure("late", lambda: {"ms": 1.0})
    items = json.loads(report.path.read_text())["items"]
    assert [item.get("error") for item in items] == [
        "RuntimeError: out of",
        "TimeoutError: took too long",
        None,
        "no time left",
    ]
    assert items[2]["ms"] == 1.0


def test_wrong_kernels_are_found(gpu, monkeypatch):
    key = form_key(Convolution("4x0e+2x1o", "1x0e+1x1o", "1x0e+1x1o"))
    monkeypatch.setattr(ops, "backend", lambda device: torch_backend)
    assert max(gpu.check_kernels(key, torch.float32, "cpu", atoms=6).values()) > 0
    right = ops.radial_convolution
    monkeypatch.setattr(ops, "radial_convolution", lambda *arguments: 1.001 * right(*arguments))
    with pytest.raises(AssertionError, match="largest relative errors"):
        gpu.check_kernels(key, torch.float32, "cpu", atoms=6)


def test_steps_and_training(gpu, report):
    for engine in ("fused", "reference"):
        assert gpu.step("S", 21, engine, "cpu", 0.0)["ms"] > 0
    assert gpu.replay("S", 21, "cpu", 0.0)["force_error"] < gpu.FORCE_TOLERANCE
    for name in ("ethanol", "aspirin"):
        assert gpu.train("S", name, 2, "reference", "cpu", 0.0)["frames_per_s"] > 0
    report.measure("step/S/21/fused", lambda: {"ms": 1.0})
    gpu.print_table(report.document)


def test_water_is_water(gpu):
    frame = gpu.water(192)
    assert len(frame.numbers) == 192
    edge = frame.cell[0, 0]
    assert edge**3 / 64 == pytest.approx(29.97)  # Å³ per molecule
    vectors = frame.positions[:, None] - frame.positions
    vectors -= edge * (vectors / edge).round()
    distances = ((vectors**2).sum(2) ** 0.5)[~torch.eye(192, dtype=torch.bool).numpy()]
    assert distances.min() == pytest.approx(0.957, abs=1e-3)
