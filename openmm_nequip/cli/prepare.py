"""``openmm-nequip prepare``: from a molecule or a structure file to a simulation of ML/MM."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from . import app

if TYPE_CHECKING:
    from ..md.prepare import Prepared


@app.command()
def prepare(
    source: Annotated[
        str, typer.Argument(help="Structure file, SMILES or bundled example.", metavar="STRUCTURE")
    ],
    coordinates: Annotated[
        str | None, typer.Argument(help="The inpcrd/rst7 of a prmtop, or the gro of a top.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="New folder; named after the structure.")
    ] = None,
    ligand: Annotated[
        list[str] | None,
        typer.Option(help="SDF or MOL file or SMILES of a small molecule in or beside it."),
    ] = None,
    ml_region: Annotated[
        str | None,
        typer.Option(help="What the potential describes, MDTraj's language: 'resname LIG'."),
    ] = None,
    potential: Annotated[
        str | None, typer.Option(help="Model file or bundled potential; the bundled default.")
    ] = None,
    water: Annotated[
        str | None,
        typer.Option(help="tip3p (default), tip3pfb, spce, opc3, tip4pew, tip4pfb, opc or none."),
    ] = None,
    padding: Annotated[
        str | None, typer.Option(help="From the solute to the wall of the box; 1nm.")
    ] = None,
    box: Annotated[
        str | None, typer.Option(help="Width of the box instead of a padding, like 3nm.")
    ] = None,
    shape: Annotated[str, typer.Option(help="cube, dodecahedron or octahedron.")] = "cube",
    salt: Annotated[float, typer.Option(help="NaCl beyond what neutralises, mol/L.")] = 0.0,
    ph: Annotated[float, typer.Option(help="For the hydrogens that a protein lacks.")] = 7.0,
    cutoff: Annotated[str, typer.Option(help="Of the force field's interactions.")] = "1nm",
    force_field: Annotated[
        list[str] | None,
        typer.Option(help="OpenMM force-field file; amber14-all.xml for a biopolymer."),
    ] = None,
    small_molecules: Annotated[
        str, typer.Option(help="nonbonded, openff, or auto: openff where it is installed.")
    ] = "auto",
    charges: Annotated[
        str | None,
        typer.Option(help="Of small molecules: mmff94 (default), gasteiger, xtb or a file."),
    ] = None,
    charge: Annotated[
        int, typer.Option(help="Net charge of a molecule known by its coordinates only.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of the conformation and the places of ions.")] = 1,
) -> None:
    """Build, solvate and parametrise a system of which a potential describes a part.

    Ethanol in a box of TIP3P water, from its SMILES:

        openmm-nequip prepare "CCO"

    A protein with its ligand, salt, and the potential on the ligand:

        openmm-nequip prepare complex.pdb --ligand ligand.sdf --salt 0.15

    A system that comes with its parameters:

        openmm-nequip prepare system.prmtop system.rst7 --ml-region "resname MBN"

    The new folder has OpenMM's System (system.xml), structure.cif, the configuration of
    a run (simulate.yaml) and all that was decided (prepared.json). It is run with:

        openmm-nequip simulate ethanol/simulate.yaml
    """
    from ..errors import InputError
    from ..md.choices import Choices
    from ..md.prepare import check_new
    from ..md.prepare import prepare as run
    from ..md.structure import is_file

    console = Console(soft_wrap=True, highlight=False)
    if output is None and is_file(source):
        output = Path(Path(source).stem)
    if output is not None:
        check_new(output)
    choices = Choices(
        source=source,
        coordinates=coordinates,
        ligands=ligand or (),
        charge=charge,
        charges=charges,
        small_molecules=small_molecules,
        force_fields=force_field or (),
        water=water,
        width=None if box is None else _length(box, "--box"),
        padding=None if padding is None else _length(padding, "--padding"),
        shape=shape,
        salt=salt,
        ph=ph,
        cutoff=_length(cutoff, "--cutoff"),
        region=ml_region,
        potential=potential,
        seed=seed,
    )
    if salt < 0:
        raise InputError(f"--salt is {salt:g} mol/L and cannot be negative")
    with console.status("preparing"):
        prepared = run(choices, lambda text: console.print(text, markup=False))
        folder = output or Path(_name(source, prepared))
        prepared.write(folder)
    for line in _summary(prepared):
        console.print(line, markup=False)
    console.print(f"run it: openmm-nequip simulate {folder}/simulate.yaml", markup=False)


def _length(text: str, option: str) -> float:
    """Return a length in nm."""
    from ..errors import InputError
    from ..units import NM, length_factor

    match = re.fullmatch(r"\s*([.\d]+(?:e[-+]?\d+)?)\s*([^\W\d]+)\s*", text)
    try:
        value = float(match[1]) * length_factor(match[2]) * NM if match else 0.0
    except ValueError as error:
        raise InputError(f"{option} '{text}': {error}") from None
    if value <= 0:
        raise InputError(f"{option} '{text}': give a positive length with its unit, like 1nm")
    return value


def _name(source: str, prepared: "Prepared") -> str:
    """Name the folder of a molecule that is in no file: as the bundled example, or its formula."""
    from ..md.assembly import EXAMPLE_SMILES

    names = {smiles: name for name, smiles in EXAMPLE_SMILES.items()}
    smiles = prepared.record["small_molecules"][0]["smiles"]
    return names.get(smiles, prepared.record["formula"])


def _summary(prepared: "Prepared") -> list[str]:
    from ..domain import signed

    record = prepared.record
    parts = [f"{record['num_atoms']} atoms", f"{record['waters']} waters"]
    parts += [f"{count} {name}" for name, count in record["ions"].items()]
    if record["box_nm"] is None:
        parts.append("no box")
    else:
        parts.append("box " + " × ".join(f"{row[k]:.2f}" for k, row in enumerate(record["box_nm"])))
        parts[-1] += " nm"
    lines = [f"{record['formula']}: {', '.join(parts)}; {' '.join(record['force_fields'])}"]
    if record["total_charge"]:
        lines.append(f"the system has a charge of {record['total_charge']:+g} e")
    region = record["ml_region"]
    charge = "" if region["charge"] is None else f", charge {signed(region['charge'])}"
    lines.append(
        f"ML region '{region['selection']}': {len(region['atoms'])} atoms{charge}, described by "
        f"{record['potential']['name']}"
    )
    if not record["bonded_terms"]:
        lines.append(
            "without the potential the ML region falls apart: the System has no bonded terms for it"
        )
    return lines
