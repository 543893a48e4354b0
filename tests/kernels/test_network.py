"""The whole network on the compiled kernels, as a step of MD evaluates it."""

import numba
import pytest
import torch

from openmm_nequip.kernels.cpu import _ATOMS_PER_THREAD
from tests.md.systems import random_frame, small_potential


@pytest.mark.parametrize("radial", ["exact", "spline"])
@pytest.mark.parametrize("model_dtype", ["float32", "float64"])
def test_same_bits_for_any_number_of_threads(model_dtype, radial, several_threads):
    """Of a system that is large enough for `cpu.Step` to use several."""
    potential = small_potential(model_dtype, radial=radial).with_engine("fused").eval()
    frame = random_frame(True, n=48)
    assert len(frame) >= 2 * _ATOMS_PER_THREAD
    graph = potential.to_graph(frame)
    results = []
    for threads in (1, several_threads, 1):
        numba.set_num_threads(threads)
        results.append(potential(graph, forces=True))
    for other in results[1:]:
        for name in ("energy", "atomic_energies", "forces"):
            assert torch.equal(getattr(results[0], name), getattr(other, name)), name
