"""Record in a model file for which systems it is meant, and what its training data covered.

For bundled potentials that were trained before training recorded it, or that were fine-tuned to
fewer elements::

    python benchmarks/domain.py models/ethanol-pbe/ethanol-pbe.safetensors \
        rmd17_ethanol_train_01.npz --charge 0 --multiplicity 1

Without frames what the file says of its data stays. Weights and the rest do not change.
"""

from pathlib import Path
from typing import Annotated

import typer

import openmm_nequip
from openmm_nequip.cli import clear_errors
from openmm_nequip.data.readers import read_frames
from openmm_nequip.data.statistics import compute_statistics
from openmm_nequip.domain import read_domain
from openmm_nequip.modelfile import save
from openmm_nequip.training.preparation import domain_of


def main(
    model: Annotated[Path, typer.Argument(help="Model file, which is rewritten.")],
    data: Annotated[list[Path] | None, typer.Argument(help="Training frames.")] = None,
    charge: Annotated[int | None, typer.Option(help="Net charge it is meant for.")] = None,
    multiplicity: Annotated[int | None, typer.Option(help="Spin multiplicity.")] = None,
) -> None:
    """Rewrite the domain."""
    potential = openmm_nequip.load(model)
    domain = read_domain(potential.elements, potential.metadata)
    if data:
        frames = [frame for file in data for frame in read_frames(file)]
        statistics = compute_statistics(
            frames,
            potential.elements,
            potential.r_max,
            reference_energies=dict.fromkeys(potential.elements, 0.0),
        )
        domain = domain_of(statistics, domain.charge, domain.multiplicity)
    asked = {"charge": charge, "multiplicity": multiplicity}
    domain = domain.model_copy(update={k: v for k, v in asked.items() if v is not None})
    potential.metadata["domain"] = domain.model_dump(mode="json", exclude_none=True)
    references = potential.metadata.get("reference_energies", {})
    potential.metadata["reference_energies"] = {
        element: energy for element, energy in references.items() if element in domain.elements
    }
    save(potential, model)


if __name__ == "__main__":
    with clear_errors():
        typer.run(main)
