"""``openmm-nequip info`` and ``models``: what a model file is, and what is bundled."""

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from . import app


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
        console.print(Markdown(card_file.read_text()))


@app.command()
def models() -> None:
    """List the bundled potentials.

    Example: [bold]openmm-nequip models[/]
    """
    from ..modelfile import DEFAULT_MODEL, find_model, list_models, read_header

    table = Table()
    for column in ("name", "elements", "cutoff (Å)", "force MAE (meV/Å)", "description"):
        table.add_column(column)
    for name in list_models():
        header = read_header(find_model(name))
        table.add_row(
            f"{name} (default)" if name == DEFAULT_MODEL else name,
            " ".join(header["config"]["elements"]),
            f"{header['config']['r_max']:g}",
            _force_error(header["metadata"]),
            header["metadata"].get("description", ""),
        )
    Console().print(table)


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
    facts = {
        "description": metadata.get("description"),
        "elements": " ".join(config["elements"]),
        "cutoff": f"{config['r_max']:g} Å",
        "network": f"{config['architecture']}: {config['num_layers']} layers, "
        f"l_max {config['l_max']}, features {features}, "
        f"parity {'on' if config['parity'] else 'off'}, {config['model_dtype']}",
        "pair potential": config.get("pair_potential"),
        "reference energies": ", ".join(
            f"{symbol} {energy:.4f} eV"
            for symbol, energy in metadata.get("reference_energies", {}).items()
        ),
        "errors": _errors(metadata),
        "training": _training(metadata.get("training", {})),
        "licence": metadata.get("licence"),
        "citation": metadata.get("citation"),
        "written by": f"{header.get('written_by')} (schema {header['schema_version']})",
    }
    return {name: str(value) for name, value in facts.items() if value not in (None, "")}
