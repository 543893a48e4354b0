"""The operators of `ops` on CUDA, in Triton.

No function waits for the GPU or reads a tensor on the host, so that a CUDA graph can capture them;
the first call for a form compiles, and must not be captured. The number of atoms and edges is not
compiled in. All sums are in a fixed order.
"""

import os
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from . import triton_source
from .edges import Edges
from .form import form
from .generated import folder, load

_PROBE = '''\
"""A kernel that writes a number."""

import triton
import triton.language as tl


@triton.jit
def write(out):
    tl.store(out, 7)
'''


@cache
def why_no_kernel_runs(device: torch.device) -> str:
    """Try a kernel on a GPU; return what is wrong, or an empty string.

    Triton also needs a C compiler and Python's headers, with which it makes what launches kernels,
    and a folder that it can write.
    """
    _cache_somewhere()
    try:
        out = torch.zeros(1, dtype=torch.int32, device=device)
        with torch.cuda.device_of(out):
            load("probe", _PROBE).write[(1,)](out)
        return "" if int(out) == 7 else "Triton's kernels compute nothing here"
    except Exception as error:  # whatever a compiler can run into
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        return f"Triton cannot run a kernel ({reason}); it needs a C compiler and Python's headers"


def _cache_somewhere() -> None:
    """Give Triton a folder for compiled code where it would not find one, as in a container."""
    if "TRITON_CACHE_DIR" in os.environ:
        return
    try:
        usual = Path(os.environ.get("TRITON_HOME") or Path.home()) / ".triton" / "cache"
        usual.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=usual):
            return
    except (OSError, RuntimeError):  # RuntimeError: no home
        os.environ["TRITON_CACHE_DIR"] = str(folder() / "triton")


def convolution(x: Tensor, y: Tensor, w: Tensor, edges: Edges, key: str) -> Tensor:
    """See `ops.convolution`."""
    return _forward("weights", (x, y, w), (), edges, key)


def convolution_backward(
    g: Tensor, x: Tensor, y: Tensor, w: Tensor, edges: Edges, key: str
) -> tuple[Tensor, Tensor, Tensor]:
    """See `ops.convolution_backward`."""
    return _backward("weights", (g, x, y, w), (), edges, key)


def convolution_double_backward(
    ax: Tensor, ay: Tensor, aw: Tensor, g: Tensor, x: Tensor, y: Tensor, w: Tensor,
    edges: Edges, key: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """See `ops.convolution_double_backward`."""
    dg = _forward("second", (ax, ay, aw, x, y, w), (), edges, key)
    return dg, *_backward("second", (ax, ay, aw, g, x, y, w), (), edges, key)


def radial_convolution(
    x: Tensor, y: Tensor, r: Tensor, coefficients: Tensor, edges: Edges, key: str
) -> Tensor:
    """See `ops.radial_convolution`."""
    intervals = (coefficients.shape[0] - 3,)
    return _forward("radial", (x, y, r, coefficients), intervals, edges, key)


def radial_convolution_backward(
    g: Tensor, x: Tensor, y: Tensor, r: Tensor, coefficients: Tensor, edges: Edges, key: str
) -> tuple[Tensor, Tensor, Tensor]:
    """See `ops.radial_convolution_backward`."""
    intervals = (coefficients.shape[0] - 3,)
    return _backward("radial", (g, x, y, r, coefficients), intervals, edges, key)


def _forward(
    variant: str, inputs: tuple[Tensor, ...], sizes: tuple[int, ...], edges: Edges, key: str
) -> Tensor:
    num_atoms = len(edges.receiver_start) - 1
    out = inputs[0].new_empty(num_atoms, form(key).out_dim)
    by_receiver = (edges.senders, edges.by_receiver, edges.receiver_start)
    module = _module("forward", variant, key, out.dtype)
    _launch(module, num_atoms, *inputs, out, *by_receiver, *sizes)
    return out


def _backward(
    variant: str, inputs: tuple[Tensor, ...], sizes: tuple[int, ...], edges: Edges, key: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the derivatives by x, by y, and by w or r."""
    f, like = form(key), inputs[0]
    num_atoms, num_edges = len(edges.sender_start) - 1, len(edges.senders)
    module = _module("backward", variant, key, like.dtype)
    # zeros: no path may start from some irrep
    dx = like.new_zeros(module.PLANES, num_atoms, f.x_dim)
    dy = like.new_empty(module.PARTS, num_edges, f.y_dim)
    by_sender = (edges.receivers, edges.by_sender, edges.sender_start, num_edges)
    if variant == "radial":
        dr = like.new_empty(module.PARTS, num_edges)
        _launch(module, num_atoms, *inputs, dx, dy, dr, *by_sender, *sizes)
        return _sum(dx), _sum(dy), _sum(dr)
    dw = like.new_empty(num_edges, f.w_dim)
    _launch(module, num_atoms, *inputs, dx, dw, dy, *by_sender)
    return _sum(dx), _sum(dy), dw


def _sum(terms: Tensor) -> Tensor:
    return terms[0] if len(terms) == 1 else terms.sum(dim=0)


@cache
def _module(direction: str, variant: str, key: str, dtype: torch.dtype) -> ModuleType:
    source = triton_source.source(form(key), direction, variant, words=dtype.itemsize // 4)
    return load(f"{direction}_{variant}", source)


def _launch(module: ModuleType, num_atoms: int, *arguments: Tensor | int) -> None:
    if num_atoms == 0:
        return
    with torch.cuda.device_of(arguments[0]):
        for kernel, parts in module.LAUNCHES:
            kernel[num_atoms, parts](*arguments, num_warps=triton_source.NUM_WARPS)
