"""Free energy of ethanol's O–H torsion by OpenMM's own metadynamics, with the potential.

python run.py                      # 20 ps, a minute on two cores
python run.py --picoseconds 2000   # for a converged profile
"""

import argparse

import numpy as np
from matplotlib.figure import Figure
from openmm import CustomTorsionForce, LangevinMiddleIntegrator, unit
from openmm.app import PDBFile, Simulation
from openmm.app.metadynamics import BiasVariable, Metadynamics
from openmmml import MLPotential

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--picoseconds", type=float, default=20.0)
picoseconds = parser.parse_args().picoseconds

pdb = PDBFile("../ethanol_vacuum/ethanol.pdb")
system = MLPotential("nequip", model="ethanol-pbe").createSystem(pdb.topology)
neighbours = {}
for first, second in pdb.topology.bonds():
    neighbours.setdefault(first, []).append(second)
    neighbours.setdefault(second, []).append(first)
oxygen = next(atom for atom in neighbours if atom.element.symbol == "O")
hydrogen, carbon = sorted(neighbours[oxygen], key=lambda atom: atom.element.atomic_number)
other = next(a for a in neighbours[carbon] if a.element.symbol == "C")

angle = CustomTorsionForce("theta")
angle.addTorsion(other.index, carbon.index, oxygen.index, hydrogen.index)
variable = BiasVariable(angle, -np.pi, np.pi, 0.35, periodic=True)
metadynamics = Metadynamics(
    system, [variable], 300 * unit.kelvin, biasFactor=4, height=0.5 * unit.kilojoule_per_mole,
    frequency=100,
)  # fmt: skip
integrator = LangevinMiddleIntegrator(
    300 * unit.kelvin, 10 / unit.picosecond, 0.5 * unit.femtosecond
)
simulation = Simulation(pdb.topology, system, integrator)
simulation.context.setPositions(pdb.positions)
simulation.minimizeEnergy()
simulation.context.setVelocitiesToTemperature(300 * unit.kelvin)

steps, pieces = round(picoseconds / 0.0005), 10
for piece in range(pieces):
    metadynamics.step(simulation, steps // pieces)
    profile = metadynamics.getFreeEnergy().value_in_unit(unit.kilojoule_per_mole)
    print(
        f"{(piece + 1) * picoseconds / pieces:g} ps: highest point {np.ptp(profile):.2f} kJ/mol",
        flush=True,
    )

profile -= profile.min()
degrees = np.linspace(-180, 180, len(profile))
np.savetxt("profile.csv", np.column_stack([degrees, profile]), "%.4f", ",",
           header="C-C-O-H (degrees), free energy (kJ/mol)")  # fmt: skip
figure = Figure(figsize=(5, 3.8), layout="constrained")
ax = figure.subplots()
ax.plot(degrees, profile)
ax.set(
    title=f"Ethanol at 300 K, {picoseconds:g} ps", xlabel="C–C–O–H (°)",
    ylabel="free energy (kJ/mol)",
)  # fmt: skip
figure.savefig("profile.png", dpi=150)
print("see profile.png and profile.csv")
