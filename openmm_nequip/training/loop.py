"""The course of a run: epochs, validation, checkpoints, when to stop and how to go on exactly."""

import math
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer

from ..data.dataset import Targets
from ..errors import InputError
from .config import TrainingConfig
from .display import Display
from .ema import EMA
from .evaluation import Predictions, errors
from .module import PotentialModule
from .runfolder import RunFolder
from .sampler import EpochBatches
from .schedule import Schedule

_SAVE_SHARE = 0.05  # largest part of the time that checkpoints at the end of epochs may take
_TRAINING_ERRORS = ("energy_per_atom_mae_meV", "forces_mae_meV_per_A", "stress_mae_meV_per_A3")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Interrupted(Exception):
    """The run was asked to stop; a checkpoint has been written."""


@dataclass
class Progress:
    """How far a run has come.

    Attributes
    ----------
    epoch, batch, step
        Epochs done, batches done of the present one, optimizer steps done.
    elapsed
        Seconds of training, over all processes that continued the run.
    best_loss, best_epoch
        Of the validations so far.
    bad_validations
        Number of validations since the best one.
    history
        Rows of the log.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    elapsed: float = 0.0
    best_loss: float = math.inf
    best_epoch: int = 0
    bad_validations: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


class TrainingLoop(Callback):
    """Runs a `PotentialModule` from wherever its last checkpoint left off.

    Lightning sees only the batches that remain; what decides the result (which batch comes
    next, learning rate, averages, best weights) is held here and written to one checkpoint, so
    that a run that was killed ends with the same weights as one that was not.

    Parameters
    ----------
    module, ema, schedule, batches
        Parts of the run; their states are saved and restored.
    config
        When to validate, save and stop.
    max_epochs, val_interval
        Of the resolved configuration.
    predict
        Evaluates the validation set with the present weights, joined over all processes.
    folder, display
        Where to write and what to show.
    """

    def __init__(
        self,
        module: PotentialModule,
        ema: EMA,
        schedule: Schedule,
        batches: EpochBatches,
        config: TrainingConfig,
        max_epochs: int,
        val_interval: int,
        predict: Callable[[], Predictions],
        folder: RunFolder,
        display: Display,
    ):
        self.module = module
        self.ema = ema
        self.schedule = schedule
        self.batches = batches
        self.config = config
        self.max_epochs = max_epochs
        self.val_interval = val_interval
        self.predict = predict
        self.folder = folder
        self.display = display
        self.progress = Progress()
        self.best_weights = [tensor.clone() for tensor in ema.average]
        self._stop_requested = False
        self._started = 0.0
        self._elapsed_before = 0.0
        self._saved_at = 0.0
        self._save_cost = 0.0
        self._best_saved = 0  # epoch
        self._handlers: dict[int, Any] = {}

    # ---- state

    def state_dict(self) -> dict[str, Any]:
        """Return all that a later process needs to go on."""
        return {
            "progress": asdict(self.progress),
            "weights": self.module.potential.state_dict(),
            "optimizer": self.module.trainer.optimizers[0].state_dict(),
            "ema": self.ema.state_dict(),
            "best_weights": self.best_weights,
            "schedule": self.schedule.state_dict(),
            "sums": self.module.sums,
            "rng": torch.get_rng_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.progress = Progress(**state["progress"])
        self.module.potential.load_state_dict(state["weights"])
        self.module.optimizer_state = state["optimizer"]
        self.ema.load_state_dict(state["ema"])
        self.best_weights = state["best_weights"]
        self.schedule.load_state_dict(state["schedule"])
        self.module.sums = state["sums"]
        self.batches.epoch = self.progress.epoch
        self.batches.start = self.progress.batch
        torch.set_rng_state(state["rng"])

    def save(self) -> None:
        """Write a checkpoint and the best model so far, and note what it cost."""
        if not torch.isfinite(self.module.sums).all():
            raise _diverged(self.progress)
        begin = time.monotonic()
        self.folder.save_checkpoint(self.state_dict())
        if self._best_saved != self.progress.best_epoch and self.folder.writes:
            with self.ema.applied(self.best_weights):
                self.module.potential.save(self.folder.best)
            self._best_saved = self.progress.best_epoch
        self._saved_at = time.monotonic()
        self._save_cost = self._saved_at - begin

    def ending(self) -> str | None:
        """Return why the run is over, or `None` if it is not."""
        progress, config = self.progress, self.config
        if progress.epoch >= self.max_epochs:
            return f"{self.max_epochs} epochs done"
        if config.max_time is not None and progress.elapsed >= config.max_time:
            return f"time limit of {config.max_time:.0f} s reached"
        if config.early_stopping and progress.bad_validations >= config.early_stopping:
            return f"no improvement in {progress.bad_validations} validations"
        if self.schedule.exhausted:
            return "learning rate below its minimum"
        return None

    def use_best_weights(self) -> None:
        """Give the potential the averaged weights of the best validation."""
        self.ema.assign(self.best_weights)

    # ---- what Lightning calls

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Learn which share of the batches is that of this process."""
        self.batches.rank, self.batches.world_size = trainer.global_rank, trainer.world_size

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock and listen to signals.

        Raises
        ------
        InputError
            Processes have found different checkpoints.
        """
        _check_steps(self.progress.step, trainer.world_size)
        self.ema.to(pl_module.device)
        own = [0.0, 0.0, self.progress.elapsed * trainer.is_global_zero]
        self.module.signals = torch.tensor(own, dtype=torch.float64, device=pl_module.device)
        self.module.sums = self.module.sums.to(pl_module.device)
        self._elapsed_before = self.progress.elapsed
        self._started = self._saved_at = time.monotonic()
        in_main_thread = threading.current_thread() is threading.main_thread()
        for number in _SIGNALS if in_main_thread else ():
            self._handlers[number] = signal.signal(number, self._request_stop)
        self.folder.start_log(self.progress.history)
        self.display.start(self.progress.step, self.progress.elapsed)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the learning rate of the step."""
        rate = self.schedule.learning_rate(self.progress.step, self.progress.elapsed)
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = rate

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: tuple[Any, Targets],
        batch_idx: int,
    ) -> None:
        """Count the step; stop or save where that was asked for or is due."""
        self.ema.update()
        progress = self.progress
        progress.step += 1
        progress.batch += 1
        stop, save, progress.elapsed = self._signals(trainer)
        if stop:
            self.save()
            raise Interrupted
        last_of_epoch = progress.batch >= self.batches.num_batches
        if self.config.max_time is not None and progress.elapsed >= self.config.max_time:
            trainer.should_stop = True
        elif save and not last_of_epoch:
            self.save()
        self.display.step(progress.step, progress.epoch, progress.elapsed)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate, log and save."""
        progress = self.progress
        progress.epoch += 1
        progress.batch = self.batches.start = 0
        self.batches.epoch = progress.epoch
        ending = self.ending()
        if progress.epoch % self.val_interval == 0 or ending:
            self._validate(trainer)
            ending = self.ending()
        if ending or self._save_due(_SAVE_SHARE):
            self.save()
        trainer.should_stop = ending is not None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the signals and the terminal back."""
        self._close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Give the signals and the terminal back."""
        self._close()

    # ---- parts

    def _close(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()
        self.display.close()

    def _validate(self, trainer: Trainer) -> None:
        progress = self.progress
        train_loss, train_errors = self.module.take_sums()
        with self.ema.applied():
            predictions = self.predict()
        loss = self.module.loss
        terms = loss.terms(predictions.output, predictions.targets)
        val_loss = float(loss.total(terms.penalty, terms.labels))
        if not (math.isfinite(train_loss) and math.isfinite(val_loss)):
            raise _diverged(progress)
        improved = val_loss < progress.best_loss
        if improved:
            progress.best_loss, progress.best_epoch = val_loss, progress.epoch
            progress.bad_validations = 0
            self.best_weights = [tensor.clone() for tensor in self.ema.average]
        else:
            progress.bad_validations += 1
        self.schedule.validated(val_loss)
        row = {
            "epoch": progress.epoch,
            "step": progress.step,
            "seconds": round(progress.elapsed, 2),
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "train_loss": train_loss,
            "val_loss": val_loss,
        }
        found = errors(predictions, self.module.potential.elements)
        for name, value in zip(_TRAINING_ERRORS, train_errors, strict=True):
            if name in found:
                row[f"train_{name}"] = 1000.0 * value
        row |= {
            f"val_{key}": value
            for key, value in found.items()
            if isinstance(value, float) and key.split("_", 1)[0] in ("energy", "forces", "stress")
        }
        progress.history.append(row)
        self.folder.append_log(row)
        for logger in trainer.loggers:
            logger.log_metrics(
                {k: v for k, v in row.items() if k not in ("step", "epoch")}, step=progress.step
            )
        self.display.validated(row, improved, progress.best_epoch)

    def _signals(self, trainer: Trainer) -> tuple[bool, bool, float]:
        """Exchange requests and the clock with the other processes (with the next step)."""
        elapsed = self._elapsed_before + time.monotonic() - self._started
        save = self._save_due(math.inf, self.config.checkpoint_minutes * 60.0)
        if trainer.world_size == 1:
            return self._stop_requested, save, elapsed
        stop_all, save_all, elapsed_all = self.module.signals.tolist()
        first = float(trainer.is_global_zero)
        own = [float(self._stop_requested), first * save, first * elapsed]
        self.module.signals.copy_(torch.tensor(own, dtype=torch.float64))
        return stop_all > 0, save_all > 0, elapsed_all

    def _save_due(self, share: float, interval: float = 0.0) -> bool:
        since = time.monotonic() - self._saved_at
        return since >= max(interval, self._save_cost / share)

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        """Stop after the present step; a second Ctrl-C ends the process at once."""
        self._stop_requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _check_steps(step: int, world_size: int) -> None:
    """Check that all processes go on from the same step."""
    steps: list[Any] = [step] * world_size
    if world_size > 1:
        dist.all_gather_object(steps, step)
    if len(set(steps)) > 1:
        raise InputError(
            f"the processes would go on from different steps ({', '.join(map(str, steps))}): the "
            "run folder must be on a disk that all nodes share"
        )


def _diverged(progress: Progress) -> InputError:
    return InputError(
        f"training diverged in epoch {progress.epoch + 1} (the loss is not finite); the last "
        "checkpoint is from before: start a new run with a smaller training.learning_rate, a "
        "training.gradient_clip or training.warmup_epochs"
    )
