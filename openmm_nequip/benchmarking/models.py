"""Potentials with random weights, and the same weights in the nequip package."""

import contextlib
import hashlib
import importlib.util
import json
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..architectures.nequip import PRESETS, NequIPConfig
from ..data.graph import Graph
from ..errors import InputError, did_you_mean
from ..potential import Potential, make_graph
from .samples import Sample, aspirin, water

#: Names of the models and what defines them beside the types.
SHAPES: dict[str, dict[str, Any]] = {
    "aspirin": {"num_layers": 4, "l_max": 2, "num_features": 32, "parity": True, "r_max": 4.0},
    **{size: {**preset, "r_max": 5.0} for size, preset in PRESETS.items()},
}
_SEED = 1


class Unavailable(Exception):
    """An engine cannot be measured here; the message says why."""


@dataclass
class Model:
    """A potential with random weights in float32, at every place that needs it.

    Attributes
    ----------
    name
        Key of `SHAPES`.
    options
        Keywords of `NequIPConfig`, which are those of the nequip package too.
    seed
        Of the weights.
    """

    name: str
    options: dict[str, Any]
    seed: int = _SEED
    _files: dict[Path, Path] = field(default_factory=dict)

    @cached_property
    def upstream(self) -> Any:
        """The model of the nequip package.

        Raises
        ------
        Unavailable
            nequip is not installed.
        """
        with nequip_state():
            from nequip.model import NequIPGNNModel

            return NequIPGNNModel(**self._upstream_options()).eval()

    @cached_property
    def potential(self) -> Potential:
        """Our potential; with the weights of `upstream` where nequip is installed."""
        try:
            upstream = self.upstream
        except Unavailable:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                return Potential(NequIPConfig.model_validate(self.options)).eval()
        from ..interop.nequip import from_model

        return from_model(upstream)

    def sample(self, atoms: int) -> Sample:
        """Return the structure of this size that suits the model's types."""
        if self.name == "aspirin":
            return aspirin()
        return water(atoms, width=2 * self.options["r_max"])

    def graph(self, sample: Sample) -> Graph:
        """Return the graph of a structure, on the CPU."""
        return make_graph(
            sample.frame, self.potential.type_indices(sample.frame.numbers), self.potential.r_max
        )

    def model_file(self, folder: Path) -> Path:
        """Write our model file."""
        path = folder / f"{self.name}.safetensors"
        self.potential.save(path)
        return path

    def checkpoint(self, folder: Path) -> Path:
        """Write a checkpoint of nequip, which its own programs and openmm-ml read."""
        upstream = self.upstream
        with nequip_state():
            from lightning.pytorch import Trainer
            from nequip.train import NequIPLightningModule

            module = NequIPLightningModule(
                model={"_target_": "nequip.model.NequIPGNNModel", **self._upstream_options()},
                num_datasets={"train": 1, "val": 0, "test": 0, "predict": 0},
                info_dict={
                    "versions": {},
                    "training_module": {"_target_": "nequip.train.NequIPLightningModule"},
                },
            )
            module.model["sole_model"].load_state_dict(upstream.state_dict())
            trainer = Trainer(
                logger=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                accelerator="cpu",
            )
            trainer.strategy.connect(module)
            path = folder / f"{self.name}.ckpt"
            trainer.save_checkpoint(path)
        return path

    def compiled(self, device: str) -> Any:
        """Return `upstream` compiled by AOTInductor as ``nequip-compile`` does it.

        That takes minutes, so the result is kept in the user's cache folder.
        """
        upstream = self.upstream
        with nequip_state():
            from nequip.nn.compile import DictInputOutputWrapper
            from nequip.scripts._compile_utils import COMPILE_TARGET_DICT
            from nequip.utils.aot import aot_export_model

            target = COMPILE_TARGET_DICT["ase"]
            path = self._cached_file(device)
            if not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                unfinished = path.with_name(f"{os.getpid()}-{path.name}")
                numbers = {"node": "num_nodes", "edge": "num_edges"}
                sizes = {
                    key: torch.export.Dim(name, min=2, max=None) for key, name in numbers.items()
                }
                aot_export_model(
                    model=upstream,
                    device=device,
                    input_fields=target["input"],
                    output_fields=target["output"],
                    data=upstream_data(self.graph(self.sample(21)), device),
                    batch_map=target["batch_map_settings"]({"graph": None, **sizes}),
                    output_path=str(unfinished),
                )
                unfinished.rename(path)
            package = torch._inductor.aoti_load_package(str(path))
            return DictInputOutputWrapper(package, target["input"], target["output"])

    def _upstream_options(self) -> dict[str, Any]:
        return {"seed": self.seed, "model_dtype": "float32", **self.options}

    def _cached_file(self, device: str) -> Path:
        compiler = [version(name) for name in ("nequip", "torch", "e3nn")]
        compiler.append(torch.backends.cpu.get_cpu_capability())
        key = json.dumps([self.options, self.seed, device, compiler], sort_keys=True)
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        name = hashlib.sha256(key.encode()).hexdigest()[:16]
        return root / "openmm-nequip" / "benchmark" / f"{self.name}-{name}.nequip.pt2"


def make_model(name: str, **changes: Any) -> Model:
    """Build one of `SHAPES`, with `changes` to its options.

    Raises
    ------
    InputError
        There is no such shape.
    """
    if name not in SHAPES:
        raise InputError(
            f"unknown model '{name}'{did_you_mean(name, SHAPES)}; known: {', '.join(SHAPES)}"
        )
    options = {
        "type_names": ["H", "C", "O"] if name == "aspirin" else ["H", "O"],
        "per_type_energy_scales": 1.0,
        "per_type_energy_shifts": 0.0,
        **SHAPES[name],
        **changes,
    }
    # a typical number of neighbours keeps energies and forces of random weights moderate
    options.setdefault("avg_num_neighbors", 17.0 if name == "aspirin" else 55.0)
    return Model(name, options)


def upstream_data(graph: Graph, device: str) -> dict[str, torch.Tensor]:
    """Return a graph as the nequip package names its parts."""
    cell = graph.cell
    if not cell.any():  # compiled models want one; no edge crosses it
        cell = 1e3 * torch.eye(3, dtype=cell.dtype).view(1, 3, 3)
    data = {
        "pos": graph.positions,
        "edge_index": graph.edge_index,
        "atom_types": graph.types,
        "cell": cell,
        "edge_cell_shift": graph.shifts,
    }
    return {name: tensor.to(device) for name, tensor in data.items()}


@contextlib.contextmanager
def nequip_state() -> Iterator[None]:
    """Let nequip set its global state, and undo what would change the rest of the process."""
    if importlib.util.find_spec("nequip") is None:
        raise Unavailable("nequip is not installed: pip install 'openmm-nequip[interop]'")
    from lightning.pytorch.utilities.seed import isolate_rng
    from nequip.utils.global_state import set_global_state

    dtype = torch.get_default_dtype()
    for name in ("lightning.pytorch", "torch._inductor", "torch.utils.cpp_extension"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with isolate_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            set_global_state()
            torch.set_default_dtype(torch.float32)
            yield
    finally:
        torch.set_default_dtype(dtype)


@dataclass(frozen=True)
class Evaluation:
    """Energies and forces, as comparable numbers.

    Attributes
    ----------
    energy
        eV.
    forces
        eV/Å, shape ``[N, 3]``.
    """

    energy: float
    forces: np.ndarray


class Disagreement(Exception):
    """Two engines that stand for the same function return different numbers."""


#: Largest difference to the reference engine, relative to the largest force (and for the energy,
#: to the sum of the atomic energies' sizes): float32 rounding, and radial splines.
TOLERANCE = 1e-4


def compare(expected: Evaluation, found: Evaluation, energy_scale: float) -> dict[str, float]:
    """Return the relative differences of energy and forces.

    Raises
    ------
    Disagreement
        One of them exceeds `TOLERANCE`, or is not a number.
    """
    differences = {
        "energy": abs(found.energy - expected.energy) / energy_scale,
        "forces": float(
            np.abs(found.forces - expected.forces).max() / np.abs(expected.forces).max()
        ),
    }
    for name, difference in differences.items():
        if not difference <= TOLERANCE:
            raise Disagreement(
                f"{name} differ from the reference engine's by {difference:.1e} (relative), "
                f"more than {TOLERANCE:.0e}"
            )
    return differences
