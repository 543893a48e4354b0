"""Writes ``bundled.json``: what the bundled potentials computed when they were released.

Run ``python -m tests.bundled`` from the root of the checkout after a potential was added or
trained anew; entries that are there stay as they are.
"""

import json
from pathlib import Path

import ase
import ase.build
import numpy as np

from openmm_nequip import load
from openmm_nequip.data.frame import Frame

PATH = Path(__file__).with_suffix(".json")
#: Between them they have each element of the potential's domain.
MOLECULES = {
    "organic-small": ["CH3CH2OH", "CH3CONH2", "C4H4S", "CH3CH2Cl", "CF4"],
    "ethanol-pbe": ["CH3CH2OH"],
    "rmd17-pbe": ["CH3CONH2", "C6H6"],
    "water-pbe0": ["water"],
}


def structure(name: str) -> ase.Atoms:
    """Return a strained molecule, or three waters in a skewed box."""
    if name == "water":
        atoms = ase.Atoms(cell=[[6.5, 0, 0], [1.0, 6.8, 0], [-0.8, 1.2, 7.0]], pbc=True)
        for k, place in enumerate(([0.5, 0.5, 0.5], [3.2, 3.0, 1.0], [1.0, 4.0, 4.5])):
            water = ase.build.molecule("H2O")
            water.rotate(70 * k, (1, 2, 3))
            water.positions += place
            atoms += water
    else:
        atoms = ase.build.molecule(name)
    atoms.positions += 0.04 * np.sin(np.arange(3 * len(atoms))).reshape(-1, 3)
    return atoms


def evaluate(name: str, frame: Frame) -> tuple[float, np.ndarray]:
    """Return energy, eV, and forces, eV/Å, of a bundled potential in double precision."""
    potential = load(name).with_dtype("float64")
    output = potential(potential.to_graph(frame))
    return float(output.energy[0]), output.forces.numpy()


def frame_of(entry: dict) -> Frame:
    """Return the frame of an entry."""
    cell = None if entry["cell"] is None else np.array(entry["cell"])
    positions = np.array(entry["positions"])
    return Frame(np.array(entry["numbers"]), positions, cell, (cell is not None,) * 3)


def main() -> None:
    """Add what is missing."""
    known = json.loads(PATH.read_text()) if PATH.exists() else {}
    for potential, molecules in MOLECULES.items():
        for molecule in molecules:
            if molecule in known.setdefault(potential, {}):
                continue
            atoms = structure(molecule)
            entry = {
                "numbers": atoms.numbers.tolist(),
                "positions": atoms.positions.round(4).tolist(),
                "cell": atoms.cell.tolist() if atoms.pbc.any() else None,
            }
            energy, forces = evaluate(potential, frame_of(entry))
            known[potential][molecule] = entry | {"energy": energy, "forces": forces.tolist()}
    PATH.write_text(json.dumps(known) + "\n")


if __name__ == "__main__":
    main()
