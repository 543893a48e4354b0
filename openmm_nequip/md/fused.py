"""The fused engine with a neighbour list that lasts: what OpenMM and ASE call at every step."""

from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..kernels.padded import narrowest_box
from ..kernels.potential import FusedPotential
from ..kernels.replay import MOST_ATOMS, ReplayedStep
from ..potential import Potential
from .module import OpenMMModule, box_widths
from .verlet import verlet_list


class Evaluation(NamedTuple):
    """Of one structure of N atoms with E edges, float64.

    Attributes
    ----------
    energies
        Of the atoms, eV, shape ``[N]``.
    forces
        eV/Å, shape ``[N, 3]``.
    vectors, gradient
        The edges, Å, and the gradient of the energy by them, eV/Å, shape ``[E, 3]``.
    """

    energies: Tensor
    forces: Tensor
    vectors: Tensor
    gradient: Tensor

    @property
    def virial(self) -> Tensor:
        """The sum over edges of vector times gradient, eV, shape ``[3, 3]``."""
        return self.vectors.T @ self.gradient


class FusedEngine:
    """A potential on the fused kernels, fastest for a structure that resembles the one before.

    Threads may share it; they take turns.

    Parameters
    ----------
    potential
        It is copied.
    device
        CPU or CUDA.
    """

    def __init__(self, potential: Potential, device: torch.device | str):
        fused = potential.with_engine("fused").to(device)
        assert isinstance(fused, FusedPotential)
        self.potential = fused
        self.potential.eval().requires_grad_(False)
        self.neighbors = verlet_list(potential.r_max, device)
        self._replayed: ReplayedStep | None = None
        self._turn = Lock()

    def __call__(
        self,
        positions: Tensor,
        types: Tensor,
        box: np.ndarray | None = None,
        periodic: tuple[bool, bool, bool] = (True, True, True),
    ) -> Evaluation:
        """Evaluate; positions and types on the engine's device, otherwise as `VerletList.update`.

        Raises
        ------
        InputError
            A coordinate is not finite.
        """
        with self._turn, torch.inference_mode(False), torch.enable_grad():
            if self._is_replayed(len(types), box, periodic):
                return self._replay(positions, types, box if any(periodic) else None)
            found = self.neighbors.update(positions, box, periodic)
            energies, gradient = self.potential.differentiate_sorted(
                found.vectors, types, found.edges
            )
        assert gradient is not None
        forces = self.neighbors.forces(gradient, found.edges)
        return Evaluation(energies.detach(), forces, found.vectors.detach(), gradient)

    def _is_replayed(
        self, num_atoms: int, box: np.ndarray | None, periodic: tuple[bool, bool, bool]
    ) -> bool:
        """Return whether this is a system that a CUDA graph suits."""
        if self.potential.device.type != "cuda" or not 0 < num_atoms <= MOST_ATOMS:
            return False
        if box is None or not any(periodic):
            return True
        wide = bool((box.diagonal() >= narrowest_box(self.potential.r_max)).all())
        return all(periodic) and wide and not np.triu(box, 1).any()

    def _replay(self, positions: Tensor, types: Tensor, lattice: np.ndarray | None) -> Evaluation:
        if self._replayed is None or not _equal(self._replayed.types, types):
            self._replayed = ReplayedStep(self.potential, types)
        box = None if lattice is None else torch.from_numpy(lattice)
        return Evaluation(*self._replayed(positions, box))


def _equal(a: Tensor, b: Tensor) -> bool:
    """Compare; the same tensor is equal without looking, for which the host would wait."""
    return a is b or torch.equal(a, b)


class FusedModule(OpenMMModule):
    """What an `OpenMMModule` computes, by the fused engine; not scriptable.

    It keeps a neighbour list, so every simulation needs one of its own.

    Parameters
    ----------
    potential, types, atoms, periodic, energy_offset
        As of `OpenMMModule`.
    device
        CPU or CUDA; the module stays there.
    """

    def __init__(
        self,
        potential: Potential,
        types: list[int],
        atoms: list[int] | None,
        periodic: bool,
        energy_offset: float = 0.0,
        device: torch.device | str = "cpu",
    ):
        super().__init__(potential, types, atoms, periodic, energy_offset)
        self.engine = FusedEngine(potential, device)
        self.potential = self.engine.potential
        self.to(device)
        self._checked = np.zeros((3, 3))

    def evaluate(self, positions: Tensor, box: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `OpenMMModule.evaluate`."""
        points = positions.detach().to(self.types.device, torch.float64) / self.nm
        lattice = None
        if box is not None:
            lattice = box.detach().to("cpu", torch.float64).numpy() / self.nm
            if (lattice != self._checked).any():
                if not float(box_widths(torch.from_numpy(lattice)).min()) >= self.narrowest:
                    raise RuntimeError(self.too_narrow)
                self._checked = lattice
        try:
            found = self.engine(points, self.types, lattice)
        except InputError:
            raise RuntimeError(self.blown_up) from None
        energy = (found.energies.sum() - self.energy_offset) * self.kj_per_mol
        return energy, (found.forces * self.kj_per_mol_nm).to(positions.device, positions.dtype)
