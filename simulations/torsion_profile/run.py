"""The torsions of alanine dipeptide in vacuum, force field beside potential: relaxed scans.

python run.py               # every 30°, a minute or two on two cores
python run.py --step 5
"""

import argparse
import csv

import numpy as np
from matplotlib.figure import Figure
from openmm import CustomTorsionForce, LangevinMiddleIntegrator, unit
from openmm.app import ForceField, PDBFile, Simulation
from openmmml import MLPotential

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--step", type=int, default=30, help="degrees between points")
step = parser.parse_args().step

pdb = PDBFile("alanine-dipeptide.pdb")
index = {(a.residue.name, a.name): a.index for a in pdb.topology.atoms()}
TORSIONS = {
    "φ": [("ACE", "C"), ("ALA", "N"), ("ALA", "CA"), ("ALA", "C")],
    "ψ": [("ALA", "N"), ("ALA", "CA"), ("ALA", "C"), ("NME", "N")],
}
SYSTEMS = {
    "Amber14": lambda: ForceField("amber14-all.xml").createSystem(pdb.topology),
    "potential": lambda: MLPotential("nequip").createSystem(pdb.topology),
}
angles = np.arange(-180, 180, step)


def scan(system, torsion):
    """Return the energy with the torsion held at each angle and the rest relaxed, kJ/mol."""
    restraint = CustomTorsionForce(
        "0.5*k*d^2; d=min(abs(theta-target), 2*pi-abs(theta-target)); pi=3.141592653589793"
    )
    restraint.addGlobalParameter("k", 5000.0)  # kJ/mol/rad²
    restraint.addGlobalParameter("target", 0.0)
    restraint.addTorsion(*(index[atom] for atom in torsion))
    restraint.setForceGroup(1)
    system.addForce(restraint)
    integrator = LangevinMiddleIntegrator(300, 1, 0.0005)
    simulation = Simulation(pdb.topology, system, integrator)
    count = len(angles)
    energies, shapes = np.full(count, np.inf), [pdb.positions] * count
    there = [(k, k - 1) for k in range(count)]
    back = [(k, (k + 1) % count) for k in reversed(range(count))]
    for k, before in there + back:  # from the best shape at the angle before, across 180° too
        simulation.context.setPositions(shapes[before])
        simulation.context.setParameter("target", np.radians(angles[k]))
        simulation.minimizeEnergy(tolerance=1.0)
        state = simulation.context.getState(energy=True, positions=True, groups={0})
        energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        if energy < energies[k]:
            energies[k], shapes[k] = energy, state.getPositions()
    return energies - energies.min()


profiles = {}
for name, torsion in TORSIONS.items():
    for label, make in SYSTEMS.items():
        profiles[name, label] = scan(make(), torsion)
        print(f"{name}, {label}: barrier {profiles[name, label].max():.1f} kJ/mol", flush=True)

with open("profiles.csv", "w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["angle_degrees", *(f"{name} {label} kJ/mol" for name, label in profiles)])
    writer.writerows(np.column_stack([angles, *profiles.values()]).round(4))
figure = Figure(figsize=(9, 3.8), layout="constrained")
for ax, name in zip(figure.subplots(1, 2, sharey=True), TORSIONS, strict=True):
    for label in SYSTEMS:
        ax.plot(angles, profiles[name, label], marker="o", ms=3, label=label)
    ax.set(title=f"Alanine dipeptide, {name}", xlabel=f"{name} (°)", ylabel="energy (kJ/mol)")
    ax.legend(frameon=False)
figure.savefig("profiles.png", dpi=150)
print("see profiles.png and profiles.csv")
