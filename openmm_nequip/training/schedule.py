"""The learning rate over the course of a run: warm-up, then cosine, plateau, step or constant."""

import math

from .config import TrainingConfig


class Schedule:
    """Learning rate as a function of the progress of the run.

    Parameters
    ----------
    config
        Learning rate, kind of schedule and its parameters.
    steps_per_epoch
        Optimizer steps in an epoch.
    max_epochs
        Length of the run; the cosine ends there.

    Notes
    -----
    Where the run has a `max_time`, the cosine ends with whichever comes first, so that a run
    stopped by the clock ends with a small learning rate too.
    """

    def __init__(self, config: TrainingConfig, steps_per_epoch: int, max_epochs: int):
        self.config = config
        self.steps_per_epoch = steps_per_epoch
        self.max_epochs = max_epochs
        self.reduction = 1.0
        self.best_loss = math.inf
        self.bad_validations = 0

    def learning_rate(self, step: int, elapsed: float = 0.0) -> float:
        """Return the learning rate of optimizer step `step` (from 0), `elapsed` seconds in."""
        config = self.config
        epoch = step / self.steps_per_epoch
        rate = config.learning_rate
        if config.schedule == "cosine":
            done = epoch / self.max_epochs
            if config.max_time is not None:
                done = max(done, elapsed / config.max_time)
            floor = min(config.min_learning_rate, rate)
            rate = floor + (rate - floor) * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))
        elif config.schedule == "step":
            rate *= config.schedule_factor ** (int(epoch) // config.schedule_step_epochs)
        elif config.schedule == "plateau":
            rate *= self.reduction
        warmup_steps = config.warmup_epochs * self.steps_per_epoch
        if step < warmup_steps:
            rate *= (step + 1) / (warmup_steps + 1)
        return rate

    def validated(self, loss: float) -> None:
        """Take in a validation loss; on a plateau the rate falls after `schedule_patience`."""
        if loss < self.best_loss:
            self.best_loss = loss
            self.bad_validations = 0
            return
        self.bad_validations += 1
        if self.bad_validations > self.config.schedule_patience:
            self.reduction *= self.config.schedule_factor
            self.bad_validations = 0

    @property
    def exhausted(self) -> bool:
        """Whether a plateau schedule has reached the smallest learning rate."""
        config = self.config
        return (
            config.schedule == "plateau"
            and config.learning_rate * self.reduction < config.min_learning_rate
        )

    def state_dict(self) -> dict[str, float]:
        """Return what `load_state_dict` needs to go on exactly."""
        return {
            "reduction": self.reduction,
            "best_loss": self.best_loss,
            "bad_validations": self.bad_validations,
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from a saved state."""
        self.reduction = state["reduction"]
        self.best_loss = state["best_loss"]
        self.bad_validations = state["bad_validations"]
