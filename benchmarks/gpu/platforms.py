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
from correct import FORCE_TOLERANCE, within_tolerance
from openmm import app, unit
from openmmml import MLPotential
from report import Skipped
from speed import model_of

from openmm_nequip.benchmarking.samples import Sample, aspirin, water
from openmm_nequip.md.probe import import_openmmtorch, probe
from openmm_nequip.units import NM

_PEPTIDE = Path(__file__).parents[2] / "simulations/alanine_dipeptide_in_water"
_GROUP = 7  # of the potential, so that its forces can be asked for
_CUTOFF = 0.8  # nm, of the force field
#: Of energies, kJ/mol per atom, and forces, relative to the largest: what is exact in double
#: precision, and what has a network, positions or splines in single precision.
_EXACT, _SINGLE = (1e-6, 1e-8), (1e-3, FORCE_TOLERANCE)
_REFERENCE = {"force": "python", "engine": "reference", "precision": "double", "device": "cpu"}
_HOTTEST = 600.0  # K; a run at 300 K that is right stays well below


def check_force(force: str, device: str, platform: str) -> dict:
    """Raise `Skipped` where a kind of force does not work at all."""
    if device.startswith("cuda") and platform != "CUDA":
        raise RuntimeError("OpenMM has no CUDA platform here: pip install 'openmm[cuda12]'")
    problems = probe(force, fresh=True)
    if reason := problems["Reference"] or problems.get(platform, ""):
        raise Skipped(reason[:300])
    return {"platforms": [name for name, problem in problems.items() if not problem]}


def sample_of(name: str) -> Sample:
    """Return aspirin, or a periodic box of water, ``large`` for a captured graph."""
    sizes = {"water": 192, "large water": 1200}
    return aspirin() if name == "aspirin" else water(sizes[name], width=10.0)


def moved(positions: np.ndarray) -> list[np.ndarray]:
    """Return positions as they are, shaken, and drawn together for more neighbours."""
    shaken = positions + np.random.default_rng(0).normal(scale=0.003, size=positions.shape)
    return [positions, shaken, 0.97 * positions]


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
        ewaldErrorTolerance=1e-5,
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


def evaluate_at(
    context: openmm.Context, positions: np.ndarray, groups: int = -1
) -> tuple[float, torch.Tensor]:
    """Move the atoms, nm, and evaluate."""
    context.setPositions(positions)
    return evaluate(context, groups)


def evaluate(context: openmm.Context, groups: int = -1) -> tuple[float, torch.Tensor]:
    """Return energy, kJ/mol, and forces, kJ/mol/nm."""
    state = context.getState(energy=True, forces=True, groups=groups)
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    return energy, torch.from_numpy(state.getForces(asNumpy=True)._value)


def compare(
    found: tuple[float, torch.Tensor],
    expected: tuple[float, torch.Tensor],
    tolerances: tuple[float, float] = _SINGLE,
) -> dict:
    """Return differences of energy and forces, or raise AssertionError."""
    difference = abs(found[0] - expected[0]) / len(expected[1])
    if not difference <= tolerances[0]:
        raise AssertionError(f"energies differ by {difference:.2e} kJ/mol per atom")
    forces = within_tolerance(found[1], expected[1], tolerances[1])
    return {"energy_error_kj_mol_atom": difference, **forces}


def worst(results: list[dict]) -> dict:
    """Return the largest of each value."""
    return {key: max(result[key] for result in results) for key in results[0]}


@cache
def reference_of_sample(name: str) -> list[tuple[float, torch.Tensor]]:
    """Return energies and forces by the plain network in double precision on Reference."""
    sample = sample_of(name)
    positions = moved(sample.frame.positions * NM)
    context = make_context(pure_system(sample, **_REFERENCE), positions[0], "Reference")
    return [evaluate_at(context, points) for points in positions]


def check_platform(name: str, engine: str, force: str, precision: str, platform: str) -> dict:
    """Compare with the plain network in double precision on the Reference platform.

    With a platform in double precision the network is too, and the plain one must be exact.
    """
    positions = moved(sample_of(name).frame.positions * NM)
    network = "double" if precision == "double" else None
    system = pure_system(sample_of(name), force=force, engine=engine, precision=network)
    context = make_context(system, positions[0], platform, precision)
    found = [evaluate_at(context, points) for points in positions]
    exact = precision == "double" or platform in ("CPU", "Reference")
    tolerances = _EXACT if exact and network else _SINGLE
    pairs = zip(found, reference_of_sample(name), strict=True)
    return worst([compare(*pair, tolerances) for pair in pairs])


@cache
def reference_of_mixed(waters: int) -> list[tuple[float, torch.Tensor]]:
    """Return energy and forces of the potential and of all, moved positions, on Reference."""
    system, positions = mixed_system(waters, **_REFERENCE)
    context = make_context(system, positions, "Reference")
    points = moved(positions)[1]
    return [evaluate_at(context, points, groups) for groups in (-1, 1 << _GROUP)]


def check_mixed(force: str, precision: str, platform: str, waters: int = 500) -> dict:
    """Compare all of a mixed system, and the potential's part, with the Reference platform."""
    system, positions = mixed_system(waters, force=force)
    context = make_context(system, positions, platform, precision)
    evaluate(context)
    points = moved(positions)[1]
    # everything first: other forces are then under way when the potential is given positions
    whole, own = (evaluate_at(context, points, groups) for groups in (-1, 1 << _GROUP))
    expected_whole, expected_own = reference_of_mixed(waters)
    error = float((whole[1] - expected_whole[1]).norm() / expected_whole[1].norm())
    if not error <= 1e-4:
        raise AssertionError(f"forces of the whole system differ by {error:.2e}")
    return compare(own, expected_own) | {"whole_force_error": error}


def check_cuda_graphs(engine: str, platform: str) -> dict:
    """Ask openmm-torch to capture the potential in a CUDA graph of its own.

    The fused engine has its own graph and must say so; whether the plain network works is found
    out.
    """
    kind = import_openmmtorch().TorchForce
    sample = aspirin()
    system = pure_system(sample, force="torch", engine=engine)
    for force in system.getForces():
        if kind.isinstance(force):
            kind.cast(force).setProperty("useCUDAGraphs", "true")
    positions = moved(sample.frame.positions * NM)
    try:
        context = make_context(system, positions[0], platform)
        found = [evaluate_at(context, points) for points in positions]
    except openmm.OpenMMException as error:
        message = " ".join(str(error).split())
        if engine == "fused" and "leave out TorchForce's property" not in message:
            raise
        return {"refused": message[-200:]}
    if engine == "fused" and platform == "CUDA":
        raise AssertionError("the fused engine was captured, and did not refuse")
    pairs = zip(found, reference_of_sample("aspirin"), strict=True)
    return worst([compare(*pair) for pair in pairs])


def check_barostat(force: str, platform: str, waters: int = 500, steps: int = 400) -> dict:
    """Run a mixed system at constant pressure after a minimisation."""
    system, positions = mixed_system(waters, force=force)
    barostat = openmm.MonteCarloBarostat(1 * unit.bar, 300 * unit.kelvin, 2)
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
    per_atom = np.array(totals) / len(sample.frame.numbers) * 1000 / 96.4853  # meV
    spread = float(per_atom.std())
    drift = float(np.polyfit(np.linspace(0, 1, 100), per_atom, 1)[0])
    if not (spread < 0.1 and abs(drift) < 0.2):
        raise AssertionError(
            f"the total energy varies by {spread:.3f} and drifts by {drift:.3f} meV per atom"
        )
    duration = 0.00025 * max(1, steps // 100) * 100
    return {"mev_atom_spread": spread, "mev_atom_drift": drift, "ps": duration}


def time_pure(
    size: str, atoms: int, force: str, device: str, platform: str, seconds: float
) -> dict:
    """Time steps of molecular dynamics of water that is all the potential's, in mixed precision."""
    model = model_of(size)
    sample = model.sample(atoms)
    with tempfile.TemporaryDirectory() as folder:
        potential = MLPotential("openmm-nequip", modelPath=str(model.model_file(Path(folder))))
        system = potential.createSystem(sample.topology(), force=force, engine="fused",
                                        device=device)  # fmt: skip
    system.addForce(sample.bonds())
    positions = sample.frame.positions * NM
    context = make_context(system, positions, platform, "mixed", thermostat())
    context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
    return time_steps(context, seconds)


def time_mixed(waters: int, force: str, device: str, platform: str, seconds: float) -> dict:
    """Time steps of the peptide by the potential in water by the force field."""
    system, positions = mixed_system(waters, force=force, engine="fused", device=device)
    context = make_context(system, positions, platform, "mixed", thermostat())
    openmm.LocalEnergyMinimizer.minimize(context, maxIterations=50)
    context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
    found = time_steps(context, seconds)
    return found | {"kelvin": _temperature(system, context.getState(energy=True))}


def time_steps(context: openmm.Context, seconds: float) -> dict:
    """Return milliseconds and ns/day at 0.5 fs, from runs of growing length."""

    def step(steps: int) -> None:
        context.getIntegrator().step(steps)
        context.getState(velocities=True)  # waits for the GPU

    step(5)
    count, runs = 5, 0
    while True:
        start = time.perf_counter()
        step(count)
        passed, runs = time.perf_counter() - start, runs + 1
        if passed < seconds / 2:
            count *= 2
        elif runs > 1:  # the first may have compiled something
            break
    ms = 1e3 * passed / count
    return {"ms": ms, "steps": count, "ns_per_day": 0.5e-6 * 86400e3 / ms}


def _temperature(system: openmm.System, state: openmm.State) -> float:
    masses = [system.getParticleMass(k)._value for k in range(system.getNumParticles())]
    freedom = 3 * sum(mass > 0 for mass in masses) - system.getNumConstraints()
    kinetic = state.getKineticEnergy().value_in_unit(unit.kilojoule_per_mole)
    return 2 * kinetic / (freedom * unit.MOLAR_GAS_CONSTANT_R._value / 1000)
