"""Versions of what decides the result of a run, to be kept with it."""

from importlib.metadata import PackageNotFoundError, version
from platform import machine, python_version, system

_PACKAGES = (
    "openmm-nequip", "torch", "e3nn", "vesin", "ase", "numpy", "numba", "lightning",
    "OpenMM", "openmmml", "openmmtorch", "mdtraj", "rdkit", "tblite",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that are installed, by name."""
    found = {"python": python_version(), "system": f"{system()} {machine()}"}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
