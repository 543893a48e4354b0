"""The figures of a card: a potential of rMD17's molecules on held-out frames, and in dynamics.

    export OPENMM_NEQUIP_DATA=<folder with rmd17/>
    python benchmarks/rmd17.py runs/rmd17-card --model rmd17-pbe
    python benchmarks/rmd17.py runs/ethanol-card --model ethanol-pbe --molecule ethanol

Prints a table. What the folder has already is not made again; the same command goes on where it was
stopped. Dynamics is NVT at 500 K in steps of 1 fs, all molecules far apart in one System, and NVE
in steps of 0.5 fs at about 300 K. Steps are timed one molecule at a time: leave the machine alone.
"""

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import typer
from ase import Atoms
from openmm import unit

from openmm_nequip.benchmarking import stability
from openmm_nequip.benchmarking.stability import Start, context_of, langevin, run_nve, run_nvt
from openmm_nequip.cli import clear_errors
from openmm_nequip.data.readers import read_frames
from openmm_nequip.errors import InputError
from openmm_nequip.md.structure import bonded_pairs
from openmm_nequip.modelfile import find_model, write_atomically
from openmm_nequip.training.assess import assess

MOLECULES = (
    "aspirin", "azobenzene", "benzene", "ethanol", "malonaldehyde",
    "naphthalene", "paracetamol", "salicylic", "toluene", "uracil",
)  # fmt: skip
_TEMPERATURE = 500.0  # K, that of the data
_TIMED, _REPEATS = 100, 9  # steps of a repeat, and rounds of repeats

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    folder: Annotated[Path, typer.Argument(help="Gets the results.")],
    model: Annotated[str, typer.Option(help="Model file, or name of a bundled potential.")],
    time: Annotated[float, typer.Option(help="ps of NVT.")] = 20.0,
    nve_time: Annotated[float, typer.Option(help="ps of NVE.")] = 5.0,
    molecule: Annotated[list[str] | None, typer.Option(help="Some of them only.")] = None,
) -> None:
    """Measure what is missing and print all."""
    path, names = find_model(model), molecule or list(MOLECULES)
    files = {name: test_file(name) for name in names}
    folder.mkdir(parents=True, exist_ok=True)
    mark, digest = folder / "model.sha256", sha256(path.read_bytes()).hexdigest()
    if mark.exists() and mark.read_text() != digest:
        raise InputError(f"'{folder}' has the results of another model; choose another folder")
    write_atomically(mark, digest.encode())
    starts = {}
    for name, file in files.items():
        frame = read_frames(file, require=())[0]
        bonds = bonded_pairs(Atoms(frame.numbers, frame.positions))
        starts[name] = Start(frame.numbers, frame.positions, bonds)
        if not (folder / name / "metrics.json").exists():
            assess(model, file, folder / name)

    def measured(part: str, measure: Any) -> dict[str, Any]:
        record = folder / f"{part}.json"
        if not record.exists():
            write_atomically(record, (json.dumps(measure(), indent=1) + "\n").encode())
        found: dict[str, Any] = json.loads(record.read_text())
        return found

    together = f"nvt-{'-'.join(names)}"
    state = folder / f"{together}.npz"
    nvt = measured(together, lambda: run_nvt(path, starts, _TEMPERATURE, time, state))
    speed = measured(f"speed-{'-'.join(names)}", lambda: time_steps(path, starts))
    rows = []
    for name, file in files.items():
        errors = json.loads((folder / name / "metrics.json").read_text())[file.name]
        nve = measured(f"{name}/nve", lambda name=name: run_nve(path, starts[name], nve_time))
        rows.append((*row(name, errors, nvt[name], nve), f"{speed['ms_per_step'][name]:.2f}"))
    head = (
        "molecule", "energy MAE, meV", "RMSE", "force MAE, meV/Å", "RMSE",
        f"bonds, NVT at {_TEMPERATURE:g} K", "NVE: drift, meV/atom/ps",
        "fluctuation, meV/atom", "OpenMM step, ms",
    )  # fmt: skip
    for cells in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(cells) + " |")
    machine = speed["machine"]
    print(f"Steps on {machine['gpu'] or machine['cpu']}, {machine['threads']} threads.")


def time_steps(path: Path, starts: dict[str, Start]) -> dict[str, Any]:
    """Time an OpenMM step of each molecule; see `stability.time_steps`."""
    contexts = {}
    for name, start in starts.items():
        contexts[name] = context_of(path, start.numbers, start.positions, langevin(300, friction=1))
        contexts[name].setVelocitiesToTemperature(300 * unit.kelvin, 1)
    return stability.time_steps(contexts, _TIMED, _REPEATS)


def row(
    name: str, errors: dict[str, Any], nvt: dict[str, Any], nve: dict[str, Any]
) -> tuple[str, ...]:
    """Return the cells of a molecule."""
    return (
        name.replace("salicylic", "salicylic acid"),
        f"{errors['energy_mae_meV']:.2f}",
        f"{errors['energy_rmse_meV']:.2f}",
        f"{errors['forces_mae_meV_per_A']:.1f}",
        f"{errors['forces_rmse_meV_per_A']:.1f}",
        f"{nvt['change']} at {nvt['at_ps']:g} ps"
        if nvt["change"]
        else f"kept for {nvt['ps']:g} ps",
        f"{nve['drift_meV_per_atom_per_ps']:.4f} ± {nve['drift_error_meV_per_atom_per_ps']:.4f}",
        f"{nve['fluctuation_meV_per_atom']:.3f}",
    )


def test_file(molecule: str) -> Path:
    """Return the test frames of a molecule.

    Raises
    ------
    InputError
        They are not there.
    """
    if molecule not in MOLECULES:
        raise InputError(f"there is no molecule '{molecule}'; choose from {', '.join(MOLECULES)}")
    data = os.environ.get("OPENMM_NEQUIP_DATA")
    if not data:
        raise InputError("set OPENMM_NEQUIP_DATA to the folder that holds rmd17/")
    path = Path(data) / "rmd17" / f"rmd17_{molecule}_test_01.npz"
    if not path.exists():
        raise InputError(f"{path} is missing")
    return path


if __name__ == "__main__":
    with clear_errors():
        app()
