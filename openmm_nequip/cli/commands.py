"""Registers every command with the application, in the order in which help lists them."""

# isort: skip_file
from . import train, evaluate, prepare, simulate, analyze, free_energy, info, benchmark, doctor  # noqa: F401
