"""Train with exact radial functions and with splines: errors on held-out frames, time per step.

For ethanol and aspirin of rMD17, 50 frames, equal epochs, several seeds::

    export OPENMM_NEQUIP_DATA=<folder with rmd17/>
    python benchmarks/radial_spline.py errors runs/radial
    python benchmarks/radial_spline.py speed runs/radial
    python benchmarks/radial_spline.py table runs/radial

`errors` goes on where it was stopped and leaves out finished runs. `speed` wants an idle machine.
Everything found is in ``results.json`` of the folder, and the table in ``results.md``.
"""

import json
import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.progress import track

from openmm_nequip.config import parse_config
from openmm_nequip.data.dataset import collate_batch
from openmm_nequip.kernels.engine import choose_engine, set_num_threads
from openmm_nequip.training.config import TrainConfig
from openmm_nequip.training.loss import Loss
from openmm_nequip.training.preparation import Preparation
from openmm_nequip.training.run import train
from openmm_nequip.training.sets import Reader, load_sets, make_dataset
from openmm_nequip.versions import versions

EPOCHS = {"ethanol": 300, "aspirin": 200}
RADIAL: dict[str, dict[str, Any]] = {
    "exact": {"radial": "exact"},
    "spline, 32": {"radial": "spline", "radial_intervals": 32},
    "spline, 64": {"radial": "spline", "radial_intervals": 64},
    "spline, 128": {"radial": "spline", "radial_intervals": 128},
}
NETWORK = {"r_max": 4.0, "num_layers": 4, "l_max": 2, "parity": True, "num_features": 32}

app = typer.Typer(add_completion=False, help=__doc__)
Folder = Annotated[Path, typer.Argument(help="Folder of the runs and results.")]


def configuration(molecule: str, radial: str, seed: int, epochs: int) -> TrainConfig:
    """Return the configuration of one run."""
    data = f"${{OPENMM_NEQUIP_DATA}}/rmd17/rmd17_{molecule}"
    values = {
        "name": molecule,
        "seed": seed,
        "data": {
            "file": f"{data}_train_01.npz",
            "n_train": 50,
            "n_val": 50,
            "test_file": f"{data}_test_01.npz",
            "n_test": 500,
        },
        "model": NETWORK | RADIAL[radial],
        "training": {
            "max_epochs": epochs,
            "val_interval": max(1, epochs // 20),
            "optimizer": "adam",
            "loss": "mse",
        },
    }
    return parse_config(TrainConfig, values, where=__file__)


@app.command()
def errors(
    folder: Folder,
    seeds: Annotated[int, typer.Option(help="Runs of each kind.")] = 3,
    radial: Annotated[str, typer.Option(help="Which of them, separated by semicolons.")] = (
        "exact; spline, 64; spline, 128"
    ),
) -> None:
    """Train, and evaluate on 500 held-out frames."""
    kinds = [kind.strip() for kind in radial.split(";")]
    runs = [(s, m, kind) for s in range(1, seeds + 1) for m in EPOCHS for kind in kinds]
    results = load(folder)
    for seed, molecule, kind in track(runs, description="runs"):
        name = f"{molecule} | {kind} | {seed}"
        if name in results["errors"]:
            continue
        run = folder / name.replace(" ", "").replace("|", "-").replace(",", "")
        if not (run / "metrics.json").exists():
            train(configuration(molecule, kind, seed, EPOCHS[molecule]), run)
        metrics = json.loads((run / "metrics.json").read_text())
        results["errors"][name] = metrics["test"] | {"seconds": metrics["run"]["seconds"]}
        store(folder, results)


@app.command()
def speed(
    folder: Folder,
    repeats: Annotated[int, typer.Option(help="Epochs of each kind, in turns.")] = 5,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    """Measure training steps: medians over epochs that take turns."""
    results = load(folder)
    set_num_threads(threads)
    for molecule in EPOCHS:
        steps = {kind: training_steps(molecule, kind) for kind in RADIAL}
        times: dict[str, list[float]] = {kind: [] for kind in RADIAL}
        for _ in track(range(repeats + 1), description=molecule):
            for kind, epoch in steps.items():
                times[kind].append(epoch())
        for kind, found in times.items():  # the first epoch compiles
            results["speed"][f"{molecule} | {kind}"] = {
                "seconds_per_epoch": statistics.median(found[1:]),
                "threads": threads,
                "torch": torch.__version__,
            }
    store(folder, results)


def training_steps(molecule: str, kind: str) -> Any:
    """Return a function that trains for an epoch of 10 steps and returns the seconds it took."""
    config = configuration(molecule, kind, seed=1, epochs=1)
    preparation = Preparation(config)
    reader = Reader(config.data, preparation.r_max, Path(), lambda text: None)
    sets = load_sets(reader, config.seed)
    potential = preparation.build(sets)[0].with_engine(choose_engine("auto", "cpu")).train()
    dataset = make_dataset(sets.train, potential.elements, potential.r_max)
    batches = [collate_batch([dataset[k] for k in range(n, n + 5)]) for n in range(0, 50, 5)]
    loss = Loss(config.training)
    weights = [p for p in potential.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=1e-3, amsgrad=True, fused=True)

    def epoch() -> float:
        begin = time.perf_counter()
        for graph, targets in batches:
            terms = loss.terms(potential(graph), targets)
            optimizer.zero_grad()
            loss.total(terms.penalty, terms.labels).backward(inputs=weights)
            optimizer.step()
        return time.perf_counter() - begin

    return epoch


@app.command()
def table(folder: Folder) -> None:
    """Print the table."""
    results = load(folder)
    lines = [
        "| molecule | radial functions | forces, MAE (meV/Å) | energy, MAE (meV) | s per epoch |",
        "|---|---|---|---|---|",
    ]
    for molecule in EPOCHS:
        for kind in RADIAL:
            runs = [
                values
                for name, values in results["errors"].items()
                if name.startswith(f"{molecule} | {kind} |")
            ]
            if not runs:
                continue
            measured = results["speed"].get(f"{molecule} | {kind}", {}).get("seconds_per_epoch")
            cells = [
                molecule,
                kind,
                spread([run["forces_mae_meV_per_A"] for run in runs]),
                spread([run["energy_mae_meV"] for run in runs]),
                "" if measured is None else f"{measured:.2f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    text = "\n".join(lines)
    (folder / "results.md").write_text(text + "\n")
    print(text)


def spread(values: list[float]) -> str:
    """Put mean and standard deviation over the seeds into a cell."""
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


def load(folder: Path) -> dict[str, Any]:
    """Return what was found so far."""
    path = folder / "results.json"
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    return {"errors": {}, "speed": {}}


def store(folder: Path, results: dict[str, Any]) -> None:
    """Write what was found, and by which versions."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**results, "versions": versions()}, indent=2)
    (folder / "results.json").write_text(text + "\n")


if __name__ == "__main__":
    app()
