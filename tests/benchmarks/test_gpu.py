"""The measurements on a GPU, as far as they run without one."""

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from openmm_nequip.errors import InputError
from openmm_nequip.kernels import ops, torch_backend
from openmm_nequip.kernels.form import form_key
from openmm_nequip.nn.convolution import Convolution

FOLDER = Path(__file__).parents[2] / "benchmarks/gpu"
NAMES = ("correct", "measuring", "platforms", "report", "run", "speed")


@pytest.fixture(scope="module")
def gpu():
    """The scripts, importable as they import each other."""
    shadowed = {name: sys.modules.pop(name) for name in NAMES if name in sys.modules}
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module
    sys.path.remove(str(FOLDER))
    for name in NAMES:
        sys.modules.pop(name, None)
    sys.modules.update(shadowed)


def works() -> dict:
    return {"process": os.getpid()}


def fails() -> dict:
    raise RuntimeError("out of\nmemory")


def poisons() -> dict:
    raise RuntimeError("The following operation failed:\nraise x\nCUDA_ERROR_ILLEGAL_ADDRESS (700)")


def hangs() -> dict:
    time.sleep(60)
    return {}


def crashes() -> dict:
    os._exit(11)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_line():
    done = subprocess.run([sys.executable, FOLDER / "run.py"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip() == "error: PyTorch finds no CUDA GPU on this machine"


def test_existing_results_are_kept(gpu, tmp_path):
    path = tmp_path / "gpu.json"
    path.write_text("mine")
    with pytest.raises(InputError, match="exists: give another --output"):
        gpu("run").main(path, device="cpu")
    assert path.read_text() == "mine"


def test_items_fail_alone(gpu, tmp_path):
    report = gpu("report").Report(tmp_path / "gpu.json", 300.0, "cpu")
    try:
        first = report.measure("works", works)["process"]
        assert report.measure("fails", fails)["error"] == "RuntimeError: out of | memory"
        assert report.measure("works still", works)["process"] == first
        assert report.measure("poisons", poisons)["gpu_lost"]
        second = report.measure("works anew", works)["process"]
        assert second != first
        assert report.measure("hangs", hangs, limit=1.5)["error"] == "took longer than 2 s"
        assert report.measure("crashes", crashes)["error"] == "the process ended with exit code 11"
        assert report.measure("works again", works)["process"] not in (first, second)
        report.end = time.monotonic()
        assert report.measure("late", works)["skipped"] == "no time left"
    finally:
        report.worker.stop()
    items = json.loads(report.path.read_text())["items"]
    log = report.log.read_text().splitlines()
    assert [item["name"] for item in items] == [
        line.split("  ")[0] for line in log if line.startswith(tuple(i["name"] for i in items))
    ]
    assert len(items) == 9
    assert "in fails" in items[1]["traceback"]
    assert "Traceback (most recent call last):" in log


def test_only_what_was_asked_for(gpu, tmp_path):
    report = gpu("report").Report(tmp_path / "gpu.json", 300.0, "cpu", ["step/S"])
    try:
        assert "process" not in report.measure("step/M/21/fused", works)
        assert "process" in report.measure("step/S/21/fused", works)
    finally:
        report.worker.stop()
    assert [item["name"] for item in report.document["items"]] == ["step/S/21/fused"]


def test_wrong_kernels_are_found(gpu, monkeypatch):
    check_kernels = gpu("correct").check_kernels
    key = form_key(Convolution("4x0e+2x1o", "1x0e+1x1o", "1x0e+1x1o"))
    monkeypatch.setattr(ops, "backend", lambda device: torch_backend)
    with pytest.raises(RuntimeError, match="plain PyTorch would be compared"):
        check_kernels(key, torch.float32, "cpu", atoms=6)
    monkeypatch.setattr(ops, "is_compiled", lambda device: True)
    assert check_kernels(key, torch.float32, "cpu", atoms=6)["largest_error"] > 0
    right = ops.radial_convolution
    monkeypatch.setattr(ops, "radial_convolution", lambda *arguments: 1.001 * right(*arguments))
    with pytest.raises(AssertionError, match=r"relative errors \{'radial_convolution/0'"):
        check_kernels(key, torch.float32, "cpu", atoms=6)


def test_wrong_forces_are_found(gpu):
    compare = gpu("platforms").compare
    forces = torch.randn(5, 3, dtype=torch.float64)
    assert compare((1.0, forces), (1.0, forces))["force_error"] == 0
    with pytest.raises(AssertionError, match="forces differ by 1"):
        compare((1.0, 1.001 * forces), (1.0, forces))
    with pytest.raises(AssertionError, match="energies differ"):
        compare((1.01, forces), (1.0, forces))
    with pytest.raises(AssertionError, match="forces differ"):
        compare((1.0, float("nan") * forces), (1.0, forces))


@pytest.mark.parametrize("processes", [1, 2])
def test_failing_tests_are_named(gpu, tmp_path, processes):
    (tmp_path / "test_three.py").write_text(
        "import pytest, time\n"
        "def test_a(): pass\n"
        "def test_b(): assert False\n"
        "@pytest.fixture\n"
        "def broken(): raise ValueError\n"
        "def test_c(broken): pass\n"
    )
    found = gpu("correct").run_tests([str(tmp_path)], "cpu", processes, 100.0)
    assert (found["passed"], found["failed"], found["error"]) == (1, 1, "pytest ended with 1")
    assert sorted(line.split(" - ")[0].split("::")[1] for line in found["tests"]) == [
        "test_b", "test_c",
    ]  # fmt: skip


def test_tests_that_take_too_long_leave_what_they_found(gpu, tmp_path, monkeypatch):
    (tmp_path / "test_slow.py").write_text(
        "import pathlib, time\n"
        "def test_a(): pass\n"
        f"def test_b(): pathlib.Path({str(tmp_path / 'begun')!r}).touch(); time.sleep(600)\n"
    )
    wait = subprocess.Popen.wait

    def until_the_second_test(process, timeout=None):
        if timeout is None:
            return wait(process)
        while not (tmp_path / "begun").exists():
            time.sleep(0.05)
        raise subprocess.TimeoutExpired("pytest", timeout)

    with monkeypatch.context() as patch:
        patch.setattr(subprocess.Popen, "wait", until_the_second_test)
        found = gpu("correct").run_tests([str(tmp_path)], "cpu", 1, 15.0)
    assert found == {"passed": 1, "unfinished": "stopped after 15 s"}
    nothing = gpu("correct").run_tests([str(tmp_path / "none")], "cpu", 1, 100.0)
    assert nothing["error"] == "pytest ended with 4"


@pytest.mark.slow
def test_every_item_runs(tmp_path):
    """The whole command, with the smallest systems, on the CPU."""
    done = subprocess.run(
        [sys.executable, FOLDER / "run.py", "--device", "cpu", "--small", "--seconds", "3600",
         "--output", tmp_path / "gpu.json"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    items = json.loads((tmp_path / "gpu.json").read_text())["items"]
    assert not [item for item in items if "error" in item]
    kinds = {item["name"].split("/")[0] for item in items if "skipped" not in item}
    assert kinds >= {"machine", "compile", "works", "openmm", "md", "step", "profile", "kernels",
                     "forces", "tests", "train"}  # fmt: skip
    assert "ms per step in OpenMM" in done.stdout
