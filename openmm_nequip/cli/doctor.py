"""``openmm-nequip doctor``: what works on this machine, and what to install where it does not."""

import importlib.util
from importlib import metadata
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from . import app

if TYPE_CHECKING:
    import ase

    from ..potential import Potential

_NEEDED = (
    "openmm", "openmmml", "torch", "e3nn", "numba", "vesin", "vesin-torch", "ase", "mdtraj",
    "numpy",
)  # fmt: skip
_OPTIONAL = ("openmmtorch", "lightning", "tensorboard", "h5py", "nequip", "torchani")


@app.command()
def doctor() -> None:
    """Check the installation: versions, GPU, platforms, forces, and a self-test of 21 atoms.

    Exits with 1 if no OpenMM force can run a potential here.

    Example: [bold]openmm-nequip doctor[/]
    """
    console = Console(highlight=False)
    advice: list[str] = []
    _versions(console)
    _gpu(console, advice)
    _engines(console, advice)
    _registration(console, advice)
    works = _self_test(console, advice, _forces(console, advice))
    console.print("\n[bold]What to do[/]")
    for line in advice or ["nothing: all is well"]:
        console.print(f"  {line}", markup=False, soft_wrap=True)
    if not works:
        raise typer.Exit(1)


def _table(title: str, *columns: str) -> Table:
    return Table(*columns, title=title, title_justify="left", title_style="bold")


def _versions(console: Console) -> None:
    import platform

    table = _table("Versions", "package", "version")
    table.add_row("Python", platform.python_version())
    for name in ("openmm-nequip", *_NEEDED, *_OPTIONAL):
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            # conda packages of OpenMM and its plugins come without metadata
            present = importlib.util.find_spec(name.replace("-", "_")) is not None
            version = "installed" if present else "-"
        table.add_row(name, version)
    console.print(table)


def _gpu(console: Console, advice: list[str]) -> None:
    import shutil

    import openmm
    import torch

    from ..md.probe import probe

    table = _table("Hardware", "what", "found")
    gpus = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    table.add_row("GPUs that torch can use", ", ".join(gpus) or "none")
    table.add_row("torch is built for", f"CUDA {torch.version.cuda}" if torch.version.cuda else
                  f"ROCm {torch.version.hip}" if torch.version.hip else "CPU only")  # fmt: skip
    usable = probe("python", fresh=True)
    for k in range(openmm.Platform.getNumPlatforms()):
        name = openmm.Platform.getPlatform(k).getName()
        state = "works" if name in usable else "installed, but finds no hardware"
        table.add_row(f"OpenMM platform {name}", state)
    console.print(table)
    has_gpu = bool(gpus) or shutil.which("nvidia-smi") is not None
    if has_gpu and not gpus:
        advice.append("nvidia-smi is here but torch sees no GPU: install a CUDA build of torch")
    if has_gpu and "CUDA" not in usable:
        advice.append("OpenMM has no CUDA platform: pip install 'openmm-nequip[cuda12]'")


def _engines(console: Console, advice: list[str]) -> None:
    import torch

    from ..kernels.engine import describe_engine, why_not_fused

    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        console.print(f"engine='auto' on {device} is {escape(describe_engine(device))}")
        if problem := why_not_fused(device):
            advice.append(f"for the fast engine on {device}: {problem}")


def _registration(console: Console, advice: list[str]) -> None:
    from openmmml import MLPotential

    from ..plugin import NequIPFactory

    factory = type(MLPotential._implFactories.get("nequip"))
    ours = factory is NequIPFactory
    console.print(
        f"MLPotential('nequip') is {'ours' if ours else f'{factory.__module__}.{factory.__name__}'}"
    )
    if not ours:
        advice.append("another package has taken the name: use MLPotential('openmm-nequip')")


def _forces(console: Console, advice: list[str]) -> list[str]:
    """Show which forces work on which platform; return the kinds that work at all."""
    from ..md.probe import KINDS, first_that_works, probe

    table = _table("Forces", "force", "platform", "state")
    works = []
    for kind in KINDS:
        with console.status(f"trying force='{kind}'"):
            problems = probe(kind, fresh=True)
        for platform, problem in problems.items():
            table.add_row(f"force='{kind}'", platform, escape(problem) or "works")
        if not problems["Reference"]:
            works.append(kind)
        if kind == "torch" and (problems["Reference"] or problems.get("CUDA")):
            advice.append(
                "for the fastest force: pip install 'openmm-nequip[torch-force]', and on an NVIDIA "
                "GPU 'openmmtorch[cuda12]' too"
            )
    console.print(table)
    if works:
        console.print(f"force='auto' takes '{first_that_works(fresh=True)}'")
    else:
        advice.append("no force works: pip install 'openmm>=8.5' gives PythonForce")
    return works


def _self_test(console: Console, advice: list[str], kinds: list[str]) -> bool:
    """Compare OpenMM with a direct evaluation; return whether some force is right everywhere."""
    import torch

    from ..architectures.nequip import NequIPConfig
    from ..md.probe import probe
    from ..potential import Potential

    torch.set_num_threads(1)  # plenty for 21 atoms, and quick on a busy machine too
    molecule = hexanol()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = {"type_names": ["H", "C", "O"], "num_features": 8, "avg_num_neighbors": 15.0}
        potential = Potential(NequIPConfig.model_validate(config)).eval()
    table = _table(f"Self-test, {len(molecule)} atoms", "force", "platform", "error", "state")
    right = []
    for kind in kinds:
        platforms = [name for name, problem in probe(kind, fresh=True).items() if not problem]
        errors = {name: _error(potential, molecule, kind, name) for name in platforms}
        for platform, error in errors.items():
            good = error < 1e-4
            table.add_row(f"force='{kind}'", platform, f"{error:.0e}", "ok" if good else "WRONG")
            if not good:
                advice.append(f"do not use force='{kind}' on {platform}: its numbers are wrong")
        right.append(max(errors.values()) < 1e-4)
    console.print(table)
    return any(right)


def _error(potential: "Potential", molecule: "ase.Atoms", kind: str, platform: str) -> float:
    """Return the largest error of energy and forces, relative to the largest force."""
    import openmm
    from openmm.app import Element, Topology

    from ..data.frame import Frame
    from ..md.force import add_force
    from ..md.options import ForceOptions
    from ..units import KJ_PER_MOL, KJ_PER_MOL_NM, NM

    topology = Topology()
    residue = topology.addResidue("HEX", topology.addChain())
    system = openmm.System()
    for symbol, mass in zip(molecule.get_chemical_symbols(), molecule.get_masses(), strict=True):
        topology.addAtom(symbol, Element.getBySymbol(symbol), residue)
        system.addParticle(mass)
    types = potential.type_indices(molecule.numbers).tolist()
    add_force(potential, topology, system, None, types, 0, ForceOptions(force=kind))
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName(platform)
    )
    context.setPositions(molecule.positions * NM)
    state = context.getState(energy=True, forces=True)
    expected = potential(potential.to_graph(Frame(molecule.numbers, molecule.positions)))
    energy = float(expected.energy) * KJ_PER_MOL
    forces = expected.forces.numpy() * KJ_PER_MOL_NM
    scale = float(abs(forces).max())
    return max(
        abs(state.getPotentialEnergy()._value - energy) / scale,
        float(abs(state.getForces(asNumpy=True)._value - forces).max()) / scale,
    )


def hexanol() -> "ase.Atoms":
    """Build 1-hexanol in its zigzag conformation: 21 atoms, H, C and O."""
    import ase
    import numpy as np

    symbols, positions = ["C"] * 6 + ["O"], []
    for k in range(7):
        positions.append([1.26 * k, 0.435 * (-1) ** k, 0.0])
    backbone = np.array(positions)
    step = np.array([1.26, 0.87, 0.0]) / np.hypot(1.26, 0.87)
    hydrogens = [backbone[0] - 1.09 * step]
    for k in range(6):
        hydrogens += [backbone[k] + [0.0, 0.63 * (-1) ** k, z] for z in (0.89, -0.89)]
    hydrogens.append(backbone[6] + 0.96 * step * [1, -1, 1])
    return ase.Atoms(symbols + ["H"] * 14, np.vstack([backbone, hydrogens]))
