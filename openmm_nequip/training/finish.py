"""The end of a run: errors of the best weights, plots and the model file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..kernels.accuracy import radial_spline
from ..potential import Potential
from ..units import format_seconds
from ..versions import versions
from . import plots
from .config import TrainConfig
from .evaluation import describe, errors, evaluation_batches, predict
from .loop import Progress
from .loss import Loss
from .runfolder import RunFolder
from .sets import Sets, make_dataset

#: Keys that the header of a model file has in other places, or that concern the run folder only.
_ELSEWHERE = {
    "output",
    "model",
    "charge",
    "multiplicity",
    "description",
    "licence",
    "citation",
}


def finish(
    config: TrainConfig,
    sets: Sets,
    potential: Potential,
    loss: Loss,
    progress: Progress,
    folder: RunFolder,
    say: Callable[[str], None],
) -> None:
    """Evaluate the potential and write what a finished run has; `metrics.json` comes last."""
    potential.eval()
    results: dict[str, Any] = {}
    for name, frames in (("validation", sets.val), ("test", sets.test)):
        if len(frames):
            dataset = make_dataset(frames, potential.elements, potential.r_max, keep=False)
            found = predict(potential, evaluation_batches(dataset), loss.forces, loss.stress)
            results[name] = errors(found, potential.elements)
            shown = name
    plots.parity(found, potential.elements, folder.path / "parity.png", title=shown)
    plots.learning_curve(progress.history, folder.path / "learning_curve.png")
    potential.metadata |= {
        "description": config.description,
        "licence": config.licence,
        "citation": config.citation,
        "training": {
            "data": {"fingerprint": sets.fingerprint, "sizes": sets.sizes},
            "config": _without_folders(config.model_dump(mode="json", exclude=_ELSEWHERE)),
            "versions": versions(),
            "seed": config.seed,
            "epochs": progress.epoch,
            "best_epoch": progress.best_epoch,
            "seconds": round(progress.elapsed, 1),
        },
        "errors": results,
    }
    if potential.config.per_type_energy_shifts_trainable:
        shifts = potential.get_parameter("network.shifts").tolist()
        potential.metadata["reference_energies"] = dict(
            zip(potential.elements, shifts, strict=True)
        )
    if potential.config.radial == "exact":
        potential.metadata["radial_spline"] = radial_spline(potential)
    model_file = folder.path / f"{config.name}.safetensors"
    potential.save(model_file)
    run = {
        "best_epoch": progress.best_epoch,
        "epochs": progress.epoch,
        "seconds": round(progress.elapsed, 1),
        "model_file": model_file.name,
    }
    folder.write_json(folder.metrics, {**results, "run": run})
    for name, values in results.items():
        say(f"{name} errors: {describe(values)}")
    say(f"took {format_seconds(progress.elapsed)}; model file {model_file}")


def _without_folders(config: dict[str, Any]) -> dict[str, Any]:
    """Leave the folders of data files out of what is published with a model file."""
    data = dict(config["data"])
    for key in ("file", "val_file", "test_file", "split_file", "isolated_atoms_file"):
        value = data.get(key)
        if isinstance(value, list):
            data[key] = [Path(path).name for path in value]
        elif value is not None:
            data[key] = Path(value).name
    training = dict(config["training"])
    if training["fine_tune_from"] is not None:
        training["fine_tune_from"] = Path(training["fine_tune_from"]).name
    return {**config, "data": data, "training": training}
