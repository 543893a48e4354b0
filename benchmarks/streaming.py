"""Stream a data set that need not fit into memory, and measure the memory it takes.

Writes an extended XYZ file of distorted ethanol molecules, packs it into a store with its
neighbour lists, goes through the store in shuffled batches, and prints what each stage took::

    python benchmarks/streaming.py --frames 100000

``peak_mb`` is the largest resident memory of the process up to the end of the stage;
``in_memory_mb`` is what the graphs and targets of all frames would take at once.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from ase.build import molecule
from torch.utils.data import DataLoader

from openmm_nequip.data.dataset import collate_batch
from openmm_nequip.data.readers import iter_frames
from openmm_nequip.data.store import StoreDataset, write_store


def peak_mb() -> float:
    """Return the largest resident memory of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def write_extxyz(path: Path, frames: int) -> None:
    """Write random distortions of ethanol with random labels."""
    ethanol = molecule("CH3CH2OH")
    rng = np.random.default_rng(0)
    with path.open("w") as file:
        for _ in range(frames):
            positions = ethanol.positions + 0.05 * rng.normal(size=(9, 3))
            rows = np.hstack([positions, rng.normal(size=(9, 3))])
            file.write(f"9\nProperties=species:S:1:pos:R:3:forces:R:3 energy={rng.normal():.8f}\n")
            for symbol, row in zip(ethanol.symbols, rows, strict=True):
                file.write(symbol + " " + " ".join(f"{x:.8f}" for x in row) + "\n")


def main() -> None:
    """Run the three stages and print a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--r-max", type=float, default=5.0)
    arguments = parser.parse_args()
    report: dict = {"frames": arguments.frames, "start": {"peak_mb": peak_mb()}}

    with tempfile.TemporaryDirectory() as folder:
        source, path = Path(folder, "data.xyz"), Path(folder, "data.h5")
        write_extxyz(source, arguments.frames)

        start = time.perf_counter()
        write_store(iter_frames(source), path, ["H", "C", "O"], arguments.r_max)
        report["store"] = {
            "seconds": time.perf_counter() - start,
            "peak_mb": peak_mb(),
            "file_mb": path.stat().st_size / 1e6,
        }

        start = time.perf_counter()
        store = StoreDataset(path)
        order = torch.Generator().manual_seed(0)
        loader = DataLoader(
            store, arguments.batch, shuffle=True, generator=order, collate_fn=collate_batch
        )
        seen = size = 0
        for graph, targets in loader:
            seen += len(targets.energy)
            size += sum(t.numel() * t.element_size() for t in (*graph, *targets))
        report["epoch"] = {"seconds": time.perf_counter() - start, "peak_mb": peak_mb()}
        report["frames_seen"] = seen
        report["in_memory_mb"] = size / 1e6
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
