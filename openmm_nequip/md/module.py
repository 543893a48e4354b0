"""A potential as OpenMM's forces call it: nm in, kJ/mol out. The core that all of them share."""

from typing import Optional

import torch
from torch import Tensor, nn
from vesin_torch import NeighborList

from ..data.graph import Graph
from ..kernels.padded import narrowest_box
from ..potential import Potential
from ..units import KJ_PER_MOL, KJ_PER_MOL_NM, NM
from .verlet import FARTHEST

_BLOWN_UP = (
    "NequIP: a position is NaN, infinite or far away: the simulation has blown up; "
    "minimise the energy first, or use a shorter time step"
)
_FARTHEST = 1e5  # Å without a box, where the neighbour search goes through all that is between
_TOO_NARROW = (
    "NequIP: the periodic box has become narrower than twice the cutoff of the "
    "potential; use a larger system"
)


class OpenMMModule(nn.Module):
    """Energy and forces of some of a System's atoms; scriptable by TorchScript.

    Parameters
    ----------
    potential
        In evaluation mode.
    types
        Type index of each of the potential's atoms, shape ``[n]``.
    atoms
        Indices in the System of these atoms, in the same order; `None` if they are all of it, or
        the first of it.
    periodic
        Whether the System repeats; then every image within the cutoff counts, whether or not
        positions are wrapped into the box.
    energy_offset
        eV, subtracted from the total energy.
    """

    types: Tensor
    atoms: Tensor

    def __init__(
        self,
        potential: Potential,
        types: list[int],
        atoms: list[int] | None,
        periodic: bool,
        energy_offset: float = 0.0,
    ):
        super().__init__()
        self.potential = potential
        self.register_buffer("types", torch.tensor(types, dtype=torch.int64))
        self.register_buffer("atoms", torch.tensor(atoms or [], dtype=torch.int64))
        self.subset = atoms is not None
        self.periodic = periodic
        self.energy_offset = energy_offset
        self.r_max = potential.r_max
        self.narrowest = narrowest_box(potential.r_max)
        self.nm = NM
        self.kj_per_mol = KJ_PER_MOL
        self.kj_per_mol_nm = KJ_PER_MOL_NM
        self.blown_up, self.too_narrow = _BLOWN_UP, _TOO_NARROW
        self.farthest = FARTHEST if periodic else _FARTHEST

    def forward(
        self,
        positions: Tensor,
        first: Optional[Tensor] = None,  # noqa: UP045 - TorchScript reads these annotations
        second: Optional[Tensor] = None,  # noqa: UP045
    ) -> tuple[Tensor, Tensor]:
        """Evaluate as `TorchForce` does: with the positions of the whole System.

        Parameters
        ----------
        positions
            nm, shape ``[N, 3]``, on any device, float32 or float64.
        first, second
            Box vectors as rows, nm, shape ``[3, 3]``, if periodic; then, if interpolating,
            the factor of energy and forces, one number.

        Returns
        -------
        energy
            kJ/mol, float64 whatever the positions are.
        forces
            kJ/mol/nm, shape ``[N, 3]``, contiguous, in the dtype and on the device of the
            positions.
        """
        box, scale = first, second
        if not self.periodic:
            box, scale = None, first
        positions = positions.detach()
        count = self.types.shape[0]
        if self.subset:
            rows = self.atoms.to(positions.device)
            energy, own_forces = self.evaluate(positions[rows], box)
            forces = torch.zeros_like(positions).index_copy(0, rows, own_forces)
        elif positions.shape[0] > count:  # particles that were added to the System later
            energy, own_forces = self.evaluate(positions[:count], box)
            forces = torch.zeros_like(positions)
            forces[:count] = own_forces
        else:
            energy, forces = self.evaluate(positions, box)
        return scaled(energy, forces, scale)

    @torch.jit.export
    def evaluate(
        self,
        positions: Tensor,
        box: Optional[Tensor],  # noqa: UP045
    ) -> tuple[Tensor, Tensor]:
        """Evaluate for the potential's own atoms, shape ``[n, 3]``; units as in `forward`.

        Raises
        ------
        RuntimeError
            A coordinate is not finite, or the box is too small for the cutoff.
        """
        # TorchScript has no enable_grad, and without gradients it would crash
        if torch.jit.is_scripting() and not torch.is_grad_enabled():
            raise RuntimeError(
                "NequIP: TorchForce cannot run under torch.no_grad or torch.inference_mode; "
                "run the simulation outside of them, or use force='python'"
            )
        points = positions.detach().to(self.types.device, torch.float64) / self.nm
        if not bool((points.abs() < self.farthest).all()):  # nor NaN; vesin would crash
            raise RuntimeError(self.blown_up)
        cell = torch.zeros([3, 3], dtype=torch.float64, device=points.device)
        if box is not None:
            cell = box.detach().to(points.device, torch.float64) / self.nm
            if float(box_widths(cell).min()) < self.narrowest:
                raise RuntimeError(self.too_narrow)
        neighbors = NeighborList(self.r_max, True, True).compute(points, cell, self.periodic, "ijS")
        graph = Graph(
            positions=points,
            types=self.types,
            edge_index=torch.stack([neighbors[0], neighbors[1]]).to(torch.int64),
            shifts=neighbors[2].to(torch.float64),
            cell=cell.unsqueeze(0),
            batch=torch.zeros_like(self.types),
        )
        output = self.potential(graph)
        forces = output.forces
        assert forces is not None
        energy = (output.energy[0] - self.energy_offset) * self.kj_per_mol
        return energy, (forces * self.kj_per_mol_nm).to(positions.device, positions.dtype)


def scaled(
    energy: Tensor,
    forces: Tensor,
    scale: Optional[Tensor],  # noqa: UP045
) -> tuple[Tensor, Tensor]:
    """Multiply both by the factor of an interpolation, if there is one."""
    if scale is not None:
        # as a number, so that OpenMM's dE/dλ goes through the scale only: TorchScript may
        # lose a `detach`
        energy = scale.reshape([]).to(torch.float64) * float(energy)
        forces = forces * float(scale)
    return energy, forces.contiguous()


def box_widths(box: Tensor) -> Tensor:
    """Return the distances between opposite faces of a box, shape ``[3]``.

    Parameters
    ----------
    box
        Box vectors as rows, shape ``[3, 3]``.
    """
    normals = torch.linalg.cross(box[[1, 2, 0]], box[[2, 0, 1]])
    return (torch.linalg.det(box) / torch.linalg.vector_norm(normals, dim=1)).abs()
