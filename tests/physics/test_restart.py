"""A run that was killed (really: SIGKILL) and started again is the run that was not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-c", "from openmm_nequip.cli import main; main()", "simulate"]


def rows(folder: Path) -> list[str]:
    return [line.rpartition(",")[0] for line in (folder / "state.csv").read_text().splitlines()]


@pytest.mark.slow
def test_killed_and_interrupted_runs_go_on_as_if_nothing_had_happened(trained, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text(
        f"structure: ethanol\npotential: {trained}\nsteps: 600\nlog_interval: 2\n"
        "trajectory_interval: 3\ncheckpoint_interval: 50\nfriction: 10\n"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def start(folder: str) -> subprocess.Popen:
        command = [*COMMAND, str(config), f"output={tmp_path / folder}"]
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def stop_after(number: int, count: int) -> tuple[int, str]:
        process = start("parts")
        log = tmp_path / "parts" / "state.csv"
        began = len(log.read_text().splitlines()) if log.exists() else 0
        deadline = time.monotonic() + 900
        while time.monotonic() < deadline and process.poll() is None:
            if log.exists() and len(log.read_text().splitlines()) > max(began, count):
                process.send_signal(number)
                break
            time.sleep(0.02)
        output, _ = process.communicate(timeout=900)
        return process.returncode, output

    whole = start("whole")
    assert whole.communicate(timeout=900)[0].count("report.html") == 1
    assert whole.returncode == 0
    returncode, _ = stop_after(signal.SIGKILL, 60)
    assert returncode == -signal.SIGKILL
    returncode, output = stop_after(signal.SIGINT, 150)
    assert returncode == 130
    assert "the same command goes on from there" in output
    last = start("parts")
    assert "going on from step" in last.communicate(timeout=900)[0]
    assert last.returncode == 0

    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    frames = [(tmp_path / run / "trajectory.dcd").read_bytes()[276:] for run in ("parts", "whole")]
    assert frames[0] == frames[1]
