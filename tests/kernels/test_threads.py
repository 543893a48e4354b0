"""Numba and PyTorch may share an OpenMP library: neither must change the other's threads."""

import os
import subprocess
import sys

import pytest

# Prints the threads of PyTorch before and after a kernel has run for the first time.
KERNEL = """
import torch
torch.set_num_threads({threads})
torch.get_num_threads()  # PyTorch looks at what was set when it first needs it, only then
{before}
from openmm_nequip.kernels import spline_ops
x = torch.rand(5000, dtype=torch.float64)
spline_ops.spline(x, torch.randn(11, 3, dtype=torch.float64))
print(torch.get_num_threads())
"""


# A calculation in another thread, for which Numba's own limit does not hold.
ELSEWHERE = """
import threading
import ase.build, numba
from openmm_nequip.interop.ase import NequIPCalculator
from openmm_nequip.kernels.engine import set_num_threads
set_num_threads(1)
def calculate():
    atoms = ase.build.molecule("CH3CH2OH")
    atoms.calc = NequIPCalculator("ethanol-pbe")
    atoms.get_potential_energy()
    print(numba.get_num_threads())
thread = threading.Thread(target=calculate)
thread.start()
thread.join()
"""


def test_the_limit_holds_in_every_thread():
    environment = os.environ | {"NUMBA_NUM_THREADS": "2", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], capture_output=True, text=True, env=environment,
        timeout=600,
    )  # fmt: skip
    assert done.stdout.split() == ["1"], done.stderr


@pytest.mark.parametrize(
    "before", ["", "from openmm_nequip.kernels.engine import set_num_threads; set_num_threads({})"]
)
@pytest.mark.parametrize("threads", [1, 2])
def test_threads_of_pytorch_stay(before, threads):
    code = KERNEL.format(threads=threads, before=before.format(threads))
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_NUM_THREADS"}
    environment |= {"NUMBA_NUM_THREADS": "2", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(threads)]
