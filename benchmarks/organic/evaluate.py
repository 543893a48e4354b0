"""Produce all that the card of `organic-small` shows, in a folder::

    export OPENMM_NEQUIP_DATA=<folder with ani2x/ and s66x8/>
    python benchmarks/organic/evaluate.py teacher runs/card --model M --data runs/organic
    python benchmarks/organic/evaluate.py s66x8 runs/card --model M
    python benchmarks/organic/evaluate.py torsions runs/card --model M
    python benchmarks/organic/evaluate.py conformers runs/card --model M
    python benchmarks/organic/evaluate.py dissociation runs/card --model M
    python benchmarks/organic/evaluate.py stability runs/card --model M
    python benchmarks/organic/evaluate.py speed runs/card --model M
    python benchmarks/organic/evaluate.py table runs/card

M is a model file or the name of a bundled potential; `runs/organic` is what `generate.py` has
filled. Results are kept in ``results.json`` of the folder, figures beside it. What is there is left
out; `stability` goes on where it was stopped. `speed` wants an idle machine.
"""

import json
import os
import sys
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import card
import drawing
import generate
import md
import methods
import numpy as np
import openmm
import subjects
import torch
import typer
from conformations import Structure
from rdkit import Chem
from rich.progress import track

from openmm_nequip.benchmarking.stability import run_nve, run_nvt
from openmm_nequip.cli import clear_errors
from openmm_nequip.data.dataset import Targets
from openmm_nequip.data.frame import Frame
from openmm_nequip.errors import InputError
from openmm_nequip.modelfile import find_model, write_atomically
from openmm_nequip.potential import Output
from openmm_nequip.training.evaluation import Predictions, errors
from openmm_nequip.training.plots import parity
from openmm_nequip.versions import versions

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)
Folder = Annotated[Path, typer.Argument(help="Folder of the results.")]
Model = Annotated[str, typer.Option(help="Model file, or name of a bundled potential.")]
Data = Annotated[Path, typer.Option(help="Folder of the data set, from generate.py.")]
Again = Annotated[bool, typer.Option("--again", help="Replace what is there.")]


class Record:
    """The results in a folder, all of one model file.

    Parameters
    ----------
    folder
        Made if it is not there.
    model
        Path or name of the model.

    Raises
    ------
    InputError
        The folder has results of another model, or they cannot be read.
    """

    def __init__(self, folder: Path, model: str):
        self.model = find_model(model)
        self.folder, self.path = folder, folder / "results.json"
        folder.mkdir(parents=True, exist_ok=True)
        digest = sha256(self.model.read_bytes()).hexdigest()
        self.results = read_results(folder) if self.path.exists() else {}
        of = self.results.setdefault("model", {"file": self.model.name, "sha256": digest})
        if of["sha256"] != digest:
            raise InputError(
                f"'{self.path}' has the results of another model ({of['file']}); "
                "choose another folder"
            )

    def has(self, part: str, again: bool) -> bool:
        """Tell, also the user, whether a part is there and shall stay."""
        done = part in self.results and not again
        if done:
            print(f"{part}: is in {self.path}; --again replaces it")
        return done

    def add(self, part: str, values: dict[str, Any]) -> None:
        """Store a part."""
        self.results[part] = values
        self.results["versions"] = versions()
        text = json.dumps(self.results, indent=1, ensure_ascii=False) + "\n"
        write_atomically(self.path, text.encode())


def read_results(folder: Path) -> dict[str, Any]:
    """Return what ``results.json`` of a folder holds.

    Raises
    ------
    InputError
        It is not there, or damaged.
    """
    try:
        found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read results of {folder}: {error}") from None
    return found


def statistics_of(error: np.ndarray) -> dict[str, float]:
    """Return MAE and RMSE of errors in eV or eV/Å, in thousandths of that."""
    flat = 1000 * np.ravel(error)
    return {"mae": float(np.abs(flat).mean()), "rmse": float(np.sqrt((flat**2).mean()))}


@app.command()
def teacher(folder: Folder, model: Model, data: Data, again: Again = False) -> None:
    """Errors against ANI-2x on the test set, of which most molecules are held out by scaffold."""
    record = Record(folder, model)
    if record.has("teacher", again):
        return
    frames, kinds = subjects.labelled(subjects.part(data, "test"))
    potential = methods.load(record.model)
    parts: dict[str, Predictions] = {}
    for kind in track(sorted(set(kinds)), description="kinds of frames"):
        chosen = [frame for frame, k in zip(frames, kinds, strict=True) if k == kind]
        parts[kind] = methods.predictions(potential, chosen)
    whole = joined(list(parts.values()))
    values = errors(whole, potential.elements)
    values["by_kind"] = {k: errors(p, potential.elements) for k, p in parts.items()}
    held_out = [p for kind, p in parts.items() if kind in subjects.HELD_OUT]
    if held_out:
        values["held_out"] = errors(joined(held_out), potential.elements)
    record.add("teacher", values)
    title = "test set"
    parity(whole, potential.elements, folder / "parity.png", title)


def joined(parts: list[Predictions]) -> Predictions:
    """Put the predictions for several sets together."""
    outputs, targets, types = zip(*parts, strict=True)
    energies, atomic_energies, forces, _, _ = zip(*outputs, strict=True)
    return Predictions(
        Output(torch.cat(energies), torch.cat(atomic_energies), torch.cat(forces), None, None),
        Targets._make(torch.cat(values) for values in zip(*targets, strict=True)),
        torch.cat(types),
    )


@app.command()
def s66x8(folder: Folder, model: Model, again: Again = False) -> None:
    """Errors of potential and teacher against DFT on 66 dimers at 8 distances."""
    record = Record(folder, model)
    if record.has("s66x8", again):
        return
    dimers = subjects.s66x8(reference_data())
    compared = {"potential": methods.of_potential(record.model), "ANI-2x": methods.of_teacher()}
    found: dict[str, list[methods.Evaluated]] = {name: [] for name in compared}
    for dimer in track(dimers, description="dimers"):
        for name, method in compared.items():
            found[name].append(method([Structure(f.numbers, f.positions) for f in dimer]))
    record.add("s66x8", {name: dimer_errors(dimers, values) for name, values in found.items()})
    curves: drawing.Curves = {}
    for index, title in subjects.DRAWN_DIMERS.items():
        energies = {"DFT": np.array([frame.energy for frame in dimers[index]])}
        energies |= {name: found[name][index].energies for name in compared}
        relative = {name: 1000 * (e - e[-1]) for name, e in energies.items()}
        curves[title] = np.array(subjects.DIMER_SCALES), relative
    drawing.panels(
        curves, folder / "s66x8.png", "distance / that of the minimum",
        "energy less that at 2.0, meV",
    )  # fmt: skip


def dimer_errors(
    dimers: list[list[Frame]], found: list[methods.Evaluated]
) -> dict[str, dict[str, float]]:
    """Return the errors of total energies, of energies along the curves, and of forces.

    Total energies are taken as they are. Along a curve they are relative to the largest distance,
    which is not itself counted.
    """
    reference = np.array([[frame.energy for frame in dimer] for dimer in dimers])
    energies = np.array([values.energies for values in found])
    error = energies - reference
    forces = [
        values.forces[k] - frame.forces
        for values, dimer in zip(found, dimers, strict=True)
        for k, frame in enumerate(dimer)
    ]
    return {
        "energy_meV": statistics_of(error),
        "interaction_meV": statistics_of(error[:, :-1] - error[:, -1:]),
        "forces_meV_per_A": statistics_of(np.concatenate(forces)),
    }


@app.command()
def torsions(folder: Folder, model: Model, again: Again = False) -> None:
    """Torsion profiles of small molecules against the teacher."""
    record = Record(folder, model)
    if record.has("torsions", again):
        return
    angles = np.arange(-180.0, 181.0, 10.0)
    potential, teacher_ = methods.of_potential(record.model), methods.of_teacher()
    results, curves = {}, {}
    for name, torsion in track(subjects.TORSIONS.items(), description="torsions"):
        structures = subjects.scan(torsion, angles)
        profiles = {
            "ANI-2x": teacher_(structures).energies,
            "potential": potential(structures).energies,
        }
        results[name] = profile_errors(profiles["potential"], profiles["ANI-2x"])
        curves[name] = angles, {k: 1000 * (e - e.min()) for k, e in profiles.items()}
    record.add("torsions", results)
    drawing.panels(
        curves, folder / "torsions.png", "dihedral angle, degrees", "energy, meV",
        xticks=np.arange(-180, 181, 90),
    )  # fmt: skip


def profile_errors(found: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Compare two profiles, eV, up to a constant: RMS difference and heights, meV."""
    error = found - reference
    return {
        "rms_meV": 1000 * float(error.std()),
        "height_meV": 1000 * float(np.ptp(found)),
        "reference_height_meV": 1000 * float(np.ptp(reference)),
    }


@app.command()
def conformers(folder: Folder, model: Model, again: Again = False) -> None:
    """Relative energies of up to 5 conformers of each of 20 drugs against the teacher."""
    record = Record(folder, model)
    if record.has("conformers", again):
        return
    check_not_in_training()
    potential, teacher_ = methods.of_potential(record.model), methods.of_teacher()
    found, reference, same_lowest = [], [], 0
    for name in track(subjects.DRUG_LIKE, description="molecules"):
        minima = subjects.different_minima(subjects.drug_like(name, conformers=5))
        if len(minima) < 2:
            continue
        pair = potential(minima).energies, teacher_(minima).energies
        found.append(pair[0] - pair[0].mean())
        reference.append(pair[1] - pair[1].mean())
        same_lowest += int(pair[0].argmin() == pair[1].argmin())
    values = statistics_of(np.concatenate(found) - np.concatenate(reference))
    record.add(
        "conformers",
        {
            "molecules": len(found),
            "conformers": sum(map(len, found)),
            "mae_meV": values["mae"],
            "rmse_meV": values["rmse"],
            "spread_meV": 1000 * float(np.concatenate(reference).std()),
            "same_lowest": same_lowest,
        },
    )
    drawing.scatter(
        1000 * np.concatenate(reference), 1000 * np.concatenate(found),
        folder / "conformers.png", "energy less the molecule's mean, meV",
    )  # fmt: skip


@app.command()
def dissociation(folder: Folder, model: Model, again: Again = False) -> None:
    """Energies along bonds that are compressed and broken, and of two waters that collide."""
    record = Record(folder, model)
    if record.has("dissociation", again):
        return
    potential, teacher_ = methods.of_potential(record.model), methods.of_teacher()
    results, curves = {}, {}
    for name, stretch in track(subjects.stretches().items(), description="curves"):
        values = {
            "ANI-2x": teacher_(stretch.structures),
            "potential": potential(stretch.structures),
        }
        results[name] = curve_checks(stretch, values["potential"])
        at = int(np.abs(stretch.distances - stretch.rest).argmin())
        energies = {k: v.energies - v.energies[at] for k, v in values.items()}
        results[name]["reference_apart_eV"] = float(energies["ANI-2x"][-1])
        curves[name] = stretch.distances, energies
    record.add("dissociation", results)
    drawing.panels(curves, folder / "dissociation.png", "distance, Å", "energy, eV", ylim=(-2, 14))


def curve_checks(stretch: subjects.Stretch, found: methods.Evaluated) -> dict[str, Any]:
    """Check that two atoms repel each other, and that energy and forces are smooth.

    Returns
    -------
    dict
        ``repulsive_down_to_A``: the energy rises from 0.95 times the rest to this distance, or
        further; ``of_A``: the shortest distance that was looked at; ``highest_eV`` and
        ``apart_eV``: the highest energy beyond the rest and that at the largest distance, less
        that at rest; ``work_difference_meV``: largest difference between the change of the energy
        and the work of the forces, between neighbouring distances with energies up to 20 eV above
        that at rest.
    """
    r, energies = stretch.distances, found.energies
    slope = np.diff(energies)
    inside = r[1:] <= 0.95 * stretch.rest
    wrong = np.flatnonzero(inside & ~(slope < 0))
    positions = [structure.positions for structure in stretch.structures]
    difference = work_differences(energies, found.forces, positions)
    rest = energies[int(np.abs(r - stretch.rest).argmin())]
    calm = np.maximum(energies[1:], energies[:-1]) < rest + 20
    return {
        "repulsive_down_to_A": float(r[wrong[-1] + 1] if len(wrong) else r[0]),
        "of_A": float(r[0]),
        "highest_eV": float(energies[r >= stretch.rest].max() - rest),
        "apart_eV": float(energies[-1] - rest),
        "work_difference_meV": 1000 * float(np.abs(difference[calm]).max()),
    }


def work_differences(
    energies: np.ndarray, forces: list[np.ndarray], positions: list[np.ndarray]
) -> np.ndarray:
    """Return by how much the energy changes from each structure to the next, plus the work, eV."""
    x, f = np.array(positions), np.array(forces)
    work = 0.5 * ((f[1:] + f[:-1]) * (x[1:] - x[:-1])).sum(axis=(1, 2))
    return np.diff(energies) + work


@app.command()
def stability(
    folder: Folder,
    model: Model,
    time: Annotated[float, typer.Option(help="ps of NVT at 300 K.")] = 100.0,
    hot_time: Annotated[float, typer.Option(help="ps of NVT at 500 K.")] = 10.0,
    nve_time: Annotated[float, typer.Option(help="ps of NVE.")] = 10.0,
    molecules: Annotated[int, typer.Option(help="How many of the 20.")] = 20,
    at_once: Annotated[int, typer.Option(help="Molecules in one System, far apart.")] = 1,
) -> None:
    """Bonds of 20 drugs in MD at 300 K and 500 K, and the drift of the energy of three."""
    record = Record(folder, model)
    check_not_in_training()
    drugs = {name: subjects.at_start(name) for name in list(subjects.DRUG_LIKE)[:molecules]}
    for temperature, duration in ((300, time), (500, hot_time)):
        part = f"nvt_{temperature}K"
        done = dict(record.results.get(part, {}))
        missing = [n for n in drugs if done.get(n, {"ps": -1})["ps"] < duration]
        for k in range(0, len(missing), at_once):
            batch = {name: drugs[name] for name in missing[k : k + at_once]}
            state = folder / f"{part}-{'-'.join(batch)}.npz"
            done |= run_nvt(record.model, batch, temperature, duration, state)
            record.add(part, done)
    done = dict(record.results.get("nve", {}))
    for name, drug in list(drugs.items())[:3]:
        if done.get(name, {"ps": -1})["ps"] < nve_time:
            done[name] = run_nve(record.model, drug, nve_time)
            record.add("nve", done)


def check_not_in_training() -> None:
    """Raise `InputError` if one of the drugs is in the training or validation set."""
    print("which molecules are in the data set", flush=True)
    known = generate.molecules(("train", "validation"))
    seen = [n for n, s in subjects.DRUG_LIKE.items() if Chem.CanonSmiles(s) in known]
    if seen:
        raise InputError(f"{', '.join(seen)} of subjects.DRUG_LIKE is a molecule of the data set")


@app.command()
def speed(
    folder: Folder,
    model: Model,
    repeats: Annotated[int, typer.Option(help="Repeats of each, in turns.")] = 11,
    again: Again = False,
) -> None:
    """Time an OpenMM step of aspirin with the potential and with openmm-ml's `ani2x`."""
    record = Record(folder, model)
    if not record.has("speed", again):
        record.add("speed", md.time_steps(record.model, repeats))


@app.command()
def table(folder: Folder) -> None:
    """Print all results as Markdown."""
    print(card.markdown(read_results(folder)))


def reference_data() -> Path:
    """Return the folder of reference data."""
    folder = os.environ.get("OPENMM_NEQUIP_DATA")
    if not folder:
        raise InputError("set OPENMM_NEQUIP_DATA to the folder that holds s66x8/ and ani2x/")
    return Path(folder)


if __name__ == "__main__":
    try:
        with clear_errors():
            app()
    except openmm.OpenMMException as error:
        if "KeyboardInterrupt" not in str(error):
            raise
        sys.exit(130)
