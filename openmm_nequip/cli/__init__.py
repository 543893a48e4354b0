"""The command line: one file per command, bad input turned into one clear line."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from ..errors import InputError

app = typer.Typer(
    name="openmm-nequip",
    help="Train NequIP potentials and run them in OpenMM.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"openmm-nequip {version('openmm-nequip')}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of the ``openmm-nequip`` command."""
    from . import commands  # noqa: F401 - registers every command

    with clear_errors():
        app()


@contextmanager
def clear_errors() -> Iterator[None]:
    """End the program with one clear line where input is wrong or a file cannot be used."""
    try:
        yield
    except InputError as error:
        _fail(str(error))
    except OSError as error:  # a full disk, a folder without permission
        if error.strerror is None:
            raise
        _fail(error.strerror + (f": '{error.filename}'" if error.filename else ""))


def _fail(message: str) -> NoReturn:
    console = Console(stderr=True, soft_wrap=True)
    console.print(f"[bold red]error:[/] {escape(message)}", highlight=False)
    sys.exit(1)
