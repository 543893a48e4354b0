"""What every potential must satisfy, as functions that raise `AssertionError`.

They are functions, not tests, so that `test_checks_can_fail.py` can put broken potentials through
them.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from openmm_nequip.data.frame import Frame
from openmm_nequip.data.graph import collate
from openmm_nequip.potential import Output, Potential


def evaluate(potential: Potential, *frames: Frame, stress: bool = False) -> Output:
    """Evaluate frames as one batch."""
    graph = collate([potential.to_graph(frame) for frame in frames])
    return on_cpu(potential(graph, forces=True, stress=stress))


def on_cpu(output: Output) -> Output:
    """Bring results to where they are compared."""
    return Output(*(None if tensor is None else tensor.cpu() for tensor in output))


def tolerance(potential: Potential) -> float:
    """Rounding, relative to the largest value."""
    return 1e-11 if potential.dtype == torch.float64 else 3e-5


def assert_close(value: Tensor, expected: Any, relative: float, what: str) -> None:
    """Compare within `relative` of the largest expected magnitude (at least 1 eV, Å, ...)."""
    expected = torch.as_tensor(expected, dtype=torch.float64)
    assert value.dtype == torch.float64
    assert value.shape == expected.shape, f"{what}: {value.shape} != {expected.shape}"
    assert torch.isfinite(value).all(), f"{what} is not finite"
    error = (value - expected).abs().max().item() if value.numel() else 0.0
    scale = max(1.0, expected.abs().max().item()) if value.numel() else 1.0
    assert error <= relative * scale, f"{what} differs by {error:.1e} on a scale of {scale:.1e}"


def shifts(potential: Potential, frame: Frame) -> Tensor:
    """Per-atom energies of isolated atoms, from the configuration."""
    per_type = potential.config.per_type_energy_shifts
    return torch.tensor(
        [per_type[potential.type_names[t]] for t in potential.type_indices(frame.numbers)],
        dtype=torch.float64,
    )


def assert_same(
    potential: Potential,
    frame: Frame,
    changed: Frame,
    rotation: np.ndarray | None = None,
    order: np.ndarray | None = None,
) -> None:
    """Energies without the shifts, forces and stress agree after a change of the description."""
    rotation = np.eye(3) if rotation is None else rotation
    order = np.arange(len(frame)) if order is None else order
    has_stress = frame.cell is not None
    a = evaluate(potential, frame, stress=has_stress)
    b = evaluate(potential, changed, stress=has_stress)
    relative = tolerance(potential)
    shift = shifts(potential, frame)
    assert_close(
        b.atomic_energies - shift[order], (a.atomic_energies - shift)[order], relative, "energies"
    )
    assert_close(b.energy - shift.sum(), a.energy - shift.sum(), relative, "energy")
    turn = torch.tensor(rotation, dtype=torch.float64)
    assert_close(b.forces, (a.forces @ turn.T)[order], relative, "forces")
    if has_stress:
        assert_close(b.stress, turn @ a.stress @ turn.T, relative, "stress")
        assert_close(b.virial, turn @ a.virial @ turn.T, relative, "virial")


def random_rotation(seed: int) -> np.ndarray:
    """Draw a proper rotation."""
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.linalg.det(q)


def transform(frame: Frame, matrix: np.ndarray) -> Frame:
    """Apply a linear map to positions and cell."""
    cell = None if frame.cell is None else frame.cell @ matrix.T
    return replace(frame, positions=frame.positions @ matrix.T, cell=cell)


def check_isometry(potential: Potential, frame: Frame, matrix: np.ndarray) -> None:
    """Rotations and reflections turn forces and stress and leave energies alone."""
    assert_same(potential, frame, transform(frame, matrix), rotation=matrix)


def check_translation(potential: Potential, frame: Frame) -> None:
    for vector in ([0.3, -1.7, 2.2], [40.0, -60.0, 80.0]):
        assert_same(potential, frame, replace(frame, positions=frame.positions + vector))


def check_permutation(potential: Potential, frame: Frame) -> None:
    order = np.random.default_rng(3).permutation(len(frame))
    permuted = replace(frame, positions=frame.positions[order], numbers=frame.numbers[order])
    assert_same(potential, frame, permuted, order=order)


def differentiate(function: Callable[[np.ndarray], np.ndarray], n: int, h: float) -> np.ndarray:
    """Fourth-order central differences of a function of n variables, evaluated in one batch.

    `function` maps displacements ``[4 n, n]`` to values ``[4 n]``.
    """
    steps = np.array([-2.0, -1.0, 1.0, 2.0]) * h
    displacements = (steps[:, None, None] * np.eye(n)).reshape(4 * n, n)
    minus2, minus1, plus1, plus2 = function(displacements).reshape(4, n)
    return (minus2 - 8.0 * minus1 + 8.0 * plus1 - plus2) / (12.0 * h)


def energies_of(potential: Potential, frames: Sequence[Frame]) -> np.ndarray:
    """Energies without the shifts: differences of large numbers lose digits."""
    graph = collate([potential.to_graph(frame) for frame in frames])
    atomic = potential(graph, forces=False).atomic_energies.cpu()
    shift = torch.cat([shifts(potential, frame) for frame in frames])
    energy = torch.zeros(len(frames), dtype=torch.float64)
    return energy.index_add(0, graph.batch.cpu(), atomic - shift).numpy()


def check_forces(potential: Potential, frame: Frame, h: float = 1e-3) -> None:
    """Forces are minus the gradient of the energy."""

    def energy(displacements: np.ndarray) -> np.ndarray:
        moved = [
            replace(frame, positions=frame.positions + d.reshape(-1, 3)) for d in displacements
        ]
        return energies_of(potential, moved)

    expected = -differentiate(energy, 3 * len(frame), h).reshape(-1, 3)
    forces = evaluate(potential, frame).forces
    assert forces.abs().max() > 0.01, "the forces are too small to test anything"
    error = (forces - torch.tensor(expected)).abs().max() / forces.abs().max()
    assert error < 1e-7, f"forces differ from finite differences by {error:.1e}"


#: Symmetric strains; the shear components share one parameter between two entries.
_STRAINS = np.zeros((6, 3, 3))
for _k, (_a, _b) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
    _STRAINS[_k, _a, _b] += 0.5
    _STRAINS[_k, _b, _a] += 0.5


def check_stress(potential: Potential, frame: Frame, h: float = 5e-4) -> None:
    """Stress is dE/dε over the volume, virial is minus stress times volume."""

    def energy(strains: np.ndarray) -> np.ndarray:
        maps = np.eye(3) + np.einsum("sk,kab->sab", strains, _STRAINS)
        return energies_of(potential, [transform(frame, m) for m in maps])

    volume = abs(np.linalg.det(frame.cell))
    xx, yy, zz, yz, xz, xy = differentiate(energy, 6, h) / volume
    expected = torch.tensor([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    output = evaluate(potential, frame, stress=True)
    stress = output.stress[0]
    error = (stress - expected).abs().max() / stress.abs().max()
    assert error < 1e-7, f"stress differs from finite differences by {error:.1e}"
    assert_close(output.virial, -output.stress * volume, 1e-12, "virial")


def dimer(numbers: Sequence[int], distance: float, *others: Sequence[float]) -> Frame:
    """Two atoms `distance` apart in a general direction, and further ones."""
    direction = np.array([2.0, -1.0, 2.0]) / 3.0
    return Frame(
        numbers=np.array(numbers),
        positions=np.array([np.zeros(3), distance * direction, *map(np.array, others)]),
    )


def check_cutoff(potential: Potential, pair: Sequence[int], cutoff: float) -> None:
    """Energy, force and the force's slope of a pair vanish at the cutoff."""
    near = 0.01
    distances = cutoff - np.array([0.5, 0.4, 0.3, 0.2, 0.1, near, 1e-9, -1e-9, -0.3])
    outputs = [evaluate(potential, dimer(pair, r)) for r in distances]
    shift = shifts(potential, dimer(pair, 1.0)).sum()
    energy = torch.stack([o.energy[0] - shift for o in outputs]).abs()
    force = torch.stack([o.forces.norm(dim=1)[0] for o in outputs])
    assert energy[0] > 1e-7
    # the envelope's third-order zero makes E fall as d³ and F as d²; a kink in F would give d², d
    fraction = near / 0.5
    assert energy[5] < fraction**2.5 * energy.max(), "the energy is not smooth at the cutoff"
    assert force[5] < fraction**1.5 * force.max(), "the forces are not smooth at the cutoff"
    assert energy[6] < 1e-12
    assert force[6] < 1e-12
    assert (energy[7:] == 0).all()
    assert (force[7:] == 0).all()


def check_crossing(potential: Potential, numbers: Sequence[int], cutoff: float) -> None:
    """With a third atom in between, E and F have no jump and no kink where a pair separates."""
    h = 1e-4
    bridge = (0.9, 0.7, 0.4)
    frames = [dimer(numbers, cutoff + k * h, bridge) for k in range(-3, 4)]
    outputs = [evaluate(potential, frame) for frame in frames]
    energy = torch.stack([o.energy[0] - shifts(potential, frames[0]).sum() for o in outputs])
    force = torch.stack([o.forces for o in outputs])
    scale = force.abs().max()
    assert scale > 0.01
    # third differences of a C² function are of order h³ (or h² for the kink's side): any jump
    # or kink would show at full size
    third = torch.tensor([-1.0, 3.0, -3.0, 1.0], dtype=torch.float64)
    for start in range(4):
        window = slice(start, start + 4)
        assert abs(energy[window] @ third) < 1e-8 * scale
        assert torch.einsum("k,kia->ia", third, force[window]).abs().max() < 1e-5 * scale
