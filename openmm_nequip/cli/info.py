"""``openmm-nequip info`` and ``models``: what a model file is, and what is bundled."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from . import app

if TYPE_CHECKING:
    from ..domain import Domain


@app.command()
def info(
    model: Annotated[str, typer.Argument(help="Model file, or name of a bundled potential.")],
    card: Annotated[
        bool, typer.Option(help="Print the model card too, where there is one.")
    ] = True,
) -> None:
    """Show what a model file holds, without loading its weights.

    Example: [bold]openmm-nequip info ethanol-pbe[/]
    """
    from ..modelfile import find_model, read_header

    path = find_model(model)
    header = read_header(path)
    console = Console()
    table = Table(title=str(path), title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column()
    for name, value in _facts(header).items():
        table.add_row(name, value)
    table.add_row("file size", f"{path.stat().st_size / 1e6:.1f} MB")
    console.print(table)
    card_file = path.parent / "card.md"
    if card and card_file.is_file():
        console.print(Markdown(_without_pictures(card_file.read_text(), card_file.parent)))


@app.command()
def models() -> None:
    """List the bundled potentials.

    Example: [bold]openmm-nequip models[/]
    """
    from ..modelfile import DEFAULT_MODEL, find_model, list_models, read_header

    table = Table(box=box.SIMPLE_HEAD, leading=1, padding=(0, 1, 0, 0), show_edge=False)
    for column in (
        "name",
        "elements",
        "charge",
        "cutoff\nÅ",
        "force MAE,\nown test\nmeV/Å",
        "description",
    ):
        table.add_column(column, no_wrap=column == "elements")
    for name in list_models():
        header = read_header(find_model(name))
        domain = _domain(header)
        table.add_row(
            f"{name}\n(default)" if name == DEFAULT_MODEL else name,
            " ".join(domain.elements),
            "" if domain.charge is None else f"{domain.charge}",
            f"{header['config']['r_max']:g}",
            _force_error(header["metadata"]),
            header["metadata"].get("description", ""),
        )
    console = Console()
    console.print(table)
    console.print("[bold]openmm-nequip info NAME[/] says what each is for and how accurate it is.")


def _without_pictures(card: str, folder: Path) -> str:
    """Put a line with its name and place where a card has a picture."""

    def line(picture: re.Match[str]) -> str:
        path = (folder / picture[2]).resolve()
        place = f"`{path}`" if path.is_file() else "in the card of the online repository"
        return f"Figure: *{picture[1]}*, {place}"

    return re.sub(r"!\[(.*?)\]\((.*?)\)", line, card)


def _domain(header: dict[str, Any]) -> "Domain":
    from ..domain import read_domain

    return read_domain(header["config"]["elements"], header["metadata"])


def _held_out(metadata: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the errors on the test set, or where there was none, on the validation set."""
    errors = metadata.get("errors", {})
    for name in ("test", "validation"):
        if name in errors:
            return name, errors[name]
    return "", {}


def _force_error(metadata: dict[str, Any]) -> str:
    error = _held_out(metadata)[1].get("forces_mae_meV_per_A")
    return "" if error is None else f"{error:.1f}"


def _errors(metadata: dict[str, Any]) -> str:
    name, errors = _held_out(metadata)
    parts = [
        f"{label} MAE {errors[key]:.3g} {unit}"
        for label, key, unit in (
            ("energy", "energy_mae_meV", "meV"),
            ("energy per atom", "energy_per_atom_mae_meV", "meV"),
            ("forces", "forces_mae_meV_per_A", "meV/Å"),
            ("stress", "stress_mae_meV_per_A3", "meV/Å³"),
        )
        if key in errors
    ]
    return f"{', '.join(parts)} ({errors['frames']} {name} frames)" if parts else ""


def _training(training: dict[str, Any]) -> str:
    if not training:
        return ""
    data = training["data"]
    return (
        f"{data['sizes']['train']} frames (SHA-256 {data['fingerprint']['train'][:12]}...), "
        f"{training['epochs']} epochs, seed {training['seed']}"
    )


def _facts(header: dict[str, Any]) -> dict[str, str]:
    config, metadata = header["config"], header["metadata"]
    features = config["num_features"]
    domain = _domain(header)
    meant = [
        f"{name} {value}"
        for name, value in (("charge", domain.charge), ("multiplicity", domain.multiplicity))
        if value is not None
    ]
    closest = [f"{pair:<5} {r:.2f}" for pair, r in (domain.min_distances or {}).items()]
    facts = {
        "description": metadata.get("description"),
        "elements": " ".join(domain.elements),
        "meant for": ", ".join(meant),
        "cutoff": f"{config['r_max']:g} Å",
        "network": f"{config['architecture']}: {config['num_layers']} layers, "
        f"l_max {config['l_max']}, features {features}, "
        f"type embedding {config['type_embed_num_features'] or 'as wide as the scalars'}, "
        f"parity {'on' if config['parity'] else 'off'}, {config['model_dtype']}",
        "radial functions": config["radial"],
        "pair potential": config.get("pair_potential"),
        "reference energies": ", ".join(
            f"{symbol} {energy:.4f} eV"
            for symbol, energy in metadata.get("reference_energies", {}).items()
        ),
        "these are from": metadata.get("reference_source"),
        "errors": _errors(metadata),
        "training": _training(metadata.get("training", {})),
        "closest in training, Å": "\n".join(
            "  ".join(closest[k : k + 4]).rstrip() for k in range(0, len(closest), 4)
        ),
        "neighbours there": ", ".join(
            f"{element} {fewest}-{most}" if fewest < most else f"{element} {fewest}"
            for element, (fewest, most) in (domain.num_neighbors or {}).items()
        ),
        "largest force there": domain.max_force and f"{domain.max_force:.3g} eV/Å",
        "licence": metadata.get("licence"),
        "citation": metadata.get("citation"),
        "written by": f"{header.get('written_by')} (schema {header['schema_version']})",
    }
    return {name: str(value) for name, value in facts.items() if value not in (None, "")}
