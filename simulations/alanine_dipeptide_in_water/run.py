"""Alanine dipeptide in TIP3P water as ML/MM: the ordinary OpenMM script.

python run.py                        # 2 ps, some minutes on two cores
python run.py --picoseconds 5000
python run.py solvated-peptide.pdb   # another peptide; water is added where there is none
"""

import argparse
import sys

import mdtraj
from matplotlib.figure import Figure
from openmm import LangevinMiddleIntegrator, MonteCarloBarostat, unit
from openmm.app import (
    PME,
    DCDReporter,
    ForceField,
    HBonds,
    Modeller,
    PDBFile,
    Simulation,
    StateDataReporter,
)
from openmmml import MLPotential

from openmm_nequip.md.checks import check_run
from openmm_nequip.md.region import select

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("structure", nargs="?", default="alanine-dipeptide.pdb", help="PDB file")
parser.add_argument("--picoseconds", type=float, default=2.0)
arguments = parser.parse_args()
picoseconds = arguments.picoseconds

pdb = PDBFile(arguments.structure)
forcefield = ForceField("amber14-all.xml", "amber14/tip3p.xml")
modeller = Modeller(pdb.topology, pdb.positions)
if all(residue.name != "HOH" for residue in pdb.topology.residues()):
    modeller.addSolvent(forcefield, padding=0.8 * unit.nanometer)
mm_system = forcefield.createSystem(
    modeller.topology, nonbondedMethod=PME, nonbondedCutoff=0.8 * unit.nanometer, constraints=HBonds
)
peptide = select(modeller.topology, "protein")
system = MLPotential("nequip").createMixedSystem(modeller.topology, mm_system, peptide)
system.addForce(MonteCarloBarostat(1 * unit.bar, 300 * unit.kelvin))

integrator = LangevinMiddleIntegrator(
    300 * unit.kelvin, 1 / unit.picosecond, 0.5 * unit.femtosecond
)
simulation = Simulation(modeller.topology, system, integrator)
simulation.context.setPositions(modeller.positions)
simulation.minimizeEnergy(maxIterations=200)
check_run(simulation, ml_atoms=peptide)
simulation.context.setVelocitiesToTemperature(300 * unit.kelvin)

with open("topology.pdb", "w") as file:
    PDBFile.writeFile(modeller.topology, modeller.positions, file)
steps = round(picoseconds / 0.0005)
simulation.reporters.append(DCDReporter("trajectory.dcd", 100))
simulation.reporters.append(
    StateDataReporter(
        sys.stdout,
        max(100, steps // 20),
        step=True,
        temperature=True,
        density=True,
        speed=True,
        remainingTime=True,
        totalSteps=steps,
    )
)
simulation.step(steps)

frames = mdtraj.load("trajectory.dcd", top="topology.pdb")
degrees = 57.29578
_, phi = mdtraj.compute_phi(frames)
_, psi = mdtraj.compute_psi(frames)
figure = Figure(figsize=(4.5, 4.2), layout="constrained")
ax = figure.subplots()
ax.scatter(phi * degrees, psi * degrees, s=8, c=range(len(frames)), cmap="viridis")
ax.set(
    title=f"Peptide in water, {picoseconds:g} ps", xlabel="φ (°)", ylabel="ψ (°)",
    xlim=(-180, 180), ylim=(-180, 180),
)  # fmt: skip
figure.savefig("ramachandran.png", dpi=150)
print(f"{len(frames)} frames; see ramachandran.png")
