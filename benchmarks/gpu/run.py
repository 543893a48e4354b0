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

import torch  # first: OpenMM's plugin needs the CUDA libraries that come with it

# isort: split
import openmm
import platforms
import speed
import typer
from correct import check_forces, check_kernels, compile_kernels, kernel_keys, run_tests
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
    """All items, by subject; `small` ones show on any machine that the items can be measured.

    Kernels come before what needs them: the first call of each is compiled, which takes seconds and
    is kept on the disk.
    """

    def __init__(self, report: Report, device: str, small: bool):
        self.report, self.measure = report, report.measure
        self.device, self.platform, self.small = device, fastest_platform(device), small
        self.counts = [21, 192] if small else [21, 192, 3000, 30000]
        self.seconds = 0.01 if small else 1.0
        self.forces: list[str] = []

    def most_important(self) -> None:
        """Is it right, and how fast is the size that most use?"""
        self.measure("machine", speed.ceilings, self.device, *((4, 64) if self.small else ()))
        sizes, processes = (["S"], 2) if self.small else (["S", "M", "L"], 12)
        self.measure("compile", compile_kernels, sizes, self.device, processes, limit=240)
        self.kernels("S")
        for force in KINDS:
            item = self.measure(f"works/{force}", platforms.check_force, force, self.device,
                                self.platform, limit=120)  # fmt: skip
            if not {"error", "skipped"} & item.keys():
                self.forces.append(force)
        self.simulations("mixed")
        self.steps("S")
        self.training(["S"], (2,) if self.small else (5, 32))
        self.tests()

    def the_rest(self) -> None:
        """Larger networks, other precisions, other implementations, limits."""
        for size in ("M", "L"):
            self.kernels(size)
            self.steps(size)
        for precision in ("single", "double"):
            self.simulations(precision)
        self.training(["M", "L"], (5, 32, 256))
        for engine in ("fused", "nequip"):
            seconds = min(145.0, self.report.left() - 5)
            self.measure(f"train/program/aspirin/5/{engine}", speed.train_program, engine,
                         self.device, 6, seconds, limit=150)  # fmt: skip
        self.peers()
        speed.largest(self.report, "S", "fused", self.device, 99_999, 3_200_000)
        speed.largest(self.report, "S", "reference", self.device, 24_000, 800_000)

    def kernels(self, size: str) -> None:
        """Every operator of every layer, and the forces that they make."""
        dtypes = [torch.float32, torch.float64] if size == "S" else [torch.float32]
        for (k, key), dtype in product(enumerate(kernel_keys(size)), dtypes):
            name = f"kernels/{size}/{k}/{str(dtype).removeprefix('torch.')}"
            self.measure(name, check_kernels, key, dtype, self.device, limit=120)
        self.measure(f"forces/{size}", check_forces, size, 192, self.device, limit=120)

    def simulations(self, precision: str) -> None:
        """Every force in OpenMM, alone and beside a force field."""
        waters = 250 if self.small else 500
        steps = 30 if self.small else 400
        structures = ["aspirin", "water"] + ["large water"] * (not self.small)
        for force in self.forces:
            name, how = f"openmm/{force}/{precision}", (force, precision, self.platform)
            for structure, engine in product(structures, ("fused", "reference")):
                check = f"{name}/{structure}/{engine}"
                self.measure(check, platforms.check_platform, structure, engine, *how)
            self.measure(f"{name}/ML-MM", platforms.check_mixed, *how, waters)
            self.measure(f"{name}/restart", platforms.check_restart, *how)
            self.measure(f"{name}/NVE", platforms.check_energy_conservation, *how, 3 * steps)
            if precision == "mixed":
                self.measure(f"openmm/{force}/NPT", platforms.check_barostat, force, self.platform,
                             waters, steps)  # fmt: skip
        if precision == "mixed" and "torch" in self.forces:
            for engine in ("fused", "reference"):
                name = f"openmm/torch/useCUDAGraphs/{engine}"
                self.measure(name, platforms.check_cuda_graphs, engine, self.platform)
                self.report.worker.stop()  # a capture that fails may leave the GPU in disorder

    def steps(self, size: str) -> None:
        """Steps in OpenMM and of the network alone, by the fused engine."""
        where = (self.device, self.platform, self.seconds)
        for atoms, force in product(self.counts, self.forces):
            name = f"md/{size}/{atoms}/{force}"
            self.measure(name, platforms.time_pure, size, atoms, force, *where, limit=90)
        waters = 250 if self.small else 2000
        for force in self.forces if size == "S" else ():
            name = f"md/organic-small/22 in {waters} waters/{force}"
            self.measure(name, platforms.time_mixed, waters, force, *where)
        for atoms in self.counts:
            name, what = f"step/{size}/{atoms}/fused", (size, atoms)
            self.measure(name, speed.step, *what, "fused", self.device, self.seconds, limit=90)
            if atoms <= MOST_ATOMS:
                self.measure(f"{name}, graph", speed.replay, *what, self.device, self.seconds)
        for atoms in self.counts[::2]:
            what = (size, atoms, "fused", self.device)
            self.measure(f"profile/{size}/{atoms}", speed.profile, *what)

    def tests(self) -> None:
        """The tests of the repository that say what a potential is."""
        chosen = ["-k", "test_permutation and l0"] if self.small else []
        chosen += ["--ignore", "tests/conformance/test_checks_can_fail.py"]  # they are of the CPU
        processes, seconds = (1, 1200.0) if self.small else (8, 90.0)
        self.measure("tests/conformance", run_tests, ["tests/conformance", *chosen], self.device,
                     processes, seconds, limit=seconds + 30)  # fmt: skip

    def training(self, sizes: list[str], batches: tuple[int, ...]) -> None:
        """Frames per second of optimizer steps."""
        molecules, engines = ("ethanol", "aspirin", "3bpa"), ("fused", "reference")
        for size, name, batch, engine in product(sizes, molecules, batches, engines):
            self.measure(f"train/{size}/{name}/{batch}/{engine}", speed.train, size, name, batch,
                         engine, self.device, self.seconds, limit=90)  # fmt: skip

    def peers(self) -> None:
        """The network alone, by everything else that is installed."""
        counts = [n for n in self.counts if n < 30000]
        engines = [name for name in ENGINES if name != "fused"] + list(speed.COMPILED)
        for size, atoms, engine in product(("S", "M", "L"), counts, engines):
            name = f"step/{size}/{atoms}/{engine}"
            self.measure(name, speed.step, size, atoms, engine, self.device, self.seconds,
                         limit=75)  # fmt: skip


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
    if device.startswith("cuda") and fastest_platform(device) != "CUDA":
        failures = " ".join(" ".join(openmm.Platform.getPluginLoadFailures()).split())
        raise InputError(f"OpenMM has no CUDA platform here: {failures or 'not installed'}")
    if output.exists():
        raise InputError(f"'{output}' exists: give another --output")
    names = [*only, "machine", "compile", "works"] if only else []
    report = Report(output, seconds, device, names, patience=20.0 if small else 1.0)
    measurements = Measurements(report, device, small)
    try:
        measurements.most_important()
        if not small:
            measurements.the_rest()
    finally:
        report.worker.stop()
    print_summary(report.document)


if __name__ == "__main__":
    with clear_errors():
        app()
