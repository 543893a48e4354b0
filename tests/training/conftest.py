"""Small labelled sets that the tests make themselves: clusters with effective-medium forces."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

TINY = {"num_layers": 2, "l_max": 1, "num_features": 8, "parity": False, "r_max": 4.5}


@pytest.fixture(autouse=True)
def one_thread():
    """Results are compared bit by bit, so the number of threads must not vary."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def clusters(count: int, seed: int = 0, symbols: str = "Cu3Au") -> list[Atoms]:
    """Distorted tetrahedra and larger pieces with energies and forces of ASE's EMT."""
    rng = np.random.default_rng(seed)
    tetrahedron = np.array([[0, 0, 0], [1.8, 1.8, 0], [1.8, 0, 1.8], [0, 1.8, 1.8]])
    frames = []
    for _ in range(count):
        atoms = Atoms(symbols, tetrahedron + rng.normal(0, 0.12, (4, 3)))
        atoms.calc = EMT()
        labels = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        atoms.calc = SinglePointCalculator(atoms, **labels)
        frames.append(atoms)
    return frames


def crystals(count: int, seed: int = 0) -> list[Atoms]:
    """Distorted 2x1x1 copper cells with energies, forces and stress of ASE's EMT."""
    from ase.build import bulk

    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(count):
        atoms = bulk("Cu", cubic=True)
        atoms.set_cell(atoms.cell[:] @ (np.eye(3) + rng.normal(0, 0.02, (3, 3))), scale_atoms=True)
        atoms.rattle(0.08, seed=int(rng.integers(1 << 30)))
        atoms.calc = EMT()
        labels = {
            "energy": atoms.get_potential_energy(),
            "forces": atoms.get_forces(),
            "stress": atoms.get_stress(voigt=False),
        }
        atoms.calc = SinglePointCalculator(atoms, **labels)
        frames.append(atoms)
    return frames


@pytest.fixture(scope="session")
def cluster_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 frames of a Cu3Au cluster."""
    path = tmp_path_factory.mktemp("clusters") / "clusters.xyz"
    write(path, clusters(60), format="extxyz")
    return path
