"""What the parity plot shows."""

from itertools import chain

import numpy as np
import pytest
import torch

from openmm_nequip.data.dataset import Targets
from openmm_nequip.potential import Output
from openmm_nequip.training import plots
from openmm_nequip.training.evaluation import Predictions


@pytest.fixture
def energies(monkeypatch, tmp_path):
    """Return a function that gives the energies that are drawn: reference and predicted."""

    def drawn(energies, numbers, shift):
        found = {}
        monkeypatch.setattr(
            plots, "_parity_panel", lambda axis, name, unit, *values: found.update({name: values})
        )
        targets = torch.tensor(energies, dtype=torch.float64)
        sizes = torch.tensor([len(n) for n in numbers])
        forces = torch.zeros(int(sizes.sum()), 3, dtype=torch.float64)
        predictions = Predictions(
            Output(targets.nan_to_num() + shift, forces[:, 0], forces, None, None),
            Targets(targets, forces, torch.full((len(sizes), 3, 3), torch.nan), sizes),
            torch.tensor(list(chain(*numbers))),
        )
        plots.parity(predictions, ["H", "O"], tmp_path / "parity.png")
        return found["energy per atom"][:2]

    return drawn


def test_what_the_composition_explains_is_left_out(energies):
    numbers = [[0, 0, 1], [0, 1], [0, 0, 0, 1, 1], [1, 1], [0]]
    reference = [2 * -10.0 - 30.0, -40.0, -90.0, -60.0, float("nan")]
    found, predicted = energies(reference, numbers, shift=0.5)
    assert np.allclose(found, 0.0, atol=1e-9)
    assert np.allclose(predicted, 500 / np.array([3, 2, 5, 2]), atol=1e-9)


def test_of_one_composition_the_mean(energies):
    found, predicted = energies([-76.0, -76.3, -76.6], [[0, 0, 1]] * 3, shift=0.03)
    assert np.allclose(found, [100.0, 0.0, -100.0], atol=1e-9)
    assert np.allclose(predicted - found, 10.0, atol=1e-9)
