"""From atomic energies to what a simulation needs: total energy, forces, stress and virial."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Optional

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor, nn

from .architectures import Architecture, build
from .data.frame import Frame
from .data.graph import Graph
from .data.neighbors import neighbor_list
from .errors import InputError


class Output(NamedTuple):
    """What a `Potential` returns for a batch of G structures with N atoms in all, in float64.

    Attributes
    ----------
    energy
        Total energy, eV, shape ``[G]``.
    atomic_energies
        eV, shape ``[N]``.
    forces
        eV/Å, shape ``[N, 3]``; `None` if not asked for.
    stress
        eV/Å³ with ASE's sign, shape ``[G, 3, 3]``; NaN for a structure without a cell;
        `None` if not asked for.
    virial
        ``-dE/dε`` for a symmetric strain ε, eV, shape ``[G, 3, 3]``; `None` if not asked for.
    """

    energy: Tensor
    atomic_energies: Tensor
    forces: Optional[Tensor]  # noqa: UP045 - TorchScript reads these annotations
    stress: Optional[Tensor]  # noqa: UP045
    virial: Optional[Tensor]  # noqa: UP045


class Potential(nn.Module):
    """An interatomic potential: a network of atomic energies and their derivatives.

    Parameters
    ----------
    config
        The architecture's configuration; it defines the network completely but for its weights.
    metadata
        What the model file carries beside the weights: provenance, errors, licence, citation.

    Attributes
    ----------
    r_max : float
        Cutoff, Å.
    type_names : list of str
        Names of the atom types; the chemical symbols unless one element has several types.
    elements : list of str
        Chemical symbol of each type.
    """

    __jit_unused_properties__ = ("dtype", "device")

    def __init__(self, config: Architecture, metadata: dict[str, Any] | None = None):
        super().__init__()
        self.config = config
        self.metadata = metadata or {}
        self.network = build(config)
        self.r_max = float(config.r_max)
        self.type_names = list(config.type_names)
        self.elements = list(config.elements)

    def __call__(self, graph: Graph, *args: Any, **kwargs: Any) -> Any:
        """Evaluate with gradients on, because forces need them even under `torch.no_grad`."""
        with torch.inference_mode(False), torch.enable_grad():
            if graph.positions.is_inference():
                graph = Graph(*(tensor.clone() for tensor in graph))
            return super().__call__(graph, *args, **kwargs)

    def forward(self, graph: Graph, forces: bool = True, stress: bool = False) -> Output:
        """Evaluate a batch."""
        i, j = graph.edge_index[0], graph.edge_index[1]
        vectors = graph.positions[j] - graph.positions[i]
        edge_cell = graph.cell[graph.batch[i]]
        vectors = vectors + torch.einsum("ea,eab->eb", graph.shifts, edge_cell)
        atomic_energies, gradient = self.differentiate(
            vectors, graph.types, graph.edge_index, forces or stress
        )
        num_structures = graph.cell.shape[0]
        energy = torch.zeros(
            num_structures, dtype=atomic_energies.dtype, device=atomic_energies.device
        ).index_add(0, graph.batch, atomic_energies)

        forces_out: Optional[Tensor] = None  # noqa: UP045
        stress_out: Optional[Tensor] = None  # noqa: UP045
        virial_out: Optional[Tensor] = None  # noqa: UP045
        if forces or stress:
            # dE/dr_ij holds all there is: forces are its divergence over the edges and the
            # virial its first moment (a strain ε moves r_ij to r_ij + r_ij ε).
            assert gradient is not None
            if forces:
                forces_out = (
                    torch.zeros_like(graph.positions)
                    .index_add(0, i, gradient)
                    .index_add(0, j, -gradient)
                )
            if stress:
                moment = vectors.unsqueeze(2) * gradient.unsqueeze(1)
                dE_dstrain = torch.zeros_like(graph.cell).index_add(0, graph.batch[i], moment)
                dE_dstrain = 0.5 * (dE_dstrain + dE_dstrain.transpose(1, 2))
                volume = torch.linalg.det(graph.cell).abs().view(-1, 1, 1)
                no_cell = volume == 0
                stress_out = (dE_dstrain / torch.where(no_cell, 1.0, volume)).masked_fill(
                    no_cell, float("nan")
                )
                virial_out = -dE_dstrain
                if not self.training:
                    stress_out = stress_out.detach()
                    virial_out = virial_out.detach()
        if not self.training:  # the graph behind the energies is gone, or of no use
            energy, atomic_energies = energy.detach(), atomic_energies.detach()
        return Output(energy, atomic_energies, forces_out, stress_out, virial_out)

    def differentiate(
        self, vectors: Tensor, types: Tensor, edge_index: Tensor, gradient: bool
    ) -> tuple[Tensor, Optional[Tensor]]:  # noqa: UP045
        """Return atomic energies, eV, and the gradient of their sum by the edge vectors, eV/Å.

        All that an engine has to provide: see `NequIP.forward` for shapes.
        """
        if gradient and not vectors.requires_grad:
            vectors.requires_grad_()
        energies = self.network(vectors, types, edge_index)
        if not gradient:
            return energies, None
        # in training mode the derivatives can be differentiated again
        return energies, torch.autograd.grad(
            [energies.sum()], [vectors], create_graph=self.training
        )[0]

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the network (energies and geometry are float64 always)."""
        return getattr(torch, self.config.model_dtype)

    @property
    def device(self) -> torch.device:
        """Device on which the potential lives."""
        return next(self.parameters()).device

    @torch.jit.unused
    def type_indices(self, numbers: Sequence[int] | np.ndarray) -> np.ndarray:
        """Map atomic numbers to type indices.

        Raises
        ------
        InputError
            An element is unknown to the potential, or has several types.
        """
        symbols = [chemical_symbols[z] for z in sorted({int(z) for z in numbers})]
        if several := [symbol for symbol in symbols if self.elements.count(symbol) > 1]:
            raise InputError(
                f"this potential has several atom types for {', '.join(several)}: give the types "
                f"by name (atomTypes=..., one of {', '.join(self.type_names)} for each atom)"
            )
        index = {atomic_numbers[symbol]: k for k, symbol in enumerate(self.elements)}
        unknown = [chemical_symbols[z] for z in sorted({int(z) for z in numbers} - set(index))]
        if unknown:
            raise InputError(
                f"the potential was not trained on {', '.join(unknown)}; "
                f"it knows {', '.join(self.elements)}"
            )
        return np.array([index[int(z)] for z in numbers], dtype=np.int64)

    @torch.jit.unused
    def to_graph(self, frame: Frame, types: np.ndarray | None = None) -> Graph:
        """Build the graph of one frame, on the potential's device.

        Parameters
        ----------
        frame
            The configuration; labels are not used.
        types
            Type index of each atom, shape ``[N]``; from the atomic numbers if not given.
        """
        if types is None:
            types = self.type_indices(frame.numbers)
        return make_graph(frame, types, self.r_max).to(self.device)

    @torch.jit.unused
    def with_dtype(self, model_dtype: Literal["float32", "float64"]) -> "Potential":
        """Return the same potential with its network in another precision."""
        config = self.config.model_copy(update={"model_dtype": model_dtype})
        with torch.random.fork_rng(devices=[]):  # every weight is replaced
            converted = type(self)(config, self.metadata)
        converted.load_state_dict(self.state_dict())
        return converted.to(self.device).train(self.training)

    @torch.jit.unused
    def with_engine(self, engine: Literal["fused", "reference"]) -> "Potential":
        """Return the same potential on another engine; its weights are copied."""
        from .kernels.potential import FusedPotential

        kind = FusedPotential if engine == "fused" else Potential
        with torch.random.fork_rng(devices=[]):  # every weight is replaced
            converted = kind(self.config, self.metadata)
        converted.load_state_dict(self.state_dict())
        return converted.to(self.device).train(self.training)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle what defines the potential; compiled parts of it cannot be."""
        weights = dict(self.state_dict())
        made_of = (type(self), self.config, self.metadata, weights, self.device, self.training)
        return _rebuild, made_of

    @torch.jit.unused
    def save(self, path: str | Path) -> None:
        """Write the model file (see `openmm_nequip.modelfile`)."""
        from .modelfile import save

        save(self, path)


def _rebuild(
    kind: type[Potential],
    config: Architecture,
    metadata: dict[str, Any],
    weights: dict[str, Tensor],
    device: torch.device,
    training: bool,
) -> Potential:
    with torch.random.fork_rng(devices=[]):  # every weight is replaced
        potential = kind(config, metadata)
    potential.load_state_dict(weights)
    return potential.to(device).train(training)


def make_graph(frame: Frame, types: np.ndarray, r_max: float) -> Graph:
    """Build the graph of one frame on the CPU, with its neighbour list.

    Raises
    ------
    InputError
        A coordinate is NaN or infinite.
    """
    if not np.isfinite(frame.positions).all():
        atom = int(np.argmin(np.isfinite(frame.positions).all(axis=1)))
        raise InputError(f"position of atom {atom} is not finite: {frame.positions[atom]}")
    edge_index, shifts = neighbor_list(frame.positions, frame.cell, frame.pbc, r_max)
    cell = np.zeros((3, 3)) if frame.cell is None else frame.cell
    return Graph(
        positions=torch.tensor(frame.positions, dtype=torch.float64),
        types=torch.as_tensor(types, dtype=torch.int64),
        edge_index=torch.from_numpy(edge_index),
        shifts=torch.tensor(shifts, dtype=torch.float64),
        cell=torch.tensor(cell, dtype=torch.float64).view(1, 3, 3),
        batch=torch.zeros(len(frame.numbers), dtype=torch.int64),
    )
