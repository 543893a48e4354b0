"""The training loss: errors of energy per atom, forces and stress, each a mean over its labels."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ..data.dataset import Targets
from ..potential import Output
from .config import TrainingConfig

QUANTITIES = ("energy", "forces", "stress")


class Terms(NamedTuple):
    """Sums over the labels of a batch, in the order of `QUANTITIES`.

    Sums and counts rather than means, so that several processes can add theirs up and get what
    one process would get.

    Attributes
    ----------
    penalty
        Sum of squared (or Huber) errors, shape ``[3]``; energies are divided by the number of
        atoms of their structure.
    absolute
        Sum of absolute errors, shape ``[3]``: eV per atom, eV/Å, eV/Å³; not differentiable.
    labels
        How many labels there are, shape ``[3]``; a missing label (NaN) counts nowhere.
    """

    penalty: Tensor
    absolute: Tensor
    labels: Tensor


class Loss:
    """Weighted sum of the mean errors of energy per atom, forces and stress.

    ``L = w_E <(ΔE/N)²> + w_F <ΔF²> + w_S <Δσ²>`` in eV and Å, with the square replaced by the
    Huber function for ``loss: huber``.
    """

    def __init__(self, config: TrainingConfig, has_forces: bool = True, has_stress: bool = False):
        weights = config.loss_weights
        self.weights = torch.tensor(
            [weights.energy, weights.forces, weights.stress], dtype=torch.float64
        )
        self.huber_delta = config.huber_delta if config.loss == "huber" else None
        self.forces = has_forces
        self.stress = has_stress

    def terms(self, output: Output, targets: Targets) -> Terms:
        """Compare a batch with its labels."""
        pairs = [(output.energy / targets.num_atoms, targets.energy / targets.num_atoms)]
        for predicted, target in ((output.forces, targets.forces), (output.stress, targets.stress)):
            pairs.append((target.new_zeros(0) if predicted is None else predicted, target))
        penalty, absolute, labels = [], [], []
        for predicted, target in pairs:
            if len(predicted) == 0:
                target = target[:0].reshape(predicted.shape)
            known = ~target.isnan()
            error = torch.where(known, predicted - target, 0.0)
            if self.huber_delta is None:
                penalty.append(error.square().sum())
            else:
                zero = torch.zeros_like(error)
                penalty.append(
                    functional.huber_loss(error, zero, reduction="sum", delta=self.huber_delta)
                )
            absolute.append(error.detach().abs().sum())
            labels.append(known.sum())
        return Terms(
            torch.stack(penalty), torch.stack(absolute), torch.stack(labels).to(torch.float64)
        )

    def total(self, penalty: Tensor, labels: Tensor) -> Tensor:
        """Combine the sums and numbers of labels of a whole batch into the loss."""
        self.weights = self.weights.to(penalty.device)
        return (self.weights * penalty / labels.clamp(min=1.0)).sum()
