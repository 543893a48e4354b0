"""The checks find potentials that are wrong by a little."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from . import checks
from .cases import build, crystal, molecule


class Broken(torch.nn.Module):
    """A potential whose output passes through a function that spoils it."""

    def __init__(self, potential, spoil):
        super().__init__()
        self.potential, self.spoil = potential, spoil

    def forward(self, graph, forces=True, stress=False):
        return self.spoil(graph, self.potential(graph, forces=forces, stress=stress))

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.potential, name)


def broken(spoil):
    return Broken(build("l2-parity-zbl"), spoil)


def test_forces_wrong_by_a_factor():
    # only the last atom's: the check must look at every atom
    def spoil(graph, output):
        if output.forces is None:
            return output
        forces = output.forces.clone()
        forces[-1] *= 1.001
        return output._replace(forces=forces)

    with pytest.raises(AssertionError, match="finite differences"):
        checks.check_forces(broken(spoil), molecule(n=6))


def test_stress_wrong_by_a_factor():
    def spoil(graph, output):
        return output if output.stress is None else output._replace(stress=output.stress * 1.001)

    with pytest.raises(AssertionError, match="finite differences"):
        checks.check_stress(broken(spoil), crystal())


def test_virial_of_the_wrong_sign():
    def spoil(graph, output):
        return output if output.virial is None else output._replace(virial=-output.virial)

    with pytest.raises(AssertionError, match="virial"):
        checks.check_stress(broken(spoil), crystal())


def test_energy_that_depends_on_orientation():
    def spoil(graph, output):
        return output._replace(energy=output.energy + 1e-8 * graph.positions[0, 0])

    for matrix in (checks.random_rotation(1), -np.eye(3)):
        with pytest.raises(AssertionError, match="energy differs"):
            checks.check_isometry(broken(spoil), molecule(), matrix)
    with pytest.raises(AssertionError, match="energy differs"):
        checks.check_translation(broken(spoil), molecule())


def test_pseudovector_in_the_forces():
    """Covariant under rotations, but not under inversion."""

    def spoil(graph, output):
        x = graph.positions - graph.positions.mean(dim=0)
        pseudovector = torch.linalg.cross(x, x.roll(1, 0) * x.norm())
        return output._replace(forces=output.forces + 1e-6 * pseudovector)

    checks.check_isometry(broken(spoil), molecule(), checks.random_rotation(1))
    with pytest.raises(AssertionError, match="forces differ"):
        checks.check_isometry(broken(spoil), molecule(), -np.eye(3))


def test_forces_in_the_order_of_the_atoms():
    def spoil(graph, output):
        ramp = torch.arange(len(graph.types)).unsqueeze(1)
        return output._replace(forces=output.forces + 1e-8 * ramp)

    with pytest.raises(AssertionError, match="forces differ"):
        checks.check_permutation(broken(spoil), molecule())


def test_images_that_are_told_apart():
    def spoil(graph, output):
        return output._replace(energy=output.energy + 1e-8 * graph.shifts.abs().sum())

    frame = crystal()
    moved = replace(frame, positions=frame.positions + np.outer([1, 0, 0, 0], frame.cell[0]))
    checks.assert_same(build("l2-parity-zbl"), frame, moved)
    permuted = replace(
        frame, positions=frame.positions + [1] * 3 @ frame.cell * [[1], [0], [0], [0]]
    )
    with pytest.raises(AssertionError, match="energy differs"):
        checks.assert_same(broken(spoil), frame, permuted)


@pytest.mark.parametrize(("power", "size"), [(0, 1e-6), (1, 1e-3), (2, 0.1)])
def test_cutoff_that_is_not_smooth(power, size):
    """Add a truncated power of the distance to the cutoff: a step, a kink, a kink in the force."""
    cutoff = 3.5

    class Truncated(Broken):
        def forward(self, graph, forces=True, stress=False):
            positions = graph.positions.clone().requires_grad_()
            r = (positions[1] - positions[0]).norm()
            inside = ((r < cutoff) * (1.0 - r / cutoff)).clamp(min=0.0)
            extra = inside**power * (r < cutoff) * size
            (gradient,) = torch.autograd.grad(extra, positions, allow_unused=True)
            output = self.potential(graph, forces=forces, stress=stress)
            return output._replace(
                energy=output.energy + extra.detach(),
                forces=output.forces - gradient,
            )

    potential = Truncated(build("l1-parity"), None)
    if power < 2:
        with pytest.raises(AssertionError):
            checks.check_crossing(potential, [6, 8, 6], cutoff)
    with pytest.raises(AssertionError):
        checks.check_cutoff(potential, [6, 8], cutoff)
