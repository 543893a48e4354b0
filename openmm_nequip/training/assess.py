"""`evaluate`: the errors of a potential on labelled frames, printed, saved and plotted."""

import json
from pathlib import Path
from typing import Any

import torch

from .. import modelfile
from ..data.dataset import FrameDataset
from ..data.fingerprint import fingerprint
from ..data.readers import read_frames
from ..errors import InputError
from ..kernels.engine import choose_engine
from . import plots
from .evaluation import describe, errors, evaluation_batches, predict


def assess(model: str | Path, data: Path, output: Path, **reading: Any) -> dict[str, Any]:
    """Evaluate a potential on the frames of a file.

    Parameters
    ----------
    model
        Model file or name of a bundled potential.
    data
        Labelled frames.
    output
        Folder for ``metrics.json`` and ``parity.png``.
    **reading
        Keywords of `read_frames`: format, units, keys.

    Returns
    -------
    dict
        The errors, as in a run folder's ``metrics.json``.

    Raises
    ------
    InputError
        The folder has results already, the data cannot be read, or it contains an element that
        the potential does not know.
    """
    existing = [name for name in ("metrics.json", "parity.png") if (output / name).exists()]
    if existing:
        raise InputError(
            f"'{output}' holds {' and '.join(existing)} already; choose another folder with "
            "--output"
        )
    if output.exists() and not output.is_dir():
        raise InputError(f"output '{output}' is a file; choose a folder with --output")
    path = modelfile.find_model(model)
    potential = modelfile.load_file(path)
    frames = read_frames(data, require=(), **reading)
    labels = {
        name: any(getattr(frame, name) is not None for frame in frames)
        for name in ("energy", "forces", "stress")
    }
    if not any(labels.values()):
        raise InputError(f"{data} has no energies, forces or stresses to compare with")
    print(frames.summary(), flush=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    potential = potential.with_engine(choose_engine("auto", device)).to(device)
    dataset = FrameDataset(frames, potential.elements, potential.r_max, keep=False)
    predictions = predict(
        potential, evaluation_batches(dataset), labels["forces"], labels["stress"]
    )
    result = errors(predictions, potential.elements)
    output.mkdir(parents=True, exist_ok=True)
    plots.parity(predictions, potential.elements, output / "parity.png", title=data.name)
    record = {
        data.name: result,
        "model": path.name,
        "data_fingerprint": fingerprint(frames),
    }
    modelfile.write_atomically(
        output / "metrics.json", (json.dumps(record, indent=2) + "\n").encode()
    )
    print(f"{describe(result)}\nwritten to {output}", flush=True)
    return result
