"""Finds out which of OpenMM's forces can carry a potential here, without risking the process.

openmm-torch is compiled against one version of torch and one of OpenMM; with others it fails to
load, or crashes when a Context is created. So it is tried in a process of its own, once: what
works is remembered in the user's cache folder for as long as nothing of it is reinstalled.
"""

import contextlib
import functools
import hashlib
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import openmm

from ..errors import InputError
from ..modelfile import write_atomically

#: Fastest first.
KINDS = ("torch", "python-torch", "python")
_CLASSES = {"torch": "TorchForce", "python-torch": "PythonTorchForce", "python": "PythonForce"}
_HELP = "pip install 'openmm-nequip[torch-force]' installs versions that fit each other"
#: openmm-torch queues the positions for this kind on a stream that PyTorch does not wait for.
_TOO_EARLY = "PythonTorchForce is called before the positions have arrived"
_PROBE = "2"  # what was found out by another probe is not read
_TIMEOUT = 300  # seconds; importing torch from a cold disk is slow


def first_that_works(fresh: bool = False) -> str:
    """Return the fastest kind of force that works on the fastest platform of this machine.

    Parameters
    ----------
    fresh
        See `probe`.

    Raises
    ------
    InputError
        None does.
    """
    for kind in KINDS:
        problems = probe(kind, fresh)
        fastest = next(iter(problems))
        if not problems[fastest]:
            return kind
    raise InputError(
        "no OpenMM force can carry the potential here; `openmm-nequip doctor` says what to install"
    )


def why_not(kind: str) -> str:
    """Return why a kind of force does not work here at all, or an empty string if it does."""
    return probe(kind)["Reference"]


def gives_wrong_forces_on(kind: str) -> list[str]:
    """Return the platforms on which a kind of force works, but cannot be relied upon."""
    return [platform for platform, problem in probe(kind).items() if problem == _TOO_EARLY]


def probe(kind: str, fresh: bool = False) -> dict[str, str]:
    """Try a kind of force on every platform that works.

    Parameters
    ----------
    kind
        One of `KINDS`.
    fresh
        Do not ask the cache on disk.

    Returns
    -------
    dict
        Platform, the fastest first and ``'Reference'`` always among them: what is wrong, or an
        empty string.
    """
    if kind == "python" and not fresh:
        if hasattr(openmm, "PythonForce"):
            return {"Reference": ""}
        version = openmm.version.short_version
        return {"Reference": f"OpenMM {version} has no PythonForce: update to 8.5 or newer"}
    if kind != "python" and importlib.util.find_spec("openmmtorch") is None:
        return {"Reference": f"openmm-torch is not installed; {_HELP}"}
    cache, key = _cache_file(), _fingerprint(kind)
    known = _read(cache)
    if not fresh and key in known:
        return known[key]
    problems = _probe_elsewhere(kind)
    if not problems["Reference"]:
        recent = dict([*known.items()][-20:])
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time only
            write_atomically(cache, json.dumps({**recent, key: problems}).encode())
    return problems


@functools.cache
def import_openmmtorch() -> ModuleType:
    """Import openmm-torch so that it works whatever was imported before.

    Its libraries need those of torch. If OpenMM was imported before torch it has failed to load
    them, so that is done again.
    """
    import torch  # noqa: F401

    with contextlib.redirect_stderr(io.StringIO()):  # 1.5 prints a deprecation of its own
        import openmmtorch
    failures = "\n".join(openmm.Platform.getPluginLoadFailures())
    for library in re.findall(r"Error loading library (.*OpenMMTorch.*?): ", failures):
        with contextlib.suppress(openmm.OpenMMException):  # of a platform that is not there
            openmm.Platform.loadPluginLibrary(library)
    return openmmtorch


@functools.cache
def _probe_elsewhere(kind: str) -> dict[str, str]:
    """Run `_probe_here` in a subprocess."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__, kind],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},  # quick on a busy machine too
        )
    except subprocess.TimeoutExpired:
        return {"Reference": f"trying {_CLASSES[kind]} took more than {_TIMEOUT} s"}
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    if done.returncode < 0:
        problem = f"{_CLASSES[kind]} crashes the process (signal {-done.returncode})"
    else:
        problem = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return {"Reference": f"{problem}; {_HELP}" if kind == "torch" else problem}


def _probe_here(kind: str) -> dict[str, str]:
    """Evaluate a tiny potential through the force class on every platform; may crash."""
    make_force = _force_maker(kind)
    platforms = [openmm.Platform.getPlatform(k) for k in range(openmm.Platform.getNumPlatforms())]
    problems = {}
    for platform in sorted(platforms, key=lambda platform: -platform.getSpeed()):
        try:
            _energy_and_force(platform, None)
        except openmm.OpenMMException:
            continue  # no such hardware
        try:
            result = _energy_and_force(platform, make_force())
            right = abs(result[0] - 0.5) < 1e-6 and abs(result[1] - 2.0) < 1e-6
            problems[platform.getName()] = "" if right else f"gives wrong numbers: {result}"
            if right and kind == "python-torch" and platform.getName() in ("CUDA", "HIP"):
                problems[platform.getName()] = _TOO_EARLY
        except openmm.OpenMMException as error:
            problems[platform.getName()] = str(error).splitlines()[0]
    return problems


def _energy_and_force(platform: openmm.Platform, force: openmm.Force | None) -> tuple[float, float]:
    system = openmm.System()
    for _ in range(2):
        system.addParticle(1.0)
    if force is not None:
        system.addForce(force)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions([openmm.Vec3(0, 0, 0), openmm.Vec3(0.5, 0, 0)])
    state = context.getState(energy=True, forces=True)
    return state.getPotentialEnergy()._value, state.getForces()[0].x


def _force_maker(kind: str) -> Callable[[], openmm.Force]:
    """Return a function that makes a force with what ours need: vesin, autograd, TorchScript."""
    import torch
    from vesin_torch import NeighborList

    class Springs(torch.nn.Module):
        def forward(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            points = positions.detach().to(torch.float64)
            box = torch.zeros([3, 3], dtype=torch.float64, device=points.device)
            pairs = NeighborList(1.0, True).compute(points, box, False, "ij")
            i, j = pairs[0].to(torch.int64), pairs[1].to(torch.int64)
            vectors = (points[j] - points[i]).requires_grad_()
            energy = vectors.square().sum()
            gradient = torch.autograd.grad([energy], [vectors])[0]
            assert gradient is not None
            forces = torch.zeros_like(points).index_add(0, i, gradient).index_add(0, j, -gradient)
            return energy.detach(), forces.to(positions.dtype)

    def compute(state: openmm.State, positions: Any = None) -> tuple[Any, Any]:
        if positions is not None:
            return Springs()(positions)
        energy, forces = Springs()(torch.from_numpy(state.getPositions(asNumpy=True)._value))
        return energy.item(), forces.numpy()

    if kind == "python":
        return lambda: openmm.PythonForce(compute)
    openmmtorch = import_openmmtorch()
    if not hasattr(openmmtorch, _CLASSES[kind]):
        raise ImportError(f"the installed openmm-torch has no {_CLASSES[kind]}")
    if kind == "python-torch":
        return lambda: openmmtorch.PythonTorchForce(compute)

    def make_torch_force() -> openmm.Force:
        force = openmmtorch.TorchForce(torch.jit.script(Springs()))
        force.setOutputsForces(True)
        return force

    return make_torch_force


def _cache_file() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "openmm-nequip" / "forces.json"


def _read(cache: Path) -> dict[str, dict[str, str]]:
    try:
        known = json.loads(cache.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _fingerprint(kind: str) -> str:
    """Name this environment: interpreter, packages, and when each was installed."""
    parts = [_PROBE, kind, sys.version, sys.prefix, openmm.version.full_version]
    parts.append(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    for name in ("torch", "openmmtorch", "vesin_torch"):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue
        parts += [name, spec.origin, str(Path(spec.origin).stat().st_mtime_ns)]
        with contextlib.suppress(metadata.PackageNotFoundError):  # conda has no metadata for some
            parts.append(metadata.version(name))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


if __name__ == "__main__":
    print(json.dumps(_probe_here(sys.argv[1])))
