"""Energies and forces of many structures: from a potential, and from its teacher."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from conformations import Structure
from teacher import Teacher

from openmm_nequip.data.dataset import FrameDataset
from openmm_nequip.data.frame import Frame
from openmm_nequip.kernels.engine import choose_engine
from openmm_nequip.modelfile import load_file
from openmm_nequip.potential import Potential
from openmm_nequip.training.evaluation import Predictions, evaluation_batches, predict

_BATCH = 32


class Evaluated(NamedTuple):
    """Energies, eV, ``[G]``, and the forces on each structure, eV/Å, ``[N, 3]``."""

    energies: np.ndarray
    forces: list[np.ndarray]


Method = Callable[[Sequence[Structure]], Evaluated]


def load(model: Path) -> Potential:
    """Return the potential of a file on the fastest engine of this machine."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return load_file(model).with_engine(choose_engine("auto", device)).to(device)


def predictions(potential: Potential, frames: Sequence[Frame]) -> Predictions:
    """Evaluate a potential on labelled frames, batch by batch."""
    dataset = FrameDataset(frames, potential.elements, potential.r_max)
    return predict(potential, evaluation_batches(dataset))


def of_potential(model: Path) -> Method:
    """Return the method of a model file."""
    potential = load(model)

    def evaluate(structures: Sequence[Structure]) -> Evaluated:
        frames = [Frame(s.numbers.astype(np.int64), s.positions) for s in structures]
        output = predictions(potential, frames).output
        ends = np.cumsum([len(frame) for frame in frames])[:-1]
        return Evaluated(output.energy.numpy(), np.split(output.forces.numpy(), ends))

    return evaluate


def of_teacher() -> Method:
    """Return the method of the ANI-2x ensemble."""
    teacher = Teacher()

    def evaluate(structures: Sequence[Structure]) -> Evaluated:
        labels = []
        for start in range(0, len(structures), _BATCH):
            batch = structures[start : start + _BATCH]
            labels += teacher.label([s.numbers for s in batch], [s.positions for s in batch])
        energies = np.array([label.energy for label in labels])
        return Evaluated(energies, [label.forces for label in labels])

    return evaluate
