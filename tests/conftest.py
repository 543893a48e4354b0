"""Fixtures shared by all tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# Small systems, and several processes share the machine: those that tests start included.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)


class ReferenceData:
    """Published data beside the checkout, of which all, some or nothing may be there."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __truediv__(self, name: str) -> Path:
        """Return a file or folder of it; a test that asks for what is not there is skipped."""
        return self.with_all(name) / name

    def with_all(self, *names: str) -> Path:
        """Return the folder, for a test that needs all of these and is skipped without."""
        if missing := [name for name in names if not (self.folder / name).exists()]:
            pytest.skip(f"no {', '.join(missing)} in {self.folder} (set OPENMM_NEQUIP_DATA)")
        return self.folder


@pytest.fixture(scope="session")
def reference_data() -> ReferenceData:
    """Reference data: ``reference_data / "rmd17/x.npz"`` skips a test where that is absent."""
    beside = Path(__file__).parents[1].parent / "shared" / "data"
    return ReferenceData(Path(os.environ.get("OPENMM_NEQUIP_DATA", beside)))


@pytest.fixture
def several_threads() -> Iterator[int]:
    """Return how many threads Numba has; one compared with itself would claim nothing."""
    import numba

    count = numba.config.NUMBA_NUM_THREADS
    if count == 1:
        pytest.skip("one thread only (NUMBA_NUM_THREADS)")
    before = numba.get_num_threads()
    yield count
    numba.set_num_threads(before)
