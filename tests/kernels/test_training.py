"""The fused engine in training mode: the derivatives by the weights are those of the reference."""

import pytest
import torch

from tests.conformance.cases import CASES, build, molecule

SLOW = ("l3-parity", "l4")  # to compile


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=[pytest.mark.slow] * (c in SLOW)) for c in CASES]
)
def test_gradients_of_a_force_loss(case):
    gradients = []
    for engine in ("reference", "fused"):
        potential = build(case, engine=engine).train()
        output = potential(potential.to_graph(molecule()), forces=True)
        loss = output.forces.square().mean() + 0.1 * output.energy.square().sum()
        weights = {n: p for n, p in potential.named_parameters() if p.requires_grad}
        found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        gradients.append(dict(zip(weights, found, strict=True)))
    reference, fused = gradients
    assert reference.keys() == fused.keys()
    for name, expected in reference.items():
        if expected is None:
            assert fused[name] is None or not fused[name].any(), name
            continue
        error = (fused[name] - expected).abs().max()
        assert error <= 1e-9 * expected.abs().max(), name
