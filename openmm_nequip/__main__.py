"""``python -m openmm_nequip`` is the command line (for `torchrun -m`)."""

from .cli import main

main()
