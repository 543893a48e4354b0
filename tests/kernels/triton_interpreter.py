"""Compares the Triton kernels, in Triton's interpreter on CPU, with plain PyTorch; prints JSON.

A program of its own, because Triton must see ``TRITON_INTERPRET=1`` when it is imported.
"""

import json
import sys

import torch
from e3nn.o3 import Irreps

from openmm_nequip.kernels import torch_backend, triton_backend, triton_source
from openmm_nequip.kernels.edges import Edges
from openmm_nequip.kernels.form import form, form_key
from openmm_nequip.nn.convolution import Convolution

#: name: irreps in, l_max of the harmonics, irreps out, atoms, edges
CASES = {
    "S": ("32x0e+16x1o", 1, "8x0e+8x1o", 5, 40),
    "S-last": ("16x0e+8x1o", 1, "8x0e", 5, 40),
    "M": ("8x0e+4x1o+2x2e", 2, "1x0e+1x1o+1x2e", 4, 20),
    "odd": ("33x0e+5x1o", 1, "3x0e+3x1o", 4, 30),
    "many-channels": ("200x0e+70x1o", 1, "1x0e+1x1o", 3, 12),
    "parity": ("3x0e+3x0o+2x1e+3x1o+1x2o", 2, "1x0e+1x0o+1x1e+1x1o+1x2e+1x2o", 3, 9),
    "unreached": ("4x0e+3x0o+2x1o", 1, "1x0e", 4, 20),
    "l3": ("2x0e+3x1o+2x3o", 3, "1x0e+1x1o+1x2e+1x3o", 3, 8),
    "l4": ("2x2e+1x4e", 4, "1x0e+1x2e+1x3o+1x4e", 2, 5),
    "no-edges": ("2x0e+2x1o", 1, "1x0e+1x1o", 3, 0),
    "no-atoms": ("2x0e+2x1o", 1, "1x0e+1x1o", 0, 0),
    "one-atom": ("2x0e+2x1o", 1, "1x0e+1x1o", 1, 3),
}
DTYPES = {"float64": list(CASES), "float32": ["S", "S-last", "M", "odd", "parity"]}
FUNCTIONS = {
    "convolution": "x y w",
    "convolution_backward": "g x y w",
    "convolution_double_backward": "ax ay aw g x y w",
    "radial_convolution": "x y r table",
    "radial_convolution_backward": "g x y r table",
}


def tensors(name: str, dtype: torch.dtype) -> tuple[dict[str, torch.Tensor], Edges, str]:
    """Return random arguments; edges are unsorted, some twice, and the last atom has none."""
    irreps_in, l_max, irreps_out, num_atoms, num_edges = CASES[name]
    irreps = (Irreps(irreps_in), Irreps.spherical_harmonics(l_max), Irreps(irreps_out))
    key = form_key(Convolution(*irreps))
    f = form(key)
    generator = torch.Generator().manual_seed(len(name))
    connected = max(num_atoms - 1, 1)
    edge_index = torch.randint(0, connected, (2, num_edges), generator=generator)
    edge_index[:, : num_edges // 3] = edge_index[:, num_edges - num_edges // 3 :]
    sizes = {
        "x": (num_atoms, f.x_dim),
        "y": (num_edges, f.y_dim),
        "w": (num_edges, f.w_dim),
        "g": (num_atoms, f.out_dim),
        "table": (10, f.w_dim),
    }
    sizes |= {f"a{k}": sizes[k] for k in "xyw"}
    values = {k: torch.randn(size, generator=generator, dtype=dtype) for k, size in sizes.items()}
    # some beyond the end of the splines
    values["r"] = 1.2 * torch.rand(num_edges, generator=generator, dtype=dtype)
    return values, Edges.of(edge_index, num_atoms), key


def call(module, function: str, values: dict, edges: Edges, key: str) -> tuple[torch.Tensor, ...]:
    result = getattr(module, function)(
        *(values[k] for k in FUNCTIONS[function].split()), edges, key
    )
    return result if isinstance(result, tuple) else (result,)


def compare(name: str, function: str, dtype: torch.dtype) -> list[float]:
    """Return the largest error of every result, relative to its largest element."""
    arguments = tensors(name, dtype)
    found = call(triton_backend, function, *arguments)
    expected = call(torch_backend, function, *arguments)
    errors = []
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        assert a.is_contiguous()
        scale = b.abs().max().clamp(min=1e-30) if b.numel() else 1.0
        errors.append(float((a - b).abs().max() / scale) if b.numel() else 0.0)
    return errors


def repeated(name: str, function: str) -> bool:
    """Return whether two calls give the same bits."""
    arguments = tensors(name, torch.float32)
    pairs = zip(*(call(triton_backend, function, *arguments) for _ in range(2)), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def not_a_number() -> list[list[bool]]:
    """Return which atoms see a distance that is NaN, and which should."""
    values, edges, key = tensors("S", torch.float32)
    values["r"][7] = float("nan")
    out, *_ = call(triton_backend, "radial_convolution", values, edges, key)
    seen = torch.arange(len(out)) == edges.receivers[7]
    return [out.isnan().any(dim=1).tolist(), seen.tolist()]


def compatible_with_numpy(tensor) -> None:
    """Let a scalar end a loop: NumPy 2.4 converts no array of one element to an integer."""
    patch(tensor)
    tensor.__index__ = lambda self: int(self.handle.data.item())


if __name__ == "__main__":
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor
    interpreter._patch_lang_tensor = compatible_with_numpy
    report = {"nan": not_a_number(), "errors": {}, "repeated": {}}
    for dtype, names in DTYPES.items():
        for name in names:
            for function in FUNCTIONS:
                key = f"{dtype}-{name}-{function}"
                report["errors"][key] = compare(name, function, getattr(torch, dtype))
    triton_source.MAX_TERMS = triton_source.MAX_REGISTERS = 8
    triton_backend._module.cache_clear()
    for function in FUNCTIONS:
        report["errors"][f"float64-split-{function}"] = compare("M", function, torch.float64)
        report["repeated"][function] = repeated("M", function)
    json.dump(report, sys.stdout)
