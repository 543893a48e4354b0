"""The command line: one file per command, bad input turned into one clear line."""

import sys

import typer
from rich.console import Console

from ..errors import InputError

app = typer.Typer(
    name="openmm-nequip",
    help="Train NequIP potentials and run them in OpenMM.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def main() -> None:
    """Entry point of the ``openmm-nequip`` command."""
    from . import commands  # noqa: F401 - registers every command

    try:
        app()
    except InputError as error:
        Console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/] {error}", highlight=False)
        sys.exit(1)
