"""The potential in OpenMM on a GPU: right, in every precision and with every force; and its speed.

The potential is the bundled ``organic-small``, so that what moves are molecules.
"""

import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import torch
from correct import within_tolerance
from openmm import app, unit
from openmmml import MLPotential
from report import Skipped

from openmm_nequip.benchmarking.md import Trajectory
from openmm_nequip.benchmarking.models import make_model
from openmm_nequip.benchmarking.samples import Sample, aspirin, water
from openmm_nequip.md.probe import probe
from openmm_nequip.units import NM

_PEPTIDE = Path(__file__).parents[2] / "simulations/alanine_dipeptide_in_water"
_GROUP = 7  # of the potential, so that its forces can be asked for
_CUTOFF = 0.8  # nm, of the force field
_ENERGY_TOLERANCE = 1e-3  # kJ/mol per atom
_HOTTEST = 600.0  # K; a run at 300 K that is right stays well below


def check_force(force: str, platform: str) -> dict:
    """Raise `Skipped` where a kind of force does not work at all."""
    problems = probe(force, fresh=True)
    if reason := problems["Reference"] or problems.get(platform, ""):
        raise Skipped(reason[:300])
    return {"platforms": [name for name, problem in problems.items() if not problem]}


def sample_of(name: str) -> Sample:
    """Return aspirin, or a periodic box of 64 waters."""
    return aspirin() if name == "aspirin" else water(192, width=10.0)


def pure_system(sample: Sample, **keywords: Any) -> openmm.System:
    """Return a System that is all the potential's."""
    potential = MLPotential("openmm-nequip")
    return potential.createSystem(sample.topology(), removeCMMotion=False, **keywords)


@cache
def peptide_in_water(waters: int) -> tuple[app.Topology, np.ndarray, openmm.System]:
    """Return alanine dipeptide in so many waters: atoms, positions in nm, force field."""
    pdb = app.PDBFile(str(_PEPTIDE / "alanine-dipeptide.pdb"))
    force_field = app.ForceField("amber14-all.xml", "amber14/tip3p.xml")
    modeller = app.Modeller(pdb.topology, pdb.positions)
    modeller.addSolvent(force_field, numAdded=waters)
    system = force_field.createSystem(
        modeller.topology,
        nonbondedMethod=app.PME,
        nonbondedCutoff=_CUTOFF * unit.nanometer,
        constraints=app.HBonds,
    )
    positions = np.array(modeller.positions.value_in_unit(unit.nanometer))
    return modeller.topology, positions, system


def mixed_system(waters: int, **keywords: Any) -> tuple[openmm.System, np.ndarray]:
    """Return the peptide by the potential in water by the force field, and positions in nm."""
    topology, positions, system = peptide_in_water(waters)
    peptide = [atom.index for atom in topology.atoms() if atom.residue.name != "HOH"]
    mixed = MLPotential("openmm-nequip").createMixedSystem(
        topology, system, peptide, forceGroup=_GROUP, **keywords
    )
    return mixed, positions


def make_context(
    system: openmm.System,
    positions: np.ndarray,
    platform: str,
    precision: str = "",
    integrator: openmm.Integrator | None = None,
) -> openmm.Context:
    """Return a Context, with the precision of platforms that have a choice; positions in nm."""
    chosen = openmm.Platform.getPlatformByName(platform)
    properties = {"Precision": precision} if "Precision" in chosen.getPropertyNames() else {}
    integrator = integrator or openmm.VerletIntegrator(0.0005)
    context = openmm.Context(system, integrator, chosen, properties)
    context.setPositions(positions)
    return context


def thermostat(timestep: float = 0.5) -> openmm.Integrator:
    """Return Langevin dynamics at 300 K; `timestep` in fs."""
    integrator = openmm.LangevinMiddleIntegrator(
        300 * unit.kelvin, 1 / unit.picosecond, timestep * unit.femtosecond
    )
    integrator.setRandomNumberSeed(1)
    return integrator


def evaluate(context: openmm.Context, groups: int = -1) -> tuple[float, torch.Tensor]:
    """Return energy, kJ/mol, and forces, kJ/mol/nm."""
    state = context.getState(energy=True, forces=True, groups=groups)
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    return energy, torch.from_numpy(state.getForces(asNumpy=True)._value)


def compare(found: tuple[float, torch.Tensor], expected: tuple[float, torch.Tensor]) -> dict:
    """Return differences of energy and forces, or raise AssertionError."""
    difference = abs(found[0] - expected[0]) / len(expected[1])
    if not difference <= _ENERGY_TOLERANCE:
        raise AssertionError(f"energies differ by {difference:.2e} kJ/mol per atom")
    return {"energy_error_kj_mol_atom": difference, **within_tolerance(found[1], expected[1])}


def check_platform(name: str, engine: str, force: str, precision: str, platform: str) -> dict:
    """Compare with the plain network in double precision on the Reference platform."""
    sample = sample_of(name)
    positions = sample.frame.positions * NM
    network = "double" if precision == "double" else None
    options = {"engine": engine, "precision": network}
    context = make_context(pure_system(sample, force=force, **options), positions, platform,
                           precision)  # fmt: skip
    exact = {"force": "python", "engine": "reference", "precision": "double", "device": "cpu"}
    expected = evaluate(make_context(pure_system(sample, **exact), positions, "Reference"))
    return compare(evaluate(context), expected)


def check_mixed(force: str, precision: str, platform: str, waters: int = 500) -> dict:
    """Compare the potential's part of a mixed system, and all of it, with Reference."""
    system, positions = mixed_system(waters, force=force)
    context = make_context(system, positions, platform, precision)
    exact = {"force": "python", "engine": "reference", "precision": "double", "device": "cpu"}
    reference = make_context(mixed_system(waters, **exact)[0], positions, "Reference")
    found = compare(evaluate(context, 1 << _GROUP), evaluate(reference, 1 << _GROUP))
    whole = [evaluate(c)[1] for c in (context, reference)]
    # the force field's part has the tolerance of PME
    error = float((whole[0] - whole[1]).norm() / whole[1].norm())
    if not error <= 1e-3:
        raise AssertionError(f"forces of the whole system differ by {error:.2e}")
    return found | {"whole_force_error": error}


def check_cuda_graphs(engine: str, platform: str) -> dict:
    """Ask openmm-torch to capture the potential in a CUDA graph of its own.

    The fused engine has its own graph and must say so; the plain network may work or not.
    """
    sample = aspirin()
    system = pure_system(sample, force="torch", engine=engine)
    expected = evaluate(make_context(system, sample.frame.positions * NM, platform))
    captured = pure_system(sample, force="torch", engine=engine)
    for force in captured.getForces():
        if hasattr(force, "setProperty"):
            force.setProperty("useCUDAGraphs", "true")
    try:
        context = make_context(captured, sample.frame.positions * NM, platform)
        found = [evaluate(context) for _ in range(3)][-1]
    except openmm.OpenMMException as error:
        message = " ".join(str(error).split())
        if engine == "fused" and "useCUDAGraphs" in message:
            return {"refused": "as it should be"}
        raise
    return compare(found, expected)


def check_barostat(force: str, platform: str, waters: int = 500, steps: int = 400) -> dict:
    """Run a mixed system at constant pressure after a minimisation."""
    system, positions = mixed_system(waters, force=force)
    barostat = openmm.MonteCarloBarostat(1 * unit.bar, 300 * unit.kelvin, 5)
    barostat.setRandomNumberSeed(1)
    system.addForce(barostat)
    context = make_context(system, positions, platform, "mixed", thermostat())
    before = evaluate(context)[0]
    openmm.LocalEnergyMinimizer.minimize(context, maxIterations=100)
    after = evaluate(context)[0]
    if not after < before - 100:
        raise AssertionError(f"minimisation took the energy from {before:.1f} to {after:.1f}")
    volume = context.getState().getPeriodicBoxVolume()._value
    context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
    context.getIntegrator().step(steps)
    state = context.getState(energy=True)
    temperature = _temperature(system, state)
    changed = state.getPeriodicBoxVolume()._value - volume
    if not (0 < temperature < _HOTTEST and changed != 0):
        raise AssertionError(f"{temperature:.0f} K, volume changed by {changed:.3g} nm³")
    return {"kj_mol_minimised": after - before, "kelvin": temperature, "nm3_changed": changed}


def check_restart(force: str, precision: str, platform: str, steps: int = 20) -> dict:
    """Go back to a checkpoint and come to the same state again."""
    sample = sample_of("water")
    system = pure_system(sample, force=force)
    context = make_context(system, sample.frame.positions * NM, platform, precision, thermostat())
    context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
    context.getIntegrator().step(steps)
    checkpoint = context.createCheckpoint()
    ends = []
    for _ in range(2):
        context.loadCheckpoint(checkpoint)
        context.getIntegrator().step(steps)
        ends.append(context.getState(positions=True).getPositions(asNumpy=True)._value)
    difference = float(abs(ends[0] - ends[1]).max())
    if not difference < 1e-4:
        raise AssertionError(f"positions differ by {difference:.1e} nm after {steps} steps")
    return {"same_bits": difference == 0, "nm_apart": difference}


def check_energy_conservation(force: str, precision: str, platform: str, steps: int) -> dict:
    """Follow the total energy of aspirin without a thermostat, 0.25 fs a step."""
    sample = aspirin()
    system = pure_system(sample, force=force)
    context = make_context(system, sample.frame.positions * NM, platform, precision,
                           openmm.VerletIntegrator(0.00025))  # fmt: skip
    openmm.LocalEnergyMinimizer.minimize(context, maxIterations=200)
    context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
    totals = []
    for _ in range(100):
        context.getIntegrator().step(max(1, steps // 100))
        state = context.getState(energy=True)
        totals.append((state.getPotentialEnergy() + state.getKineticEnergy())._value)
    per_atom = np.array(totals[10:]) / len(sample.frame.numbers) * 1000 / 96.4853  # meV
    spread = float(per_atom.std())
    if not spread < 0.5:
        raise AssertionError(f"the total energy varies by {spread:.2f} meV per atom")
    return {"mev_atom_spread": spread, "ps": 0.00025 * max(1, steps // 100) * 100}


def time_pure(
    size: str, atoms: int, force: str, device: str, platform: str, seconds: float
) -> dict:
    """Time steps of molecular dynamics of water that is all the potential's."""
    model = make_model(size)
    sample = model.sample(atoms)
    with tempfile.TemporaryDirectory() as folder:
        potential = MLPotential("openmm-nequip", modelPath=str(model.model_file(Path(folder))))
        system = potential.createSystem(sample.topology(), force=force, engine="fused",
                                        device=device)  # fmt: skip
    run = Trajectory(system, sample, platform)
    return time_steps(run.step, seconds)


def time_mixed(waters: int, force: str, device: str, platform: str, seconds: float) -> dict:
    """Time steps of the peptide by the potential in water by the force field."""
    system, positions = mixed_system(waters, force=force, engine="fused", device=device)
    context = make_context(system, positions, platform, "mixed", thermostat())
    openmm.LocalEnergyMinimizer.minimize(context, maxIterations=50)
    context.setVelocitiesToTemperature(300 * unit.kelvin, 1)

    def step(steps: int) -> None:
        context.getIntegrator().step(steps)
        context.getState(velocities=True)

    found = time_steps(step, seconds)
    return found | {"kelvin": _temperature(system, context.getState(energy=True))}


def time_steps(step: Any, seconds: float) -> dict:
    """Return milliseconds and ns/day at 0.5 fs, from runs of growing length."""
    step(5)
    count, passed = 5, 0.0
    while True:
        start = time.perf_counter()
        step(count)
        passed = time.perf_counter() - start
        if passed >= seconds / 2:
            break
        count *= 2
    ms = 1e3 * passed / count
    return {"ms": ms, "steps": count, "ns_per_day": 0.5e-6 * 86400e3 / ms}


def _temperature(system: openmm.System, state: openmm.State) -> float:
    masses = [system.getParticleMass(k)._value for k in range(system.getNumParticles())]
    freedom = 3 * sum(mass > 0 for mass in masses) - system.getNumConstraints()
    kinetic = state.getKineticEnergy().value_in_unit(unit.kilojoule_per_mole)
    return 2 * kinetic / (freedom * unit.MOLAR_GAS_CONSTANT_R._value / 1000)
