"""The potential in openmm-torch's `TorchForce`."""

from typing import Optional

import openmm
import torch
from torch import Tensor, nn

from ..kernels.engine import choose_engine
from .module import scaled
from .probe import import_openmmtorch
from .settings import LAMBDA, ForceSettings

_library = torch.library.Library("openmm_nequip", "FRAGMENT")
_library.define(
    "energy_and_forces(Tensor positions, Tensor? box, Tensor settings, Tensor model_file, "
    "Tensor(a!) state) -> (Tensor, Tensor)"
)


class Shell(nn.Module):
    """Calls the fused engine through an operator; scriptable by TorchScript.

    Its buffers define the engine. OpenMM copies the module for every Context, and the engine is
    kept with the Context's own copy of `state`.
    """

    settings: Tensor
    model_file: Tensor
    state: Tensor

    def __init__(self, periodic: bool):
        super().__init__()
        self.periodic = periodic
        self.register_buffer("state", torch.empty(0))

    def forward(
        self,
        positions: Tensor,
        first: Optional[Tensor] = None,  # noqa: UP045 - TorchScript reads these annotations
        second: Optional[Tensor] = None,  # noqa: UP045
    ) -> tuple[Tensor, Tensor]:
        """See `OpenMMModule.forward`."""
        box, scale = first, second
        if not self.periodic:
            box, scale = None, first
        energy, forces = torch.ops.openmm_nequip.energy_and_forces(
            positions.detach(), box, self.settings, self.model_file, self.state
        )
        return scaled(energy, forces, scale)


def _energy_and_forces(
    positions: Tensor, box: Tensor | None, settings: Tensor, model_file: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Evaluate by the engine that `state` carries, built at the first call."""
    if positions.is_cuda and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            "NequIP: the fused engine replays a CUDA graph of its own, with room for a growing "
            "number of neighbours: leave out TorchForce's property 'useCUDAGraphs'"
        )
    module = getattr(state, "engine", None)
    if module is None:
        recipe = ForceSettings.from_json(_as_bytes(settings).decode())
        device = recipe.device or positions.device
        module = recipe.module(_as_bytes(model_file), whole_system=True, device=device)
        state.engine = module  # type: ignore[attr-defined]
    return module(positions, box)


_library.impl("energy_and_forces", _energy_and_forces, "CompositeExplicitAutograd")


def build(settings: ForceSettings, model_file: bytes) -> openmm.Force:
    """Build a `TorchForce`; the scripted module carries what it was built from."""
    module: nn.Module
    if choose_engine(settings.engine, settings.device) == "fused":
        module = Shell(settings.periodic).eval()
    else:
        module = settings.module(model_file, whole_system=True, device=settings.device or "cpu")
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
    settings = ForceSettings.from_json(_as_bytes(module.settings).decode())
    return settings, _as_bytes(module.model_file)


def _as_tensor(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def _as_bytes(tensor: Tensor) -> bytes:
    return tensor.cpu().numpy().tobytes()
