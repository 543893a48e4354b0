"""Finds out which of OpenMM's forces can carry a potential here, without risking the process.

openmm-torch is compiled against one version of torch and one of OpenMM; with others it fails to
load, or crashes when a Context is created. So it is tried in a process of its own, once: what
worked is remembered in the user's cache folder for as long as nothing of it is reinstalled.
"""

import contextlib
import functools
import hashlib
import importlib.util
import io
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

import openmm

from ..errors import InputError
from ..modelfile import write_atomically

#: Fastest first.
KINDS = ("torch", "python-torch", "python")
_CLASSES = {"torch": "TorchForce", "python-torch": "PythonTorchForce", "python": "PythonForce"}
_INSTALL = "pip install 'openmm-nequip[torch-force]' has versions that fit"
_TIMEOUT = 300  # seconds; importing torch from a cold disk is slow


def first_that_works() -> str:
    """Return the fastest kind of force that works here.

    Raises
    ------
    InputError
        None does.
    """
    for kind in KINDS:
        if not why_not(kind):
            return kind
    raise InputError(
        "no OpenMM force can carry the potential here: update OpenMM to 8.5 or newer; "
        "`openmm-nequip doctor` says more"
    )


@functools.cache
def why_not(kind: str) -> str:
    """Return why a kind of force does not work here, or an empty string if it does."""
    if kind == "python":
        if hasattr(openmm, "PythonForce"):
            return ""
        return f"OpenMM {openmm.version.short_version} has no PythonForce; 8.5 and newer have"
    if importlib.util.find_spec("openmmtorch") is None:
        return f"openmm-torch is not installed; {_INSTALL}"
    cache, key = _cache_file(), _fingerprint(kind)
    if key in _read(cache):
        return ""
    reason = _try_elsewhere(kind)
    if not reason:
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time only
            write_atomically(cache, json.dumps([*_read(cache)[-20:], key]).encode())
    return reason


def import_openmmtorch() -> ModuleType:
    """Import openmm-torch after torch, whose libraries it needs, without its greeting."""
    import torch  # noqa: F401

    with contextlib.redirect_stdout(io.StringIO()):  # 1.5 prints a deprecation of its own
        import openmmtorch
    return openmmtorch


def _try_elsewhere(kind: str) -> str:
    """Run `_try_here` in a subprocess and return what went wrong."""
    package_parent = Path(__file__).parents[2]
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__, kind],
            cwd=package_parent,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        return f"trying {_CLASSES[kind]} took more than {_TIMEOUT} s"
    if done.returncode == 0:
        return ""
    if done.returncode < 0:
        return f"{_CLASSES[kind]} crashes the process (signal {-done.returncode}); {_INSTALL}"
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return f"{lines[-1]}; {_INSTALL}"


def _try_here(kind: str) -> None:
    """Evaluate a tiny potential through the force class; may crash."""
    import torch
    from vesin_torch import NeighborList

    class Springs(torch.nn.Module):
        def forward(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            points = positions.detach().to(torch.float64)
            box = torch.zeros([3, 3], dtype=torch.float64, device=points.device)
            i, j = NeighborList(1.0, True).compute(points, box, False, "ij")
            vectors = (points[j] - points[i]).requires_grad_()
            energy = vectors.square().sum()
            gradient = torch.autograd.grad([energy], [vectors])[0]
            assert gradient is not None
            forces = torch.zeros_like(points).index_add(0, i, gradient).index_add(0, j, -gradient)
            return energy.detach(), forces.to(positions.dtype)

    openmmtorch = import_openmmtorch()
    if not hasattr(openmmtorch, _CLASSES[kind]):
        raise ImportError(f"this openmm-torch has no {_CLASSES[kind]}")
    if kind == "torch":
        force = openmmtorch.TorchForce(torch.jit.script(Springs()))
        force.setOutputsForces(True)
    else:
        force = openmmtorch.PythonTorchForce(lambda state, positions: Springs()(positions))
    system = openmm.System()
    for _ in range(2):
        system.addParticle(1.0)
    system.addForce(force)
    integrator = openmm.VerletIntegrator(0.001)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions([openmm.Vec3(0, 0, 0), openmm.Vec3(0.5, 0, 0)])
    state = context.getState(energy=True, forces=True)
    energy, force_x = state.getPotentialEnergy()._value, state.getForces()[0].x
    if abs(energy - 0.5) > 1e-6 or abs(force_x - 2.0) > 1e-6:
        raise RuntimeError(f"{_CLASSES[kind]} gave wrong numbers: {energy}, {force_x}")


def _cache_file() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "openmm-nequip" / "forces.json"


def _read(cache: Path) -> list[str]:
    try:
        keys = json.loads(cache.read_text())
    except (OSError, ValueError):
        return []
    return keys if isinstance(keys, list) else []


def _fingerprint(kind: str) -> str:
    """Name this environment: interpreter, packages, and when each was installed."""
    parts = [kind, sys.version, sys.prefix, openmm.version.full_version]
    for name in ("torch", "openmmtorch", "vesin_torch"):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue
        parts += [name, spec.origin, str(Path(spec.origin).stat().st_mtime_ns)]
        with contextlib.suppress(metadata.PackageNotFoundError):  # conda has no metadata for some
            parts.append(metadata.version(name))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


if __name__ == "__main__":
    _try_here(sys.argv[1])
