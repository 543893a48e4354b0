"""Splines as operators: against `nn.spline`, their derivatives, and what must not go wrong."""

import numba
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from openmm_nequip.kernels import spline_numba, spline_ops
from openmm_nequip.kernels.spline_ops import spline, spline_dot, spline_transpose
from openmm_nequip.nn.spline import evaluate


def inputs(edges: int = 23, intervals: int = 9, width: int = 70, dtype=torch.float64):
    generator = torch.Generator().manual_seed(edges)
    x = torch.rand(edges, dtype=torch.float64, generator=generator) * 1.1
    a = torch.randn(edges, dtype=torch.float64, generator=generator)
    c = torch.randn(intervals + 3, width, dtype=dtype, generator=generator)
    v = torch.randn(edges, width, dtype=dtype, generator=generator)
    return x, a, c, v


@pytest.mark.parametrize(("edges", "width"), [(0, 5), (1, 1), (50, 64), (301, 70), (200, 129)])
@pytest.mark.parametrize("slope", [False, True])
def test_equal_to_plain_evaluation(edges, width, slope):
    x, _, c, _ = inputs(edges, width=width)
    expected = evaluate(x, c, slope=slope)
    assert torch.allclose(spline(x, c, int(slope)), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("order", [0, 1, 2, 3, 4])
def test_backends_agree(order):
    x, a, c, v = inputs(301)
    fallback = spline_ops._FALLBACK
    scale = 9.0**order
    for found, expected in (
        (spline(x, c, order, a), fallback["spline"](x, a, c, order)),
        (spline_dot(x, c, v, order), fallback["spline_dot"](x, c, v, order)),
        (spline_transpose(x, v, order, 9, a), fallback["spline_transpose"](x, a, v, order, 9)),
    ):
        assert found.shape == expected.shape
        assert found.dtype == expected.dtype
        assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12 * scale)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_orders_are_derivatives(order):
    x, _, c, _ = inputs(200)
    h = 1e-6
    inner = x[((x * 9) % 1 > 0.01) & ((x * 9) % 1 < 0.99)]  # order 3 jumps at knots
    difference = (spline(inner + h, c, order - 1) - spline(inner - h, c, order - 1)) / (2 * h)
    assert torch.allclose(spline(inner, c, order), difference, rtol=1e-6, atol=1e-5 * 9**order)


@pytest.mark.parametrize("implementation", ["compiled", "fallback"])
def test_derivatives(implementation, monkeypatch):
    if implementation == "fallback":
        monkeypatch.setattr(spline_ops, "find_spec", lambda name: None)
    x, a, c, v = (t.requires_grad_() for t in inputs(7, 6, 3))

    def dot(x, c, v):
        return spline_dot(x, c, v)

    def transpose(x, a, v):
        return spline_transpose(x, v, 0, 6, a)

    for function, arguments in (
        (lambda x, a, c: spline(x, c, 0, a), (x, a, c)),
        (dot, (x, c, v)),
        (transpose, (x, a, v)),
    ):
        assert gradcheck(function, arguments)
        assert gradgradcheck(function, arguments)


def test_force_training_through_the_spline():
    """The third derivative that a force loss takes: by coefficients after one by distances."""
    x, _, c, v = inputs(40, 8, 5)
    gradients = []
    for function in (evaluate, spline):
        x_, c_ = x.clone().requires_grad_(), c.clone().requires_grad_()
        slope = torch.autograd.grad((function(x_, c_) ** 2 * v).sum(), x_, create_graph=True)[0]
        gradients.append(torch.autograd.grad(slope.square().sum(), (x_, c_)))
    for found, expected in zip(*gradients, strict=True):
        assert torch.allclose(found, expected, rtol=1e-11, atol=1e-9)


def test_what_a_pass_does_not_need_is_not_computed(monkeypatch):
    calls = []
    for name in ("spline", "spline_dot", "spline_transpose"):
        original = getattr(spline_numba, name)

        def note(*arguments, name=name, original=original):
            calls.append(name)
            return original(*arguments)

        monkeypatch.setattr(spline_numba, name, note)
    x, _, c, _ = (t.requires_grad_() for t in inputs(40, 8, 5))
    energy = spline(2.0 * x, 2.0 * c).square().sum()
    (force,) = torch.autograd.grad(energy, x, create_graph=True)
    assert calls == ["spline", "spline_dot"]
    calls.clear()
    force.square().sum().backward(inputs=[c])
    assert sorted(calls) == ["spline", "spline_transpose", "spline_transpose"]


def test_operators_are_well_formed():
    x, a, c, v = (t.requires_grad_() for t in inputs(11))
    library = torch.ops.openmm_nequip
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(library.spline.default, (x, a, c, 1), test_utils=tests)
    torch.library.opcheck(library.spline_dot.default, (x, c, v, 0), test_utils=tests)
    torch.library.opcheck(library.spline_transpose.default, (x, a, v, 1, 9), test_utils=tests)


def test_same_bits_for_any_number_of_threads(several_threads):
    x, a, c, v = inputs(1001, 64, 300, torch.float32)

    def all_three():
        return spline(x, c, 1, a), spline_dot(x, c, v, 1), spline_transpose(x, v, 1, 64, a)

    numba.set_num_threads(1)
    expected = all_three()
    numba.set_num_threads(several_threads)
    for one, other in zip(expected, all_three(), strict=True):
        assert torch.equal(one, other)


def test_float32_is_the_rounded_float64():
    x, a, c, v = inputs(301, dtype=torch.float32)
    for found, expected in (
        (spline(x, c, 1, a), spline(x, c.double(), 1, a)),
        (spline_dot(x, c, v), spline_dot(x, c.double(), v.double())),
        (spline_transpose(x, v, 0, 9, a), spline_transpose(x, v.double(), 0, 9, a)),
    ):
        error = (found - expected).abs().max() / expected.abs().max()
        assert 0 < error < 1e-6


def test_beyond_the_cutoff_and_not_a_number():
    _, a, c, v = inputs(4)
    x = torch.tensor([1.0, 1e300, torch.inf, torch.nan], dtype=torch.float64)
    for found in (spline(x, c), spline_dot(x, c, v).unsqueeze(1)):
        assert (found[:3] == 0).all()
        assert found[3].isnan().all()
    assert (spline_transpose(x[:3], v[:3], 0, 9, a[:3]) == 0).all()
    assert spline_transpose(x, v, 0, 9, a).isnan().any()


def test_wrong_input_is_refused():
    x, a, c, v = inputs(6)
    with pytest.raises(ValueError, match=r"spline: expected shape \(6,\), found \(5,\)"):
        spline(x, c, 0, a[:5])
    with pytest.raises(ValueError, match=r"expected torch\.float64"):
        spline(x.float(), c)
    with pytest.raises(ValueError, match="float32 or float64"):
        spline(x, c.half())
    with pytest.raises(ValueError, match=r"expected shape \(4, 70\), found \(3, 70\)"):
        spline(x, c[:3])
    with pytest.raises(ValueError, match=r"spline_dot: expected shape \(6, 70\)"):
        spline_dot(x, c, v[:4])
    with pytest.raises(ValueError, match=r"expected torch\.float32"):
        spline_dot(x, c, v.float())
    with pytest.raises(ValueError, match="order"):
        spline_transpose(x, v, -1, 9)
