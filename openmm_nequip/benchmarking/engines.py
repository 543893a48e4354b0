"""Energy and forces of a prepared graph, by every implementation that is installed."""

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch

from ..errors import InputError, did_you_mean
from .models import Evaluation, Model, Unavailable, upstream_data
from .samples import Sample

#: Evaluates one structure; what it returns is turned into numbers by `Engine.read`.
Call = Callable[[], Any]


class Engine:
    """One implementation, set up for one model.

    Attributes
    ----------
    same_weights
        Whether it stands for the same function as our potential.
    note
        What one should know about its figures.
    """

    same_weights = True
    note = ""

    def __init__(self, model: Model, device: str):
        self.model, self.device = model, device

    def prepare(self, sample: Sample) -> Call:
        """Return a function that computes energy and forces of `sample`, neighbours known."""
        raise NotImplementedError

    def read(self, output: Any) -> Evaluation:
        """Return the numbers in what the function returned."""
        raise NotImplementedError

    def timed(self, call: Call) -> Call:
        """Return `call`, with the device's work included."""
        if not self.device.startswith("cuda"):
            return call

        def synchronised() -> Any:
            output = call()
            torch.cuda.synchronize()
            return output

        return synchronised


class Ours(Engine):
    """This package; subclasses say by which engine."""

    engine: Literal["fused", "reference"] = "reference"

    def __init__(self, model: Model, device: str):
        super().__init__(model, device)
        potential = model.potential
        if self.engine != "reference":
            potential = potential.with_engine(self.engine)
        self.potential = potential.to(device)

    def prepare(self, sample: Sample) -> Call:
        graph = self.model.graph(sample).to(self.device)
        return self.timed(lambda: self.potential(graph))

    def read(self, output: Any) -> Evaluation:
        return Evaluation(float(output.energy), output.forces.cpu().numpy())


class Fused(Ours):
    engine = "fused"


class NequIP(Engine):
    """The nequip package with the same weights, as its checkpoints are evaluated."""

    def __init__(self, model: Model, device: str):
        super().__init__(model, device)
        self.network = self.load()

    def load(self) -> Any:
        return self.model.upstream.to(self.device)

    def prepare(self, sample: Sample) -> Call:
        data = upstream_data(self.model.graph(sample), self.device)
        return self.timed(lambda: self.network(dict(data)))

    def read(self, output: Any) -> Evaluation:
        return Evaluation(
            float(output["total_energy"].detach()), output["forces"].detach().cpu().double().numpy()
        )


class CompiledNequIP(NequIP):
    """The same, compiled by AOTInductor."""

    def load(self) -> Any:
        return self.model.compiled(self.device)


class MACE(Engine):
    """A MACE model with random weights, two layers, correlation order 3."""

    same_weights = False
    irreps = "128x0e"

    def __init__(self, model: Model, device: str):
        super().__init__(model, device)
        _need("mace", "mace-torch")
        from e3nn.o3 import Irreps

        modules = importlib.import_module("mace.modules")
        block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
        self.network = modules.ScaleShiftMACE(
            r_max=model.potential.r_max,
            num_bessel=8,
            num_polynomial_cutoff=5,
            max_ell=3,
            interaction_cls=block,
            interaction_cls_first=block,
            num_interactions=2,
            num_elements=len(model.potential.elements),
            hidden_irreps=Irreps(self.irreps),
            MLP_irreps=Irreps("16x0e"),
            gate=torch.nn.functional.silu,
            atomic_energies=np.zeros(len(model.potential.elements)),
            avg_num_neighbors=model.options["avg_num_neighbors"],
            atomic_numbers=list(range(len(model.potential.elements))),
            correlation=3,
            radial_type="bessel",
            atomic_inter_scale=1.0,
            atomic_inter_shift=0.0,
        )
        self.network = self.network.float().to(device).eval()

    def prepare(self, sample: Sample) -> Call:
        graph = self.model.graph(sample)
        i, j = graph.edge_index
        data = {
            "positions": graph.positions.float(),
            "node_attrs": torch.nn.functional.one_hot(
                graph.types, len(self.model.potential.elements)
            ).float(),
            "edge_index": torch.stack([j, i]),
            "shifts": (graph.shifts @ graph.cell[0]).float(),
            "unit_shifts": graph.shifts.float(),
            "cell": graph.cell[0].float(),
            "batch": graph.batch,
            "ptr": torch.tensor([0, len(graph.types)]),
            "head": torch.zeros(1, dtype=torch.int64),
        }
        data = {name: tensor.to(self.device) for name, tensor in data.items()}
        return self.timed(lambda: self.network(dict(data), compute_force=True))

    def read(self, output: Any) -> Evaluation:
        return Evaluation(float(output["energy"].detach()), output["forces"].detach().cpu().numpy())


class MACEMedium(MACE):
    irreps = "128x0e+128x1o"


class ANI(Engine):
    """The networks of ANI-2x, untrained, as one ensemble of eight."""

    same_weights = False
    note = "includes its neighbour list"

    def __init__(self, model: Model, device: str):
        super().__init__(model, device)
        _need("torchani", "torchani")
        from torchani.arch import Assembler
        from torchani.utils import SYMBOLS_2X

        assembler = Assembler(periodic_table_index=True)
        assembler.set_symbols(SYMBOLS_2X)
        assembler.set_global_cutoff_fn("cosine")
        assembler.set_aev_computer(radial="ani2x", angular="ani2x", strategy="pyaev")
        assembler.set_atomic_networks(ctor="ani2x")
        assembler.set_neighborlist("cell_list")
        assembler.set_gsaes_as_self_energies("wb97x-631gd")
        self.network = assembler.assemble(8).float().to(device).requires_grad_(False)

    def prepare(self, sample: Sample) -> Call:
        numbers = torch.tensor(sample.frame.numbers[None], device=self.device)
        positions = torch.tensor(
            sample.frame.positions[None], dtype=torch.float32, device=self.device
        )
        periodic: dict[str, Any] = {}
        if sample.frame.cell is not None:
            periodic["cell"] = torch.tensor(
                sample.frame.cell, dtype=torch.float32, device=self.device
            )
            periodic["pbc"] = torch.ones(3, dtype=torch.bool, device=self.device)

        def call() -> Any:
            points = positions.clone().requires_grad_()
            energy = self.network((numbers, points), **periodic).energies.sum()
            return energy.detach(), -torch.autograd.grad(energy, points)[0]

        return self.timed(call)

    def read(self, output: Any) -> Evaluation:
        return Evaluation(float(output[0]), output[1][0].cpu().numpy())


#: In the order in which they take turns.
ENGINES: dict[str, type[Engine]] = {
    "fused": Fused,
    "reference": Ours,
    "nequip": NequIP,
    "nequip-aotinductor": CompiledNequIP,
    "mace-128x0e": MACE,
    "mace-128x0e+128x1o": MACEMedium,
    "ani-2x": ANI,
}


def check_names(names: list[str]) -> None:
    """Raise InputError if one of `names` is no engine."""
    for name in names:
        if name not in ENGINES:
            raise InputError(
                f"unknown engine '{name}'{did_you_mean(name, ENGINES)}; known: {', '.join(ENGINES)}"
            )


def _need(module: str, package: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise Unavailable(f"{package} is not installed")
