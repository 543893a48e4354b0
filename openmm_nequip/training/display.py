"""Live progress: a panel on a terminal, plain lines elsewhere."""

import math
import sys
import time

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from ..units import format_seconds

_REFRESH = 0.25  # seconds between updates of the panel
_LINE_INTERVAL = 10.0  # seconds between plain lines


class Display:
    """Shows where a run stands.

    Parameters
    ----------
    max_epochs, steps_per_epoch, frames_per_epoch
        Size of the run.
    max_time
        Time limit in seconds, if any.
    shows
        Whether this process shows anything.
    """

    def __init__(
        self,
        max_epochs: int,
        steps_per_epoch: int,
        frames_per_epoch: int,
        max_time: float | None = None,
        shows: bool = True,
    ):
        self.max_epochs = max_epochs
        self.total_steps = max_epochs * steps_per_epoch
        self.frames_per_step = frames_per_epoch / steps_per_epoch
        self.max_time = max_time
        self.shows = shows
        self.console = Console(soft_wrap=True)
        self._live: Live | None = None
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(None),
            TextColumn("{task.fields[rate]}  {task.fields[left]}"),
            expand=True,
        )
        self._task = self._bar.add_task("starting", total=self.total_steps, rate="", left="")
        self._row: dict[str, float] = {}
        self._best_epoch = 0
        self._first = (0, 0.0)
        self._last_update = -math.inf
        self._last_line = -math.inf
        self._rate = 0.0
        self._left = math.nan

    def start(self, step: int, elapsed: float) -> None:
        """Begin at a step, `elapsed` seconds into the run."""
        self._first = (step, elapsed)
        if self.shows and sys.stdout.isatty():
            self._live = Live(console=self.console, auto_refresh=False)
            self._live.start()

    def step(self, step: int, epoch: int, elapsed: float) -> None:
        """Take note of a finished optimizer step."""
        now = time.monotonic()
        if not self.shows or now - self._last_update < _REFRESH:
            return
        self._last_update = now
        steps, seconds = step - self._first[0], elapsed - self._first[1]
        if steps and seconds > 0:
            self._rate = steps * self.frames_per_step / seconds
            self._left = (self.total_steps - step) * seconds / steps
            if self.max_time is not None:
                self._left = min(self._left, self.max_time - elapsed)
        if self._live is not None:
            self._bar.update(
                self._task,
                completed=step,
                description=f"epoch {min(epoch + 1, self.max_epochs)}/{self.max_epochs}",
                rate=f"{self._rate:.1f} frames/s",
                left=f"{format_seconds(self._left)} left",
            )
            self._refresh()

    def validated(self, row: dict[str, float], improved: bool, best_epoch: int) -> None:
        """Take note of a validation, as logged."""
        self._row, self._best_epoch = row, best_epoch
        now = time.monotonic()
        last = row["epoch"] >= self.max_epochs
        if not self.shows:
            return
        if self._live is not None:
            self._refresh()
            return
        if now - self._last_line < _LINE_INTERVAL and not last:
            return
        self._last_line = now
        parts = [
            f"epoch {row['epoch']:.0f}/{self.max_epochs}",
            f"loss {row['train_loss']:.3g} / {row['val_loss']:.3g}",
            *(f"{name} {train} / {val} {unit}" for name, train, val, unit in _errors(row)),
            f"lr {row['learning_rate']:.2g}",
            f"{self._rate:.1f} frames/s",
            f"{format_seconds(self._left)} left",
        ]
        if improved:
            parts.append("best")
        print("  ".join(parts), flush=True)

    def close(self) -> None:
        """Leave the last state on the screen."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _refresh(self) -> None:
        assert self._live is not None
        self._live.update(Group(self._table(), self._bar), refresh=True)

    def _table(self) -> Table:
        row = self._row
        table = Table(expand=False, title_justify="left")
        for name in ("", "training", "validation"):
            table.add_column(name, justify="right" if name else "left")
        if row:
            table.add_row("loss", f"{row['train_loss']:.4g}", f"{row['val_loss']:.4g}")
            for name, train, val, unit in _errors(row):
                table.add_row(f"{name} MAE, {unit}", train, val)
            table.add_row("best epoch", "", str(self._best_epoch))
            table.add_row("learning rate", f"{row['learning_rate']:.3g}", "")
        return table


def _errors(row: dict[str, float]) -> list[tuple[str, str, str, str]]:
    """Name, training error, validation error and unit of every quantity in a row of the log."""
    shown = []
    for name, key, unit in (
        ("energy", "energy_per_atom_mae_meV", "meV/atom"),
        ("forces", "forces_mae_meV_per_A", "meV/Å"),
        ("stress", "stress_mae_meV_per_A3", "meV/Å³"),
    ):
        if f"val_{key}" in row:
            train = row.get(f"train_{key}", math.nan)
            shown.append((name, f"{train:.2f}", f"{row[f'val_{key}']:.2f}", unit))
    return shown
