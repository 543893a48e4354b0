"""The clock that runs along with a training run of Lightning."""

import json
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class StepTimes(Callback):
    """Notes when every optimizer step ends, and writes a JSON list of epoch and seconds.

    Parameters
    ----------
    path
        File to write when training ends.
    """

    def __init__(self, path: str):
        self.path = Path(path)
        self.ends: list[tuple[int, float]] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Note the time."""
        self.ends.append((trainer.current_epoch, time.perf_counter()))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file."""
        self.path.write_text(json.dumps(self.ends))
