"""The potential in openmm-torch's `TorchForce`: no Python while the simulation runs."""

import openmm
import torch

from .probe import import_openmmtorch
from .settings import LAMBDA, ForceSettings


def build(settings: ForceSettings, model_file: bytes) -> openmm.Force:
    """Build a `TorchForce`; the scripted module carries what it was built from."""
    module = settings.module(model_file, whole_system=True)
    if settings.device is not None:
        module.to(settings.device)
    module.register_buffer("settings", _as_tensor(settings.to_json().encode()))
    module.register_buffer("model_file", _as_tensor(model_file))
    # TorchForce freezes the module, which frees the methods that it inlines; an error from inside
    # one of them would then crash the process where torch looks up its origin. So they are inlined
    # here, and all is made constant but the tensors, which must still move to the GPU.
    tensors = [name for name, _ in (*module.named_parameters(), *module.named_buffers())]
    scripted = torch.jit.freeze(torch.jit.script(module), tensors, optimize_numerics=False)
    force = import_openmmtorch().TorchForce(scripted)
    force.setOutputsForces(True)
    if settings.interpolate:
        force.addGlobalParameter(LAMBDA, 1.0)
        force.addEnergyParameterDerivative(LAMBDA)
    return force


def read(module: torch.jit.ScriptModule) -> tuple[ForceSettings, bytes] | None:
    """Return what `build` was given, or `None` if it did not make this module."""
    if not (hasattr(module, "settings") and hasattr(module, "model_file")):
        return None
    settings, model_file = (
        tensor.numpy().tobytes() for tensor in (module.settings, module.model_file)
    )
    return ForceSettings.from_json(settings.decode()), model_file


def _as_tensor(content: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)
