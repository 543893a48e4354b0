"""The potential as a Python function, in OpenMM's `PythonForce` or openmm-torch's own kind."""

from typing import Any

import openmm
import torch
from torch import Tensor

from .probe import import_openmmtorch
from .settings import LAMBDA, ForceSettings


class Computation:
    """Called by OpenMM for energy and forces; pickles as settings and model file.

    Parameters
    ----------
    settings, model_file
        What defines the force.
    """

    def __init__(self, settings: ForceSettings, model_file: bytes):
        self.settings = settings
        self.model_file = model_file
        self.subset = settings.atoms is not None and hasattr(openmm.PythonForce, "setParticles")
        device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.module = settings.module(model_file, whole_system=not self.subset, device=device)

    def __call__(self, state: openmm.State, positions: Tensor | None = None) -> tuple[Any, Any]:
        """Return energy, kJ/mol, and forces, kJ/mol/nm.

        Parameters
        ----------
        state
            Box vectors and global parameters.
        positions
            nm, handed over by `PythonTorchForce` only, which takes tensors back; `PythonForce`
            has them in `state` and takes a number and an array.
        """
        as_tensors = positions is not None
        if positions is None:
            positions = torch.from_numpy(state.getPositions(asNumpy=True)._value)
        arguments = []
        if self.settings.periodic:
            arguments.append(torch.from_numpy(state.getPeriodicBoxVectors(asNumpy=True)._value))
        if self.settings.interpolate:
            arguments.append(torch.tensor(state.getParameters()[LAMBDA], dtype=torch.float64))
        if self.settings.interpolate and arguments[-1] == 0:  # the network has nothing to say
            energy, forces = torch.zeros([]), torch.zeros_like(positions)
        else:
            energy, forces = self.module(positions, *arguments)
        if forces.is_cuda:  # OpenMM copies them on a stream of its own
            torch.cuda.synchronize(forces.device)
        return (energy, forces) if as_tensors else (energy.item(), forces.numpy())

    def __getstate__(self) -> tuple[str, bytes]:
        return self.settings.to_json(), self.model_file

    def __setstate__(self, state: tuple[str, bytes]) -> None:
        Computation.__init__(self, ForceSettings.from_json(state[0]), state[1])


def build(settings: ForceSettings, model_file: bytes) -> openmm.Force:
    """Build a `PythonForce` or `PythonTorchForce`."""
    if settings.kind == "python":
        force_class = openmm.PythonForce
    else:
        force_class = import_openmmtorch().PythonTorchForce
    parameters = {LAMBDA: 1.0} if settings.interpolate else {}
    computation = Computation(settings, model_file)
    force = force_class(computation, parameters)
    if computation.subset:
        force.setParticles(settings.atoms)
    return force
