"""Ethanol in vacuum at 300 K: the ordinary OpenMM script."""

from openmm import LangevinMiddleIntegrator
from openmm.app import DCDReporter, PDBFile, Simulation, StateDataReporter
from openmm.unit import femtosecond, kelvin, picosecond
from openmmml import MLPotential

pdb = PDBFile("ethanol.pdb")
system = MLPotential("nequip", model="ethanol-pbe").createSystem(pdb.topology)
integrator = LangevinMiddleIntegrator(300 * kelvin, 10 / picosecond, 0.5 * femtosecond)
simulation = Simulation(pdb.topology, system, integrator)
simulation.context.setPositions(pdb.positions)
simulation.minimizeEnergy()
simulation.context.setVelocitiesToTemperature(300 * kelvin)
simulation.reporters.append(DCDReporter("ethanol.dcd", 20))
simulation.reporters.append(
    StateDataReporter("ethanol.csv", 100, step=True, potentialEnergy=True, temperature=True)
)
simulation.step(2000)
