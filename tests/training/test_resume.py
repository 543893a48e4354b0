"""A run that was stopped, however roughly, ends with the weights of one that was not."""

import csv
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from openmm_nequip.config import load_config
from openmm_nequip.errors import InputError
from openmm_nequip.training.config import TrainConfig
from openmm_nequip.training.loop import Interrupted, TrainingLoop
from openmm_nequip.training.run import train
from openmm_nequip.training.runfolder import RunFolder

from .conftest import TINY

# Runs the command line; with STEP it kills itself, or sends itself Ctrl-C, after that many steps.
RUNNER = """
import os, sys
import openmm_nequip.cli.train, openmm_nequip.cli.evaluate
from openmm_nequip.cli import app
from openmm_nequip.training.loop import TrainingLoop
step, number = int(sys.argv.pop(1)), int(sys.argv.pop(1))
original = TrainingLoop.on_train_batch_end
def count(self, *arguments):
    if self.progress.step + 1 == step:
        os.kill(os.getpid(), number)
    original(self, *arguments)
TrainingLoop.on_train_batch_end = count
app()
"""


@pytest.fixture
def config_file(tmp_path: Path, cluster_file: Path) -> Path:
    path = tmp_path / "run.yaml"
    values = {
        "data": {"file": str(cluster_file), "n_train": 23, "n_val": 10},
        "model": TINY,
        "training": {"max_epochs": 9, "batch_size": 4, "val_interval": 2, "num_threads": 1},
        "name": "tiny",
    }
    path.write_text(yaml.safe_dump(values))
    return path


def command(config_file: Path, *overrides: str, step: int = -1, number: int = 0):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", RUNNER, str(step), str(number), "train", config_file, *overrides],
        capture_output=True,
        text=True,
        env=environment,
        timeout=600,
    )


def run_here(config_file: Path, output: Path, *overrides: str) -> dict[str, torch.Tensor]:
    config = load_config(TrainConfig, config_file, overrides)
    return load_file(train(config, output))


def run_there(config_file: Path, output: Path, *overrides: str) -> dict[str, torch.Tensor]:
    assert command(config_file, *overrides, f"output={output}").returncode == 0
    return load_file(output / "tiny.safetensors")


def stop_here(config_file: Path, output: Path, step: int) -> None:
    """Train in this process and stop after `step` steps, as after Ctrl-C."""
    original = TrainingLoop.on_train_batch_end

    def count(self, *arguments):
        self._stop_requested = self.progress.step + 1 == step
        original(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingLoop, "on_train_batch_end", count)
        with pytest.raises(Interrupted):
            run_here(config_file, output)


def logged(output: Path) -> list[dict[str, str]]:
    with (output / "log.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    ("schedule", "minutes", "optimizer"),
    [("cosine", 5.0, "adam"), ("plateau", 1e-9, "adam"), ("plateau", 1e-9, "soap")],
    ids=["epoch", "mid-epoch", "soap"],
)
def test_killed_run_goes_on_exactly(tmp_path, config_file, schedule, minutes, optimizer):
    overrides = (
        f"training.optimizer={optimizer}",
        f"training.schedule={schedule}",
        "training.schedule_patience=0",
        f"training.checkpoint_minutes={minutes}",
    )
    whole = run_there(config_file, tmp_path / "whole", *overrides)

    killed = command(
        config_file, *overrides, f"output={tmp_path / 'killed'}", step=28, number=signal.SIGKILL
    )
    assert killed.returncode == -signal.SIGKILL
    state = torch.load(tmp_path / "killed/checkpoints/last.ckpt", weights_only=True)
    assert state["progress"]["step"] < 28
    if minutes < 1:
        assert state["progress"]["batch"] == 3  # step 27 of 6 steps per epoch
    assert not (tmp_path / "killed/metrics.json").exists()

    resumed = run_there(config_file, tmp_path / "killed", *overrides)
    assert whole.keys() == resumed.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name
    assert logged(tmp_path / "whole") == logged(tmp_path / "killed")


def test_interrupt_saves_and_says_how_to_go_on(tmp_path, config_file):
    output = tmp_path / "stopped"
    stopped = command(config_file, f"output={output}", step=20, number=signal.SIGINT)
    assert stopped.returncode == 130
    assert "same command goes on" in stopped.stdout
    assert "Traceback" not in stopped.stderr
    state = torch.load(output / "checkpoints/last.ckpt", weights_only=True)
    assert state["progress"]["step"] == 20

    resumed = run_here(config_file, output)
    whole = run_here(config_file, tmp_path / "whole")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_interrupt_between_epochs(tmp_path, config_file):
    before = signal.getsignal(signal.SIGINT)
    stop_here(config_file, tmp_path / "stopped", step=12)  # the last of the second epoch
    assert signal.getsignal(signal.SIGINT) is before
    resumed = run_here(config_file, tmp_path / "stopped")
    whole = run_here(config_file, tmp_path / "whole")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert logged(tmp_path / "whole") == logged(tmp_path / "stopped")


def test_finished_folder_is_refused(tmp_path, config_file):
    run_here(config_file, tmp_path / "done", "training.max_epochs=1")
    before = {p: p.read_bytes() for p in (tmp_path / "done").rglob("*") if p.is_file()}
    with pytest.raises(InputError, match=r"finished .* output="):
        run_here(config_file, tmp_path / "done", "training.max_epochs=1")
    assert before == {p: p.read_bytes() for p in (tmp_path / "done").rglob("*") if p.is_file()}


def test_changed_configuration_is_refused_in_an_unfinished_folder(tmp_path, config_file):
    output = tmp_path / "changed"
    stop_here(config_file, output, step=8)
    with pytest.raises(InputError, match=r"training\.learning_rate: 0\.02 -> 0\.002"):
        run_here(config_file, output, "training.learning_rate=0.002")
    with pytest.raises(InputError, match=r"model\.num_layers: 2 -> 3"):
        run_here(config_file, output, "model.num_layers=3")
    moved = tmp_path / "moved"  # the name may, and the last digits of what the data say
    output.rename(moved)
    text = (moved / "config.yaml").read_text()
    scale = re.search(r"per_type_energy_shifts:\n\s+Cu: (\S+)", text)[1]
    (moved / "config.yaml").write_text(text.replace(scale, repr(float(scale) * (1 + 1e-12))))
    run_here(config_file, moved, "training.max_epochs=3")  # and the length


def test_damaged_checkpoint_and_foreign_folder(tmp_path, config_file):
    output = tmp_path / "damaged"
    stop_here(config_file, output, step=8)
    checkpoint = output / "checkpoints/last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"last\.ckpt.* cannot be read"):
        run_here(config_file, output)

    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="not of a training run"):
        run_here(config_file, tmp_path / "other")


def test_folder_in_use_is_refused(tmp_path, config_file):
    running = RunFolder(tmp_path / "busy")
    with pytest.raises(InputError, match="another process"):
        run_here(config_file, tmp_path / "busy")
    running.release()
    run_here(config_file, tmp_path / "busy", "training.max_epochs=1")


def test_changed_data_is_refused_in_an_unfinished_folder(tmp_path, config_file, cluster_file):
    mine = tmp_path / "mine.xyz"
    text = cluster_file.read_text()
    mine.write_text(text)
    config_file.write_text(config_file.read_text().replace(str(cluster_file), str(mine)))
    stop_here(config_file, tmp_path / "run", step=8)
    mine.write_text(text.replace("energy=", "energy=1", 1))
    with pytest.raises(InputError, match="data has changed"):
        run_here(config_file, tmp_path / "run")


def test_run_killed_while_finishing_is_finished_later(tmp_path, config_file, monkeypatch):
    whole = run_here(config_file, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("openmm_nequip.training.plots.parity", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_here(config_file, tmp_path / "run")
    resumed = run_here(config_file, tmp_path / "run")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert logged(tmp_path / "whole") == logged(tmp_path / "run")
