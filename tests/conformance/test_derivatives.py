"""Forces and stress against finite differences; derivatives of derivatives for training."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from openmm_nequip.data.graph import collate

from . import checks
from .cases import DEVICE, crystal, molecule


@pytest.mark.parametrize(
    "frame",
    [molecule(n=6), crystal(), replace(crystal(), pbc=(True, False, True))],
    ids=["molecule", "crystal", "slab"],
)
def test_forces(potential64, frame):
    checks.check_forces(potential64, frame)


def test_forces_add_up_to_zero(potential64):
    for frame in (molecule(), crystal()):
        total = checks.evaluate(potential64, frame).forces.sum(dim=0)
        assert total.abs().max() < 1e-12 * max(1.0, len(frame))


@pytest.mark.parametrize("frame", [crystal(), crystal(scale=1.6)], ids=["small", "large"])
def test_stress(potential64, frame):
    checks.check_stress(potential64, frame)


def test_virial_of_a_molecule_is_the_moment_of_its_forces(potential64):
    frame = molecule()
    output = checks.evaluate(potential64, frame, stress=True)
    moment = torch.tensor(frame.positions).T @ output.forces
    checks.assert_close(output.virial[0], 0.5 * (moment + moment.T), 1e-11, "virial")
    assert output.stress.isnan().all()


def test_what_is_not_asked_for_is_not_computed(potential):
    graph = potential.to_graph(crystal())
    full = potential(graph, forces=True, stress=True)
    energy_only = potential(graph, forces=False)
    assert energy_only.forces is None
    assert energy_only.stress is None
    assert energy_only.virial is None
    assert torch.equal(energy_only.energy, full.energy)
    stress_only = potential(graph, forces=False, stress=True)
    assert stress_only.forces is None
    assert torch.equal(stress_only.stress, full.stress)


def test_no_grad_and_inputs_are_untouched(potential):
    graph = potential.to_graph(molecule())
    before = graph.positions.clone()
    expected = potential(graph).forces
    with torch.no_grad():
        output = potential(graph)
    assert torch.equal(output.forces, expected)
    assert not output.energy.requires_grad
    assert not output.forces.requires_grad
    assert not graph.positions.requires_grad
    assert torch.equal(graph.positions, before)


def test_loss_of_forces_and_stress_can_be_differentiated(potential64):
    """Gradients of a training loss for every weight, along a direction in weight space."""
    graph = collate([potential64.to_graph(frame) for frame in (molecule(n=6), crystal())])
    rng = torch.Generator().manual_seed(4)
    weights_e, weights_f, weights_s = (
        torch.randn(shape, generator=rng, dtype=torch.float64).to(DEVICE)
        for shape in ((2,), graph.positions.shape, (3, 3))
    )

    def loss() -> torch.Tensor:
        output = potential64(graph, forces=True, stress=True)
        # squared, as in a loss, but with weights, so that no symmetry hides an error
        return (
            (weights_e * output.energy * 1e-3).sum()
            + (weights_f * output.forces**2).sum()
            + (weights_s * output.stress[1] ** 2).sum()
        )

    parameters = [p for p in potential64.parameters() if p.requires_grad]
    potential64.train()
    gradients = torch.autograd.grad(loss(), parameters)
    potential64.eval()
    assert all(gradient.abs().max() > 0 for gradient in gradients)

    h = 1e-4
    for parameter, gradient in zip(parameters, gradients, strict=True):
        direction = torch.randn(parameter.shape, generator=rng, dtype=torch.float64).to(DEVICE)
        direction /= direction.norm()
        original = parameter.detach().clone()
        values = {}
        with torch.no_grad():
            for step in (-2, -1, 1, 2):
                parameter.copy_(original + step * h * direction)
                values[step] = loss().item()
            parameter.copy_(original)
        expected = (values[-2] - 8 * values[-1] + 8 * values[1] - values[2]) / (12 * h)
        error = abs((gradient * direction).sum().item() - expected)
        scale = max(gradient.norm().item(), np.abs(list(values.values())).max() * 1e-3)
        assert error < 1e-6 * scale


def test_training_and_evaluation_mode_agree(potential64):
    graph = potential64.to_graph(crystal())
    expected = potential64(graph, stress=True)
    output = potential64.train()(graph, stress=True)
    potential64.eval()
    assert output.energy.requires_grad
    assert output.forces.requires_grad
    for value, reference in zip(output, expected, strict=True):
        checks.assert_close(value.detach().cpu(), reference.cpu(), 1e-13, "output in training mode")
