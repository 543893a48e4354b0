"""A potential that is evaluated by the fused kernels."""

from typing import Any

import torch
from torch import Tensor

from ..architectures import Architecture
from ..architectures.nequip import NequIP
from ..nn.spline import RadialSpline
from ..potential import Potential
from .edges import Edges
from .network import forward, radial_tables


class FusedPotential(Potential):
    """The same potential on another engine; `Potential.with_engine` makes it.

    In training mode, and in float64, the radial functions are those of the configuration. In
    evaluation a float32 network's are splines through them (`intervals`), because those can be
    evaluated inside the kernels; a model with ``radial='spline'`` is not changed by that.

    Attributes
    ----------
    intervals : int or None
        Of the splines in evaluation; `None` if they are not used.
    """

    network: NequIP

    def __init__(self, config: Architecture, metadata: dict[str, Any] | None = None):
        super().__init__(config, metadata)
        self.intervals: int | None = None
        if config.radial == "spline":
            self.intervals = config.radial_intervals
        elif config.model_dtype == "float32":
            self.intervals = 256
        self._tables: list[Tensor] = []
        self._tables_of: tuple[tuple[int, int], ...] = ()

    def differentiate(
        self, vectors: Tensor, types: Tensor, edge_index: Tensor, gradient: bool
    ) -> tuple[Tensor, Tensor | None]:
        """See `Potential.differentiate`."""
        edges = Edges.of(edge_index, len(types))
        if gradient and not vectors.requires_grad:
            vectors.requires_grad_()
        tables = None if self.training else self.tables()
        energies = forward(self.network, vectors, types, edges, tables)
        if not gradient:
            return energies, None
        return energies, torch.autograd.grad(energies.sum(), vectors, create_graph=self.training)[0]

    def tables(self) -> list[Tensor] | None:
        """Return the coefficients of the splines, made anew if a parameter has changed."""
        if self.intervals is None:
            return None
        state = tuple((p.data_ptr(), p._version) for p in self.parameters())
        if state != self._tables_of:
            spline = RadialSpline(self.intervals).to(self.device)
            self._tables = radial_tables(self.network, spline)
            self._tables_of = state
        return self._tables
