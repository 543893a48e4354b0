"""What defines a force completely: plain settings and the content of a model file."""

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ..kernels.engine import choose_engine
from ..modelfile import load_file
from ..potential import Potential
from .module import OpenMMModule

FORCE_NAME = "NequIP"
LAMBDA = "lambda_interpolate"  # openmm-ml's name for the parameter of mixed systems


@dataclass(frozen=True)
class ForceSettings:
    """Settings of a force.

    Parameters
    ----------
    kind
        ``'torch'``, ``'python-torch'`` or ``'python'``.
    types
        Type index of each of the potential's atoms.
    atoms
        Index in the System of each of them; `None` if they are all of it.
    periodic
        Whether the System repeats.
    energy_offset
        eV, subtracted from the total energy.
    interpolate
        Whether the global parameter `LAMBDA` scales energy and forces.
    device
        Where torch computes; `None` chooses.
    engine
        ``'auto'``, ``'fused'`` or ``'reference'``.
    """

    kind: str
    types: list[int]
    atoms: list[int] | None
    periodic: bool
    energy_offset: float = 0.0
    interpolate: bool = False
    device: str | None = None
    engine: str = "auto"

    def to_json(self) -> str:
        """Return the settings as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "ForceSettings":
        """Read what `to_json` wrote."""
        return cls(**json.loads(text))

    @torch.inference_mode(False)  # whoever builds a System under it may run it elsewhere
    def module(
        self, model_file: bytes, whole_system: bool, device: str | torch.device
    ) -> OpenMMModule:
        """Build the module that the force evaluates, its weights without gradients.

        Parameters
        ----------
        model_file
            Content of a model file.
        whole_system
            Whether it is given the positions of all particles, or of the potential's atoms only.
        device
            Where it is to compute.

        Raises
        ------
        InputError
            The engine does not work there.
        """
        potential = from_bytes(model_file)
        atoms = self.atoms if whole_system else None
        module: OpenMMModule
        if choose_engine(self.engine, device) == "fused":
            from .fused import FusedModule

            module = FusedModule(
                potential, self.types, atoms, self.periodic, self.energy_offset, device
            )
        else:
            module = OpenMMModule(
                potential, self.types, atoms, self.periodic, self.energy_offset
            ).to(device)
        return module.eval().requires_grad_(False)


def to_bytes(potential: Potential) -> bytes:
    """Return the content of the model file of `potential`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        potential.save(path)
        return path.read_bytes()


def from_bytes(model_file: bytes) -> Potential:
    """Load a potential from the content of a model file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        path.write_bytes(model_file)
        return load_file(path)
