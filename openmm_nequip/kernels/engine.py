"""Which engine evaluates a network: the compiled kernels, or plain PyTorch as the reference."""

from importlib import import_module
from typing import Literal

import torch

from ..errors import InputError, did_you_mean

ENGINES = ("auto", "fused", "reference")
_COMPILERS = {"cpu": "numba", "cuda": "triton"}


def choose_engine(
    engine: str, device: str | torch.device | None = None
) -> Literal["fused", "reference"]:
    """Return the engine to use: for ``'auto'`` the fused one wherever it works.

    Parameters
    ----------
    engine
        One of `ENGINES`.
    device
        Where the network is evaluated; `None` is a GPU if there is one.

    Raises
    ------
    InputError
        There is no such engine, or the fused one was asked for and does not work there.
    """
    if engine not in ENGINES:
        raise InputError(
            f"engine={engine!r} is not one of {', '.join(map(repr, ENGINES))}"
            f"{did_you_mean(str(engine), ENGINES)}"
        )
    if engine == "reference":
        return "reference"
    problem = why_not_fused(device)
    if problem and engine == "fused":
        raise InputError(f"engine='fused' does not work here: {problem}")
    return "reference" if problem else "fused"


def why_not_fused(device: str | torch.device | None = None) -> str:
    """Return why the fused engine cannot be used on a device, or an empty string if it can."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = torch.device(device).type
    if kind not in _COMPILERS:
        return f"it runs on CPU and CUDA, not on '{kind}'"
    try:
        import_module(_COMPILERS[kind])
    except ImportError as error:
        compiler = _COMPILERS[kind]
        return f"{compiler} cannot be imported ({error}); pip install {compiler}"
    if kind == "cuda" and torch.cuda.is_available():
        from .triton_backend import why_no_kernel_runs

        return why_no_kernel_runs(torch.device(device))
    return ""


def describe_engine(device: str | torch.device | None = None) -> str:
    """Say in a few words which engine ``'auto'`` is on a device, and what it is made of."""
    if problem := why_not_fused(device):
        return f"reference: {problem}"
    if device is not None and torch.device(device).type == "cuda":
        return f"fused: Triton {import_module('triton').__version__}"
    import numba

    set_num_threads(torch.get_num_threads())  # the layer is chosen when threads start
    return (
        f"fused: Numba {numba.__version__}, threading layer '{numba.threading_layer()}', "
        f"{numba.get_num_threads()} of {numba.config.NUMBA_NUM_THREADS} threads"
    )


_num_threads: int | None = None


def num_threads() -> int | None:
    """Return what `set_num_threads` has set; `None` if nothing."""
    return _num_threads


def set_num_threads(count: int) -> None:
    """Set the number of CPU threads of PyTorch and, as far as it has them, of Numba."""
    global _num_threads
    _num_threads = count  # Numba's own holds for the thread that sets it
    if not why_not_fused("cpu"):
        import numba

        numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
    torch.set_num_threads(count)  # after Numba's threads have started, which may set it
