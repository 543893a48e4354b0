"""From a configuration and a structure to an OpenMM Simulation that is ready to go."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import torch
from openmm import app, unit

from ..errors import InputError, did_you_mean
from ..kernels.engine import set_num_threads
from .bonded import atoms_without_bonded_terms
from .checks import long_cutoffs
from .config import SimulationConfig
from .domain import atom_name, domain_and_cutoff
from .region import select
from .settings import FORCE_NAME, LAMBDA
from .structure import Structure

_SMALL = 64  # atoms; smaller systems are evaluated by one thread
_PIECE = 50  # iterations of the minimiser between two looks at who wants to stop
_SETTLED = 0.02  # kJ/mol per atom in one such piece, far below kT, where constraints hide forces


def build_system(
    config: SimulationConfig, structure: Structure
) -> tuple[openmm.System, app.Topology]:
    """Create the System of a run through ``MLPotential('nequip', ...)``.

    Returns
    -------
    system
        Of a mixed run: the potential's force has a group of its own.
    topology
        Its atoms; those of the structure and, behind them, the link atoms of a mixed run.

    Raises
    ------
    InputError
        The potential is not found or does not suit the structure, or its charge; the ML region
        cannot be cut out.
    """
    from openmmml import MLPotential

    given: dict[str, Any] = {}
    if config.potential is not None:
        is_file = Path(config.potential).is_file()
        given["modelPath" if is_file else "model"] = config.potential
    potential = MLPotential("nequip", **given)
    options: dict[str, Any] = {
        key: getattr(config, key) for key in ("precision", "device", "force", "engine")
    }
    if structure.mm_system is None:
        if structure.charge is not None:  # what the topology itself tells is seen by createSystem
            numbers = [atom.element.atomic_number for atom in structure.topology.atoms()]
            domain_and_cutoff(config.potential)[0].check(numbers, structure.charge)
        return potential.createSystem(structure.topology, **options), structure.topology
    region = ml_region(config, structure)
    _check_bonded_terms(structure.topology, structure.mm_system, region)
    taken = {force.getForceGroup() for force in structure.mm_system.getForces()}
    try:
        info = potential.createMixedSystem(
            structure.topology,
            structure.mm_system,
            region,
            forceGroup=max(set(range(32)) - taken),
            interpolate=config.lambda_interpolate is not None,
            returnInfo=True,
            **options,
        )
    except (ValueError, NotImplementedError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"ml_region '{config.ml_region}' cannot be embedded: {error}") from None
    return info["system"], info["topology"]


def _check_bonded_terms(
    topology: app.Topology, mm_system: openmm.System, region: list[int] | None
) -> None:
    """Check that the potential holds together what the force field does not.

    Raises
    ------
    InputError
        It does not describe all of a molecule without bonded terms.
    """
    loose = atoms_without_bonded_terms(topology, mm_system)
    if not loose or region is None:
        return
    if outside := set(loose) - set(region):
        atom = list(topology.atoms())[min(outside)]
        raise InputError(
            f"the force field has no bonded terms for {len(outside)} atoms outside the ML region, "
            f"the first is {atom_name(atom)}: choose an ml_region with the whole molecule"
        )


def ml_region(config: SimulationConfig, structure: Structure) -> list[int] | None:
    """Return the atoms that the potential describes; `None`: all of them."""
    return None if config.ml_region is None else select(structure.topology, config.ml_region)


def ml_group(system: openmm.System) -> int:
    """Return the force group of the potential."""
    return next(f.getForceGroup() for f in system.getForces() if f.getName() == FORCE_NAME)


def build_simulation(config: SimulationConfig, structure: Structure) -> app.Simulation:
    """Set up System, integrator, barostat and platform, and place the atoms.

    Raises
    ------
    InputError
        NPT without a box, a coordinate that is not finite, an unknown platform, or what
        `build_system` raises.
    """
    if config.ensemble == "npt" and structure.box is None:
        raise InputError(
            "ensemble 'npt' needs a periodic structure, and this one has no box: use 'nvt'"
        )
    if not np.isfinite(structure.positions).all():
        atom = int(np.argmin(np.isfinite(structure.positions).all(axis=1)))
        raise InputError(f"position of atom {atom} is not finite: {structure.positions[atom]}")
    platform = choose_platform(config)
    region = ml_region(config, structure)
    choose_threads(config.num_threads, len(structure.positions if region is None else region))
    system, topology = build_system(config, structure)
    if structure.box is not None and (problems := long_cutoffs(system, structure.box)):
        raise InputError(problems[0])
    if config.ensemble == "npt":
        barostat = openmm.MonteCarloBarostat(
            config.pressure * unit.bar, config.temperature * unit.kelvin, config.barostat_interval
        )
        barostat.setRandomNumberSeed(config.seed)
        system.addForce(barostat)
    integrator = build_integrator(config)
    try:
        with on_the_gpu(config):
            simulation = app.Simulation(topology, system, integrator, platform)
    except openmm.OpenMMException as error:
        raise InputError(f"OpenMM cannot set up the simulation: {error}") from None
    link_atoms = np.zeros((system.getNumParticles() - len(structure.positions), 3))
    simulation.context.setPositions(np.concatenate([structure.positions, link_atoms]))
    simulation.context.computeVirtualSites()
    if config.lambda_interpolate is not None:
        simulation.context.setParameter(LAMBDA, config.lambda_interpolate)
    return simulation


def build_integrator(config: SimulationConfig) -> openmm.Integrator:
    """Create the integrator of the ensemble.

    A run at constant energy that is heated or equilibrated has two: the thermostat before, and
    Verlet's from step 0 on.
    """
    timestep = config.timestep * unit.femtosecond
    verlet = openmm.VerletIntegrator(timestep)
    if config.ensemble == "nve" and not (config.heating_steps or config.equilibration_steps):
        return verlet
    thermostat = openmm.LangevinMiddleIntegrator(
        config.temperature * unit.kelvin, config.friction / unit.picosecond, timestep
    )
    thermostat.setRandomNumberSeed(config.seed)
    if config.ensemble != "nve":
        return thermostat
    both = openmm.CompoundIntegrator()
    both.addIntegrator(thermostat)
    both.addIntegrator(verlet)
    return both


def choose_threads(wanted: int | None, num_atoms: int) -> None:
    """Set the number of CPU threads of the network.

    Parameters
    ----------
    wanted
        By the user; `None`: OMP_NUM_THREADS, else one for a small system and all for others.
    num_atoms
        Of the system.
    """
    if wanted is None:
        alone = num_atoms < _SMALL and "OMP_NUM_THREADS" not in os.environ
        wanted = 1 if alone else torch.get_num_threads()
    set_num_threads(wanted)


def choose_platform(config: SimulationConfig) -> openmm.Platform | None:
    """Return the platform; `None` leaves the choice to OpenMM.

    Raises
    ------
    InputError
        This installation has no such platform.
    """
    if config.platform is None:
        return None
    by_lower = {platform.getName().lower(): platform for platform in _platforms()}
    platform = by_lower.get(config.platform.lower())
    if platform is None:
        names = [platform.getName() for platform in _platforms()]
        raise InputError(
            f"no OpenMM platform is called '{config.platform}'"
            f"{did_you_mean(config.platform, names)}; here there are: {', '.join(names)}"
        )
    return platform


@contextmanager
def on_the_gpu(config: SimulationConfig) -> Iterator[None]:
    """Let Contexts that are made meanwhile, on a GPU, have the precision and device of the run.

    As defaults of the platforms, because OpenMM may be the one who chooses the platform.
    """
    wanted = {"Precision": "double" if config.precision == "double" else "mixed"}
    if config.device is not None and ":" in config.device:
        wanted["DeviceIndex"] = config.device.rpartition(":")[2]
    platforms = [p for p in _platforms() if set(wanted) <= set(p.getPropertyNames())]
    before = [{name: p.getPropertyDefaultValue(name) for name in wanted} for p in platforms]
    try:
        for platform in platforms:
            for name, value in wanted.items():
                platform.setPropertyDefaultValue(name, value)
        yield
    finally:
        for platform, values in zip(platforms, before, strict=True):
            for name, value in values.items():
                platform.setPropertyDefaultValue(name, value)


def _platforms() -> list[openmm.Platform]:
    return [openmm.Platform.getPlatform(k) for k in range(openmm.Platform.getNumPlatforms())]


def minimise(
    simulation: app.Simulation, stop: Callable[[], bool] = lambda: False, tolerance: float = 10.0
) -> tuple[float, float]:
    """Go to the nearest minimum of the energy (L-BFGS).

    Parameters
    ----------
    simulation
        Its positions are changed.
    stop
        Asked after every few iterations whether to leave off.
    tolerance
        Root mean square force to reach, kJ/mol/nm.

    Returns
    -------
    tuple of float
        Energy before and after, kJ/mol.

    Raises
    ------
    InputError
        The energy of the structure is not finite.
    """

    before, _ = _energy_and_force(simulation.context)
    if not np.isfinite(before):
        raise InputError("the structure's energy is not finite: check it for atoms that overlap")
    energy = before
    constrained = simulation.system.getNumConstraints() > 0
    enough = _SETTLED * simulation.system.getNumParticles() if constrained else 0.0
    # In pieces, because a MinimizationReporter that could stop it crashes the process together with
    # TorchForce (openmm 8.6, openmmtorch 1.5): the GIL is held when autograd is called.
    while not stop():
        simulation.minimizeEnergy(tolerance=tolerance, maxIterations=_PIECE)
        last, (energy, force) = energy, _energy_and_force(simulation.context)
        if force <= tolerance or not energy < last - enough:
            break
    return before, energy


def _energy_and_force(context: openmm.Context) -> tuple[float, float]:
    """Return the potential energy (kJ/mol) and the root mean square force (kJ/mol/nm)."""
    state = context.getState(energy=True, forces=True)
    forces = state.getForces(asNumpy=True)._value
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    return energy, float(np.sqrt((forces**2).mean()))


def set_velocities(context: openmm.Context, temperature: float, seed: int) -> None:
    """Draw velocities at `temperature` (K), without motion of the centre of mass."""
    context.setVelocitiesToTemperature(temperature * unit.kelvin, seed)
    velocities = context.getState(velocities=True).getVelocities(asNumpy=True)._value
    masses = particle_masses(context.getSystem())
    drift = masses @ velocities / masses.sum()
    context.setVelocities(np.where(masses[:, None] > 0, velocities - drift, 0.0))


def particle_masses(system: openmm.System) -> np.ndarray:
    """Return the masses in atomic mass units, shape ``[N]``."""
    count = system.getNumParticles()
    return np.array([system.getParticleMass(i).value_in_unit(unit.dalton) for i in range(count)])


def degrees_of_freedom(system: openmm.System) -> int:
    """Count the degrees of freedom that carry kinetic energy."""
    removed = any(isinstance(force, openmm.CMMotionRemover) for force in system.getForces())
    moving = int((particle_masses(system) > 0).sum())
    return 3 * moving - system.getNumConstraints() - 3 * removed
