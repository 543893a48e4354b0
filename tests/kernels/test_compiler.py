"""Kernels are compiled by another process: who needs them first runs what all others run."""

import logging
import os
import subprocess
import sys

import numpy as np
import pytest

from openmm_nequip.kernels import compiler, generated

SOURCE = '''"""Sums of {title}."""

import numpy as np
from numba import prange

from openmm_nequip.kernels.compiler import kernel


@kernel(fastmath=True)
def total(x, out):
    for i in prange(x.shape[0]):
        s = x.dtype.type(0)
        for k in range(x.shape[1]):
            s += x[i, k]
        out[i] = s
'''

# A training step and an evaluation; prints a digest of all numbers that came out.
STEP = """
import hashlib
import numpy as np
from openmm_nequip.data.frame import Frame
from openmm_nequip.potential import make_graph
from tests.conformance.cases import TYPES, build
potential = build("l2-parity-zbl", "float32").with_engine("fused")
rng = np.random.default_rng(5)
positions = 7.0 * rng.random((24, 3))
frame = Frame(numbers=np.ones(24, int), positions=positions, cell=None, pbc=(False,) * 3, source="")
graph = make_graph(frame, np.arange(24) % len(TYPES), potential.r_max)
digest = hashlib.sha256()
output = potential.train()(graph)
output.forces.square().sum().backward()
for result in (output.forces, *(p.grad for p in potential.parameters() if p.grad is not None)):
    digest.update(result.detach().numpy().tobytes())
digest.update(potential.eval()(graph).forces.detach().numpy().tobytes())
print(digest.hexdigest())
"""


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """An empty cache, and a compiler that has announced nothing."""
    monkeypatch.setenv("OPENMM_NEQUIP_CACHE", str(tmp_path))
    generated.folder.cache_clear()
    monkeypatch.setattr(compiler, "_compiler", compiler._Compiler())
    yield
    compiler._compiler.close()
    generated.folder.cache_clear()


def check(title: str):
    kernel = generated.load("sums", SOURCE.format(title=title)).total
    x = np.random.default_rng(0).random((7, 1000)).astype(np.float32)
    out = np.empty(7, np.float32)
    kernel(x, out)
    np.testing.assert_allclose(out, x.astype(float).sum(axis=1), rtol=1e-6)
    return kernel


def test_this_process_reads_what_another_compiled(fresh, caplog):
    kernel = check("rows")
    assert sum(kernel.dispatcher.stats.cache_hits.values()) == 1
    assert [r.message for r in caplog.records] == [
        "compiling kernels for Sums of rows (once on this machine; seconds to minutes)"
    ]
    check("rows")
    assert len(caplog.records) == 1


def test_process_that_has_ended_is_started_again(fresh):
    check("first")
    process = compiler._compiler._process
    process.kill()
    process.wait()
    kernel = check("second")
    assert sum(kernel.dispatcher.stats.cache_hits.values()) == 1


def test_what_others_print_is_no_answer(fresh, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("print('Info: modules loaded', flush=True)\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    kernel = check("talkative")
    assert sum(kernel.dispatcher.stats.cache_hits.values()) == 1


def test_a_cache_where_nothing_can_be_written(fresh, tmp_path, monkeypatch):
    """As in a container whose user has no home."""
    monkeypatch.setattr(compiler.numba.config, "CACHE_DIR", "")
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")
    compiler._cache_somewhere()
    assert compiler.numba.config.CACHE_DIR == ""
    monkeypatch.setattr(compiler, "__file__", "/proc/self/compiler.py")
    compiler._cache_somewhere()
    assert compiler.numba.config.CACHE_DIR == os.environ["NUMBA_CACHE_DIR"] == str(tmp_path)


def test_a_fork_is_told_to_be_spawned(fresh):
    code = """
import os, sys
import numpy as np
from openmm_nequip.kernels import compiler
from openmm_nequip.md.verlet_numba import _select_parallel
args = (np.zeros((1, 3)), np.zeros(2, np.int64), np.zeros(0, np.int64), np.zeros((0, 3)), 1.0)
_select_parallel(*args)
if compiler.threading_layer() != "omp":
    print("no OpenMP")
    sys.exit()
if os.fork() == 0:
    try:
        _select_parallel(*args)
    except RuntimeError as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
"""
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    ).stdout
    if "no OpenMP" in output:
        pytest.skip("Numba has no OpenMP here: its threads survive a fork")
    assert "start others with multiprocessing.get_context('spawn')" in output


def test_threads_take_turns_where_numba_has_no_openmp(fresh):
    code = """
import threading
import numpy as np
from openmm_nequip.kernels import compiler
from openmm_nequip.md.verlet_numba import _select_parallel
rng = np.random.default_rng(0)
points, senders = rng.random((200, 3)), np.tile(np.arange(200), 200)
args = (points, np.arange(201) * 200, senders, np.zeros((40000, 3)), 0.5)
def work():
    for _ in range(100):
        _select_parallel(*args)
_select_parallel(*args)
assert compiler.threading_layer() == "workqueue"
threads = [threading.Thread(target=work) for _ in range(2)]
[t.start() for t in threads]
[t.join() for t in threads]
print("done")
"""
    environment = {**os.environ, "NUMBA_THREADING_LAYER": "workqueue", "NUMBA_NUM_THREADS": "2"}
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=300
    )
    assert output.stdout == "done\n", output.stderr


def test_without_another_process(fresh, caplog, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/does/not/exist")
    kernel = check("alone")
    assert sum(kernel.dispatcher.stats.cache_hits.values()) == 0
    [message] = [r.message for r in caplog.records if "failed" in r.message]
    assert message.startswith("the process that compiles kernels failed (FileNotFoundError")


def test_what_cannot_be_compiled_is_an_error_here(fresh, caplog):
    caplog.set_level(logging.WARNING)
    kernel = generated.load("sums", SOURCE.format(title="nothing")).total
    with pytest.raises(Exception, match=r"(?i)typ"):
        kernel("text", np.empty(7))


@pytest.mark.slow
def test_first_process_has_the_same_bits(tmp_path):
    """A training step and an evaluation, compiled at the first run and read at the second."""
    folders = dict.fromkeys(("OPENMM_NEQUIP_CACHE", "NUMBA_CACHE_DIR"), str(tmp_path))
    environment = {**os.environ, **folders, "OMP_NUM_THREADS": "2"}
    runs = [
        subprocess.run(
            [sys.executable, "-c", STEP], capture_output=True, text=True, check=True,
            env=environment, timeout=500,
        )
        for _ in range(2)
    ]  # fmt: skip
    assert "compiling kernels" in runs[0].stderr
    assert "compiling kernels" not in runs[1].stderr
    assert runs[0].stdout == runs[1].stdout
