"""Exponential moving average of the weights: what is validated, and what the model file gets."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    """Average of the weights over about the last ``1 / (1 - decay)`` steps.

    Early on the average is shorter, ``decay = (1 + n) / (10 + n)`` after n steps, so that it
    forgets the random start.

    Parameters
    ----------
    module
        Module whose trainable parameters are followed.
    decay
        Between 0 and 1; 0 means no averaging.
    """

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self.num_updates = 0
        self.parameters: list[Tensor] = [p for p in module.parameters() if p.requires_grad]
        self.average = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after an optimizer step."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        torch._foreach_lerp_(self.average, self.parameters, 1.0 - decay)

    @contextmanager
    def applied(self, values: list[Tensor] | None = None) -> Iterator[None]:
        """Give the module the averaged weights (or others) for the length of a ``with`` block."""
        own = [p.detach().clone() for p in self.parameters]
        try:
            self.assign(self.average if values is None else values)
            yield
        finally:
            self.assign(own)

    @torch.no_grad()
    def assign(self, values: list[Tensor]) -> None:
        """Copy `values` into the parameters."""
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)

    def to(self, device: torch.device) -> None:
        """Move the average to where the weights are."""
        self.average = [tensor.to(device) for tensor in self.average]

    def state_dict(self) -> dict[str, int | list[Tensor]]:
        """Return what `load_state_dict` needs to go on exactly."""
        return {"num_updates": self.num_updates, "average": self.average}

    def load_state_dict(self, state: dict) -> None:
        """Go on from a saved average."""
        self.num_updates = state["num_updates"]
        for own, saved in zip(self.average, state["average"], strict=True):
            own.copy_(saved)
