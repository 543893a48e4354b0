"""The optimizer step: what Lightning needs to know about a potential in training."""

from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.optim import Optimizer

from ..data.dataset import Targets
from ..data.graph import Graph
from ..errors import InputError
from ..potential import Potential
from .config import TrainingConfig
from .loss import QUANTITIES, Loss
from .soap import SOAP, matrices


class PotentialModule(LightningModule):
    """A potential with its loss and optimizer.

    Parameters
    ----------
    potential
        What is trained.
    loss
        Says what has labels.
    config
        Optimizer and its parameters.
    optimizer_state
        To go on with.

    Attributes
    ----------
    sums : Tensor
        Over the epoch so far: penalty, absolute error and number of labels of each quantity
        (rows, see `loss.Terms`), over all processes where there are several; shape ``[3, 3]``.
    signals : Tensor
        What the first process tells the others with each step: whether to stop, whether to write
        a checkpoint, seconds elapsed.
    """

    def __init__(
        self,
        potential: Potential,
        loss: Loss,
        config: TrainingConfig,
        optimizer_state: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.potential = potential
        self.loss = loss
        self.config = config
        self.optimizer_state = optimizer_state
        self.sums = torch.zeros(3, len(QUANTITIES), dtype=torch.float64)
        self.signals = torch.zeros(3, dtype=torch.float64)

    def training_step(self, batch: tuple[Graph, Targets], batch_idx: int) -> Tensor:
        """Return the loss of a batch; its gradients, averaged over processes, are those of one."""
        graph, targets = batch
        output = self.potential(graph, forces=self.loss.forces, stress=self.loss.stress)
        terms = self.loss.terms(output, targets)
        sums = torch.stack([terms.penalty.detach(), terms.absolute, terms.labels])
        world_size = self.trainer.world_size
        if world_size > 1:
            message = torch.cat([sums.flatten(), self.signals.to(sums.device)])
            dist.all_reduce(message)
            sums, signals = message[:-3].view_as(sums), message[-3:]
            self.signals.copy_(signals)
        self.sums += sums
        return world_size * self.loss.total(terms.penalty, sums[2])

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Differentiate by the weights, and not by the edge vectors that forces made variables."""
        loss.backward(inputs=[p for p in self.potential.parameters() if p.requires_grad])

    def configure_optimizers(self) -> Optimizer:
        """Return the optimizer; the learning rate is set by the loop before every step."""
        config = self.config
        optimizer: Optimizer
        if config.optimizer == "soap":
            optimizer = SOAP(self.potential, config.learning_rate, weight_decay=config.weight_decay)
        else:
            kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
            trained = [p for p in self.potential.parameters() if p.requires_grad]
            flat = matrices(self.potential)
            # frequencies, energy shifts and scales are no weights: they do not decay
            physical = [p for p in trained if p.dim() == 1 and p not in flat]
            weights = [p for p in trained if p.dim() > 1 or p in flat]
            groups: list[dict[str, Any]] = [
                {"params": weights},
                {"params": physical, "weight_decay": 0.0},
            ]
            optimizer = kind(
                groups,
                lr=config.learning_rate,
                weight_decay=config.weight_decay,
                amsgrad=config.amsgrad,
                fused=True,
            )
        if self.optimizer_state is not None:
            try:
                optimizer.load_state_dict(self.optimizer_state)
            except (KeyError, ValueError) as error:
                raise InputError(
                    "the checkpoint's optimizer is of another version of this package: go on with "
                    f"that version, or begin anew with another output ({error})"
                ) from None
            self.optimizer_state = None
        return optimizer

    def take_sums(self) -> tuple[float, list[float]]:
        """Return loss and mean absolute errors since the last call, and start anew."""
        penalty, absolute, labels = self.sums
        loss = float(self.loss.total(penalty, labels))
        means = (absolute / labels).tolist()  # NaN without labels
        self.sums = torch.zeros_like(self.sums)
        return loss, means
