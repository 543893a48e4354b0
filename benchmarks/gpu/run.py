"""Everything that users do on a GPU: whether it is right there, and how fast.

Needs a CUDA GPU, and stops within eight minutes with what it has by then::

    python benchmarks/gpu/run.py --output gpu.json

Writes the JSON file and a log beside it, machine and versions included. Every item is measured for
itself: one that fails, hangs or takes its process down is recorded with its error and harms no
other; ``--only`` takes those whose names begin so. What is not installed (openmm-torch, nequip,
OpenEquivariance, ...) is skipped, and said. Networks have random weights, but where molecules have
to stay together.
"""

from itertools import product
from pathlib import Path
from typing import Annotated

import platforms
import speed
import torch
import typer
from correct import check_forces, check_kernels, kernel_keys, run_tests
from report import Report
from rich.console import Console
from rich.table import Table

from openmm_nequip.benchmarking.engines import ENGINES
from openmm_nequip.benchmarking.md import fastest_platform
from openmm_nequip.cli import clear_errors
from openmm_nequip.errors import InputError
from openmm_nequip.kernels.replay import MOST_ATOMS
from openmm_nequip.md.probe import KINDS

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Measurements:
    """All items, by subject; `small` ones show on any machine that the items can be measured."""

    def __init__(self, report: Report, device: str, small: bool):
        self.report, self.measure = report, report.measure
        self.device, self.platform, self.small = device, fastest_platform(device), small
        self.sizes = ["S"] if small else ["S", "M", "L"]
        self.counts = [21, 192] if small else [21, 192, 3000, 30000]
        self.seconds = 0.01 if small else 1.0
        self.forces: list[str] = []

    def machine(self) -> None:
        """What it can do at most, and which of OpenMM's forces work on it."""
        sizes = (4, 64) if self.small else ()
        self.measure("machine", speed.ceilings, self.device, *sizes)
        for force in KINDS:
            item = self.measure(f"works/{force}", platforms.check_force, force, self.platform)
            if not {"error", "skipped"} & item.keys():
                self.forces.append(force)

    def simulations(self) -> None:
        """Every force in OpenMM, alone and beside a force field, in every precision."""
        waters = 250 if self.small else 500
        steps = 30 if self.small else 400
        for force in self.forces:
            on = (force, self.platform)
            for precision in ["mixed"] if self.small else ["single", "mixed", "double"]:
                name, how = f"openmm/{force}/{precision}", (force, precision, self.platform)
                for structure, engine in product(("aspirin", "water"), ("fused", "reference")):
                    check = f"{name}/{structure}/{engine}"
                    self.measure(check, platforms.check_platform, structure, engine, *how)
                self.measure(f"{name}/ML-MM", platforms.check_mixed, *how, waters)
                self.measure(f"{name}/restart", platforms.check_restart, *how)
                self.measure(f"{name}/NVE", platforms.check_energy_conservation, *how, 10 * steps)
            self.measure(f"openmm/{force}/NPT", platforms.check_barostat, *on, waters, steps)
        for engine in ("fused", "reference") if "torch" in self.forces else ():
            name = f"openmm/torch/useCUDAGraphs/{engine}"
            self.measure(name, platforms.check_cuda_graphs, engine, self.platform)

    def steps(self) -> None:
        """Steps in OpenMM and of the network alone, by the fused engine."""
        where = (self.device, self.platform, self.seconds)
        for size, atoms, force in product(self.sizes, self.counts, self.forces):
            name = f"md/{size}/{atoms}/{force}"
            self.measure(name, platforms.time_pure, size, atoms, force, *where)
        waters = 250 if self.small else 2000
        for force in self.forces:
            name = f"md/organic-small/22 in {waters} waters/{force}"
            self.measure(name, platforms.time_mixed, waters, force, *where)
        for size, atoms in product(self.sizes, self.counts):
            name, what = f"step/{size}/{atoms}/fused", (size, atoms)
            self.measure(name, speed.step, *what, "fused", self.device, self.seconds)
            if atoms <= MOST_ATOMS:
                self.measure(f"{name}, graph", speed.replay, *what, self.device, self.seconds)
        for size, atoms in (("S", 21), (self.sizes[-1], self.counts[-1] // 10)):
            what = (size, 3 * (atoms // 3), "fused")
            self.measure(f"profile/{size}/{atoms}", speed.profile, *what, self.device)

    def kernels(self) -> None:
        """Every operator of every layer, and the forces that they make."""
        for size in self.sizes:
            dtypes = [torch.float32, torch.float64] if size == "S" else [torch.float32]
            for (k, key), dtype in product(enumerate(kernel_keys(size)), dtypes):
                name = f"kernels/{size}/{k}/{str(dtype).removeprefix('torch.')}"
                self.measure(name, check_kernels, key, dtype, self.device, limit=90)
            self.measure(f"forces/{size}", check_forces, size, 192, self.device)

    def tests(self) -> None:
        """The tests of the repository that say what a potential is."""
        chosen = ["-k", "test_permutation and l0"] if self.small else []
        chosen += ["--ignore", "tests/conformance/test_checks_can_fail.py"]  # they are of the CPU
        processes = 1 if self.small else 8
        self.measure("tests/conformance", run_tests, ["tests/conformance", *chosen], self.device,
                     processes, limit=120)  # fmt: skip

    def training(self) -> None:
        """Frames per second of optimizer steps, and of the whole commands."""
        size, batches = self.sizes[-1], (2,) if self.small else (5, 32, 256)
        molecules, engines = ("ethanol", "aspirin", "3bpa"), ("fused", "reference")
        for name, batch, engine in product(molecules, batches, engines):
            self.measure(f"train/{size}/{name}/{batch}/{engine}", speed.train, size, name, batch,
                         engine, self.device, self.seconds, limit=40)  # fmt: skip
        for engine in () if self.small else ("fused", "nequip"):
            self.measure(f"train/program/aspirin/5/{engine}", speed.train_program, engine,
                         self.device, 6, 145.0, limit=150)  # fmt: skip

    def peers(self) -> None:
        """The network alone, by everything else that is installed; then how large it may be."""
        counts = [n for n in self.counts if n < 30000]
        engines = [name for name in ENGINES if name != "fused"] + list(speed.COMPILED)
        for size, atoms, engine in product(self.sizes, counts, engines):
            if not self.small or engine == "reference":
                name = f"step/{size}/{atoms}/{engine}"
                self.measure(name, speed.step, size, atoms, engine, self.device, self.seconds,
                             limit=75)  # fmt: skip
        if not self.small:
            speed.largest(self.report, "S", "fused", self.device, 99_999, 3_200_000)
            speed.largest(self.report, "S", "reference", self.device, 24_000, 800_000)


def print_summary(document: dict) -> None:
    """Print times of steps beside each other, and what did not work."""
    console = Console(soft_wrap=True, highlight=False)
    for kind, title in (("md", "ms per step in OpenMM"), ("step", "ms per evaluation")):
        rows: dict[tuple[str, str], dict[str, str]] = {}
        for item in document["items"]:
            first, *parts = item["name"].split("/")
            if first == kind and "ms" in item:
                rows.setdefault((parts[0], parts[1]), {})[parts[2]] = f"{item['ms']:.3f}"
        if rows:
            columns = list(dict.fromkeys(name for found in rows.values() for name in found))
            table = Table(title=title, title_justify="left")
            for name in ("network", "atoms", *columns):
                table.add_column(name, justify="right" if name in columns else "left")
            for (size, atoms), found in rows.items():
                table.add_row(size, atoms, *(found.get(name, "-") for name in columns))
            console.print(table)
    for what in ("error", "skipped"):
        for item in document["items"]:
            if what in item:
                console.print(f"{what}: {item['name']}: {item[what]}", markup=False)


@app.command(help=__doc__)
def main(
    output: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("gpu.json"),
    seconds: Annotated[float, typer.Option(help="Stop after this time.")] = 450.0,
    only: Annotated[list[str] | None, typer.Option(help="Parts to measure. [all]")] = None,
    device: Annotated[str, typer.Option(hidden=True)] = "cuda",
    small: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError("PyTorch finds no CUDA GPU on this machine")
    if output.exists():
        raise InputError(f"'{output}' exists: give another --output")
    report = Report(output, seconds, device, [*only, "machine", "works"] if only else [])
    all_of_it = Measurements(report, device, small)
    try:
        all_of_it.machine()
        all_of_it.simulations()
        all_of_it.steps()
        all_of_it.kernels()
        all_of_it.tests()
        all_of_it.training()
        all_of_it.peers()
    finally:
        report.worker.stop()
    print_summary(report.document)


if __name__ == "__main__":
    with clear_errors():
        app()
