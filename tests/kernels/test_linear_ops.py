"""Linear maps as single operations: against the modules, to third order."""

import pytest
import torch
from e3nn.o3 import Irreps
from torch.autograd import gradcheck, gradgradcheck

from openmm_nequip.kernels.linear_ops import ByType, linear, self_connection
from openmm_nequip.nn.linear import EquivariantLinear, SelfConnection

IN, OUT = Irreps("5x0o+7x0e+3x1o+4x2e"), Irreps("2x0o+9x0e+1x1o+6x1e+3x2e")


def modules():
    torch.manual_seed(0)
    known = {ir for _, ir in IN}
    out = Irreps([(mul, ir) for mul, ir in OUT if ir in known])
    return EquivariantLinear(IN, out).double(), SelfConnection(IN, 3, OUT).double()


def inputs(types=(1, 0, 2, 2, 0, 1, 1)):
    x = torch.randn(len(types), IN.dim, dtype=torch.float64, requires_grad=True)
    attributes = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    return x, attributes, torch.tensor(types, dtype=torch.int64)


@pytest.mark.parametrize("types", [(1, 0, 2, 2, 0, 1, 1), (3,), ()])
def test_equal_to_the_modules(types):
    plain, connection = modules()
    x, attributes, types = inputs(types)
    by_type = ByType.of(types, len(attributes))
    found, expected = linear(plain, x), plain(x)
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)
    found = self_connection(connection, x, attributes, types, by_type)
    assert torch.allclose(found, connection(x, attributes, types), rtol=1e-12, atol=1e-12)


def test_derivatives():
    plain, connection = modules()
    x, attributes, types = inputs()
    by_type = ByType.of(types, len(attributes))

    def map_(x, weight):
        return torch.func.functional_call(_Call(plain, linear), {"module.weight": weight}, (x,))

    def connect(x, attributes, weight):
        call = _Call(connection, self_connection)
        return torch.func.functional_call(
            call, {"module.weight": weight}, (x, attributes, types, by_type)
        )

    for function, arguments in (
        (map_, (x, plain.weight)),
        (connect, (x, attributes, connection.weight)),
    ):
        arguments = [t.detach().requires_grad_() for t in arguments]
        assert gradcheck(function, arguments, fast_mode=True)
        assert gradgradcheck(function, arguments, fast_mode=True)


class _Call(torch.nn.Module):
    def __init__(self, module, function):
        super().__init__()
        self.module, self.function = module, function

    def forward(self, *arguments):
        return self.function(self.module, *arguments)


def test_force_training():
    """Weights' derivatives of derivatives by x, as a force loss takes them."""
    plain, connection = modules()
    x, attributes, types = inputs()
    by_type = ByType.of(types, len(attributes))
    weights = [plain.weight, connection.weight, attributes]
    gradients = []
    for fused in (False, True):
        if fused:
            first, second = (
                linear(plain, x),
                self_connection(connection, x, attributes, types, by_type),
            )
        else:
            first, second = plain(x), connection(x, attributes, types)
        energy = first.tanh().sum() + second.tanh().sum()
        (force,) = torch.autograd.grad(energy, x, create_graph=True)
        loss = force.square().sum() + energy.square()
        for weight in weights:
            weight.grad = None
        loss.backward(inputs=weights)
        gradients.append([weight.grad.clone() for weight in weights])
    for found, expected in zip(*gradients, strict=True):
        assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)
