"""A potential that is evaluated by the fused kernels."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..architectures import Architecture
from ..architectures.nequip import NequIP
from ..nn.spline import RadialSpline
from ..potential import Potential
from .accuracy import radial_spline
from .edges import Edges
from .linear_ops import ByType
from .network import forward, radial_tables
from .ops import is_compiled


class FusedPotential(Potential):
    """The same potential on another engine; `Potential.with_engine` makes it.

    In training mode, and in float64, the radial functions are those of the configuration. In
    evaluation a float32 network's are splines through them, because those can be evaluated inside
    the kernels; a model with ``radial='spline'`` is not changed by that.
    """

    network: NequIP

    def __init__(self, config: Architecture, metadata: dict[str, Any] | None = None):
        super().__init__(config, metadata)
        self._intervals: int | None = None
        self._tables: list[Tensor] | None = None
        self._step: Callable[[Tensor, Tensor, Edges], tuple[Tensor, Tensor]] | None = None
        self._made_of: tuple[tuple[int, int], ...] | None = None
        self._types: tuple[Tensor, int, ByType] | None = None

    def differentiate(
        self, vectors: Tensor, types: Tensor, edge_index: Tensor, gradient: bool
    ) -> tuple[Tensor, Tensor | None]:
        """See `Potential.differentiate`."""
        return self.differentiate_sorted(vectors, types, Edges.of(edge_index, len(types)), gradient)

    def differentiate_sorted(
        self, vectors: Tensor, types: Tensor, edges: Edges, gradient: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Do the same for edges whose order is known already."""
        if not self.training:
            self._prepare()
            if self._step is not None:
                return self._step(vectors, types, edges)
        tables = None if self.training else self._tables
        if gradient and not vectors.requires_grad:
            vectors.requires_grad_()
        energies = forward(self.network, vectors, types, edges, self._sorted(types), tables)
        if not gradient:
            return energies, None
        return energies, torch.autograd.grad(energies.sum(), vectors, create_graph=self.training)[0]

    def _sorted(self, types: Tensor) -> ByType | None:
        """Sort the atoms by type, but not for every step of a simulation.

        On a GPU the host waits for it: not in training, where the atoms are others in every step.
        """
        if self.training and types.device.type != "cpu":
            return None
        version = -1 if types.is_inference() else types._version
        if self._types is None or self._types[0] is not types or self._types[1] != version:
            self._types = types, version, ByType.of(types, len(self.type_names))
        return self._types[2]

    @property
    def intervals(self) -> int | None:
        """Intervals of the splines in evaluation; `None` if there are no splines."""
        if self.config.radial == "spline":
            return self.config.radial_intervals
        if self.dtype == torch.float32 and self._intervals is None:
            known = self.metadata.get("radial_spline") or radial_spline(self)
            self._intervals = int(known["intervals"])
        return self._intervals

    def train(self, mode: bool = True) -> "FusedPotential":
        """Forget the tables too: a fused optimizer changes weights without a trace."""
        self._made_of = None
        super().train(mode)
        return self

    def _prepare(self) -> None:
        """Make what evaluation needs, anew if a parameter has changed."""
        state = tuple((p.data_ptr(), p._version) for p in self.parameters())
        if state == self._made_of:
            return
        self._tables = self._step = None
        if self.intervals is not None:
            spline = RadialSpline(self.intervals).to(self.device)
            self._tables = radial_tables(self.network, spline)
            if self.device.type == "cpu" and is_compiled("cpu"):
                from .cpu import Step  # needs Numba

                self._step = Step(self.network, self._tables)
        self._made_of = state
