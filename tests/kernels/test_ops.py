"""The operators: PyTorch's version against e3nn's network parts, Numba's against PyTorch's."""

import numba
import pytest
import torch
from e3nn.o3 import Irrep, Irreps
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from openmm_nequip.errors import InputError
from openmm_nequip.kernels import numba_backend, ops, torch_backend
from openmm_nequip.kernels.edges import Edges
from openmm_nequip.kernels.form import form, form_key
from openmm_nequip.nn.convolution import Convolution
from openmm_nequip.nn.spline import evaluate

FUNCTIONS = (
    "convolution",
    "convolution_backward",
    "convolution_double_backward",
    "radial_convolution",
    "radial_convolution_backward",
)
#: Each has to be compiled, in both dtypes.
KEYS = {
    "odd widths": "5x0e+3x1o+2x2e|1x0e+1x1o+1x2e|10x0e+11x1o+10x2e",
    "parity": "2x0o+3x0e+2x1e+2x1o|1x0e+1x1o|4x0o+5x0e+4x1e+7x1o",
    "l = 3": "2x0e+1x3o|1x0e+1x1o+1x2e+1x3o|3x0e+3x1o",
}
KEYS = {name: form_key(Convolution(*map(Irreps, key.split("|")))) for name, key in KEYS.items()}
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}


@st.composite
def graphs(draw) -> tuple[Tensor, int]:
    """Any list of edges: none, duplicates, an atom with itself, atoms without edges, no order."""
    n = draw(st.integers(1, 9))
    atom = st.integers(0, n - 1)
    pairs = draw(st.lists(st.tuples(atom, atom), max_size=25))
    return torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T, n


def irreps(wanted: st.SearchStrategy[Irrep]) -> st.SearchStrategy[Irreps]:
    block = st.tuples(st.integers(1, 4), wanted)
    return st.lists(block, min_size=1, max_size=4, unique_by=lambda b: b[1]).map(
        lambda found: Irreps(sorted(found, key=lambda b: b[1]))
    )


anything = st.builds(Irrep, st.integers(0, 4), st.sampled_from([1, -1]))


def arguments(function: str, key: str, edges: Edges, dtype: torch.dtype, seed: int = 0):
    """Return random tensors for a function, in its order."""
    f, n, e = form(key), len(edges.receiver_start) - 1, len(edges.receivers)
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    inputs = [random(n, f.x_dim), random(e, f.y_dim), random(e, f.w_dim)]
    if function.startswith("radial"):
        r = torch.rand(e, generator=generator, dtype=torch.float64) * 1.1  # some beyond the cutoff
        inputs[2:] = [r.to(dtype), random(12, f.w_dim)]
    if function.endswith("double_backward"):
        cotangents = [random(*t.shape) for t in inputs]
        return [*cotangents, random(n, f.out_dim), *inputs]
    if function.endswith("backward"):
        return [random(n, f.out_dim), *inputs]
    return inputs


def assert_same(found, expected, tolerance: float) -> None:
    found, expected = ((t,) if isinstance(t, Tensor) else t for t in (found, expected))
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        if b.numel():
            assert (a - b).abs().max() <= tolerance * max(1.0, b.abs().max().item())


@settings(max_examples=40, deadline=None, derandomize=True)
@given(irreps(anything), st.integers(0, 4), irreps(anything), graphs())
def test_pytorch_is_what_autograd_makes_of_the_convolution(x_irreps, l_max, out_irreps, graph):
    convolution = Convolution(x_irreps, Irreps.spherical_harmonics(l_max), out_irreps).double()
    if not convolution.paths:
        return
    edge_index, n = graph
    edges, key = Edges.of(edge_index, n), form_key(convolution)
    *a, g, x, y, w = (
        t.requires_grad_()
        for t in arguments("convolution_double_backward", key, edges, torch.float64)
    )
    out = convolution(x, y, w, edge_index)
    assert_same(torch_backend.convolution(x, y, w, edges, key), out, 1e-12)
    first = torch.autograd.grad(out, (x, y, w), g, create_graph=True)
    assert_same(torch_backend.convolution_backward(g, x, y, w, edges, key), first, 1e-12)
    second = torch.autograd.grad(first, (g, x, y, w), a, allow_unused=True)
    expected = tuple(
        torch.zeros_like(t) if d is None else d for d, t in zip(second, (g, x, y, w), strict=True)
    )
    found = torch_backend.convolution_double_backward(*a, g, x, y, w, edges, key)
    assert_same(found, expected, 1e-12)


@pytest.mark.parametrize("name", KEYS)
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(graph=graphs(), dtype=st.sampled_from([torch.float64, torch.float32]))
def test_numba_is_pytorch(name, graph, dtype):
    edges, key = Edges.of(*graph), KEYS[name]
    for function in FUNCTIONS:
        inputs = arguments(function, key, edges, dtype)
        found = getattr(numba_backend, function)(*inputs, edges, key)
        double = [t.double() for t in inputs]
        expected = getattr(torch_backend, function)(*double, edges, key)
        expected = (expected,) if isinstance(expected, Tensor) else expected
        assert_same(found, tuple(t.to(dtype) for t in expected), TOLERANCE[dtype])


def some_edges(n: int = 30, e: int = 200) -> Edges:
    return Edges.of(torch.randint(n, (2, e), generator=torch.Generator().manual_seed(1)), n)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_same_bits_for_any_number_of_threads(function, several_threads):
    edges, key = some_edges(), KEYS["odd widths"]
    inputs = arguments(function, key, edges, torch.float32)
    results = []
    for threads in (1, several_threads, 1):
        numba.set_num_threads(threads)
        result = getattr(ops, function)(*inputs, edges, key)
        results.append((result,) if isinstance(result, Tensor) else result)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_derivatives_of_the_operators():
    edges, key = some_edges(4, 7), KEYS["parity"]
    inputs = [t.requires_grad_() for t in arguments("convolution", key, edges, torch.float64)]
    assert torch.autograd.gradcheck(lambda *t: ops.convolution(*t, edges, key), inputs)
    assert torch.autograd.gradgradcheck(lambda *t: ops.convolution(*t, edges, key), inputs)
    x, y, r, coefficients = arguments("radial_convolution", key, edges, torch.float64)
    assert torch.autograd.gradcheck(
        lambda *t: ops.radial_convolution(*t, coefficients, edges, key),
        [t.requires_grad_() for t in (x, y, r)],
    )


def test_splines_in_the_kernel_are_those_of_the_network():
    edges, key = some_edges(), KEYS["l = 3"]
    x, y, r, coefficients = arguments("radial_convolution", key, edges, torch.float64)
    found = ops.radial_convolution(x, y, r, coefficients, edges, key)
    expected = ops.convolution(x, y, evaluate(r, coefficients), edges, key)
    assert_same(found, expected, 1e-12)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_operator_is_registered_as_pytorch_asks(function):
    edges, key = some_edges(4, 7), KEYS["parity"]
    inputs = arguments(function, key, edges, torch.float64)
    operator = getattr(torch.ops.openmm_nequip, function).default
    torch.library.opcheck(operator, (*inputs, *edges, key))


def test_nan_stays_nan():
    edges, key = some_edges(5, 12), KEYS["odd widths"]
    for name, position in (("convolution", 2), ("radial_convolution", 2)):
        inputs = arguments(name, key, edges, torch.float32)
        inputs[position][3] = float("nan")
        out = getattr(ops, name)(*inputs, edges, key)
        assert out[edges.receivers[3]].isnan().any()


def test_bad_input_is_refused():
    edges, key = some_edges(5, 12), KEYS["odd widths"]
    x, y, w = arguments("convolution", key, edges, torch.float32)
    with pytest.raises(ValueError, match=r"convolution: expected shape \(12, 9\)"):
        ops.convolution(x, y[:, :4], w, edges, key)
    with pytest.raises(ValueError, match="one dtype and device"):
        ops.convolution(x, y.double(), w, edges, key)
    with pytest.raises(ValueError, match="float32 or float64"):
        ops.convolution(x.half(), y.half(), w.half(), edges, key)
    with pytest.raises(ValueError, match="edges must be int64"):
        ops.convolution(x, y, w, edges._replace(senders=edges.senders.int()), key)
    with pytest.raises(InputError, match="edge_index refers to atom 7; there are 5 atoms"):
        Edges.of(torch.tensor([[0, 1], [7, 2]]), 5)
    with pytest.raises(InputError, match="refers to atom -1"):
        Edges.of(torch.tensor([[0, -1], [1, 2]]), 5)
