"""A set of 100,000 frames from file to batches in memory that does not grow with it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/streaming.py"


@pytest.mark.slow
def test_a_large_set_in_bounded_memory():
    command = [sys.executable, SCRIPT, "--frames", "100000"]
    report = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert report["frames_seen"] == 100_000
    assert report["in_memory_mb"] > 300
    grown = report["epoch"]["peak_mb"] - report["start"]["peak_mb"]
    assert grown < 100
