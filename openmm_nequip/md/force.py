"""Adds a potential to an OpenMM System, through whichever force class works on this machine."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import openmm
import torch
from openmm import unit
from openmm.app import Topology

from ..data.graph import Graph
from ..errors import InputError
from ..kernels.padded import narrowest_box
from ..potential import Potential
from ..units import NM
from . import python_force, torch_force
from .module import box_widths
from .options import ForceOptions
from .probe import first_that_works, gives_wrong_forces_on, why_not
from .settings import FORCE_NAME, LAMBDA, ForceSettings, to_bytes


def add_force(
    potential: Potential,
    topology: Topology,
    system: openmm.System,
    atoms: Sequence[int] | None,
    types: Sequence[int],
    force_group: int,
    options: ForceOptions,
    interpolate: bool = False,
) -> None:
    """Add `potential` to `system`.

    Parameters
    ----------
    potential
        In evaluation mode; it is copied.
    topology, system
        A System is periodic if its forces are; one without forces, if the topology is.
    atoms
        Indices of the potential's atoms, in any order; `None` is all.
    types
        Type index of each of these atoms.
    force_group
        Group of the new force.
    options
        Keywords of the user.
    interpolate
        Scale energy and forces by the global parameter ``lambda_interpolate``. With `TorchForce`
        the System then reports the derivative of its energy with respect to it.

    Raises
    ------
    InputError
        The box is too small for the cutoff, or the force does not work here.
    """
    # Some embeddings collect the force in an empty System, to copy it into a CustomCVForce:
    # with openmm-torch 1.5 that would crash.
    collected = system.getNumParticles() == 0
    kind = options.force
    if kind == "auto":
        kind = "python" if collected else first_that_works()
    if collected and kind == "torch":
        raise InputError("this embedding copies the force, which TorchForce does not survive: "
                         "use force='python'")  # fmt: skip
    if system.getNumForces():
        periodic = system.usesPeriodicBoundaryConditions()
        box = system.getDefaultPeriodicBoxVectors()
    else:
        box = topology.getPeriodicBoxVectors()
        periodic = box is not None
    if periodic:
        _check_box(box, potential.r_max)
    if options.precision is not None:
        potential = potential.with_dtype("float64" if options.precision == "double" else "float32")
    offset = 0.0
    if options.returnEnergyType == "interaction_energy":
        offset = float(isolated_energies(potential)[list(types)].sum())
    settings = ForceSettings(
        kind, list(types), None if atoms is None else list(atoms), periodic, offset, interpolate,
        options.device, options.engine,
    )  # fmt: skip
    force = build_force(settings, to_bytes(potential))
    force.setForceGroup(force_group)
    if interpolate and kind == "torch":
        report_derivative(system)
    system.addForce(force)


def build_force(settings: ForceSettings, model_file: bytes) -> openmm.Force:
    """Build the force from what defines it completely.

    Parameters
    ----------
    settings
        Everything but the potential.
    model_file
        Content of the model file.

    Raises
    ------
    InputError
        This kind of force does not work here.
    """
    reason = why_not(settings.kind)
    if reason:
        raise InputError(f"force='{settings.kind}' does not work here: {reason}")
    if unreliable := gives_wrong_forces_on(settings.kind):
        warnings.warn(
            f"force='{settings.kind}' can give wrong forces on {', '.join(unreliable)}, where the "
            "positions may reach it too early: take force='auto', or another platform",
            stacklevel=2,
        )
    maker = torch_force if settings.kind == "torch" else python_force
    force = maker.build(settings, model_file)
    force.setName(FORCE_NAME)
    force.setUsesPeriodicBoundaryConditions(settings.periodic)
    return force


def isolated_energies(potential: Potential) -> torch.Tensor:
    """Return the energy of an isolated atom of each type, eV, shape ``[T]``."""
    n, device = len(potential.type_names), potential.device
    positions = torch.zeros((n, 3), dtype=torch.float64, device=device)
    atoms = Graph(
        positions=positions,
        types=torch.arange(n, device=device),
        edge_index=torch.zeros((2, 0), dtype=torch.int64, device=device),
        shifts=positions[:0],
        cell=positions.new_zeros((1, 3, 3)),
        batch=torch.zeros(n, dtype=torch.int64, device=device),
    )
    return potential(atoms, forces=False).atomic_energies.detach().cpu()


def _check_box(box: Any, r_max: float) -> None:
    rows = np.array([row.value_in_unit(unit.nanometer) for row in box])
    width = float(box_widths(torch.from_numpy(rows)).min())
    if width < narrowest_box(r_max) * NM:
        raise InputError(
            f"the periodic box is {width:.3f} nm wide at its narrowest, less than twice the "
            f"potential's cutoff of {r_max * NM:g} nm: use a larger system, or a topology "
            "without box vectors if it is not periodic"
        )


def report_derivative(system: openmm.System) -> None:
    """Let the interpolated force-field terms report their part of dE/dλ."""
    for force in system.getForces():
        if not isinstance(force, openmm.CustomCVForce):
            continue
        names = [force.getGlobalParameterName(k) for k in range(force.getNumGlobalParameters())]
        if LAMBDA in names and force.getNumEnergyParameterDerivatives() == 0:
            force.addEnergyParameterDerivative(LAMBDA)
