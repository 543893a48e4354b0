"""Which engine evaluates the network in training, and on how many threads."""

from importlib.util import find_spec

import torch

from ..kernels import ops
from ..potential import Potential


def with_engine(potential: Potential, engine: str, device_type: str) -> Potential:
    """Return the potential on the engine asked for.

    Parameters
    ----------
    potential
        Any engine's.
    engine
        ``'fused'``, ``'reference'``, or ``'auto'``: fused where its kernels can be compiled.
    device_type
        ``'cpu'`` or ``'cuda'``: where it is going to run.
    """
    fused = engine == "fused" or (engine == "auto" and ops.is_compiled(device_type))
    return potential.with_engine("fused" if fused else "reference")


def set_num_threads(count: int) -> None:
    """Set the number of threads of PyTorch and of the compiled kernels."""
    torch.set_num_threads(count)
    if find_spec("numba"):
        import numba

        numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
