"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
import torch

# Small systems, and several processes share the machine: those that tests start included.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def reference_data() -> Path:
    """Folder of reference data beside the checkout; tests that need it skip where it is absent."""
    beside = Path(__file__).parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("OPENMM_NEQUIP_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no reference data at {folder} (set OPENMM_NEQUIP_DATA)")
    return folder
