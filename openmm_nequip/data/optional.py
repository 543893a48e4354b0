"""Imports that a plain install does without."""

from types import ModuleType

from ..errors import InputError


def import_h5py() -> ModuleType:
    """Return the h5py module, or raise InputError that says how to install it."""
    try:
        import h5py
    except ImportError:
        raise InputError("HDF5 files need h5py: pip install openmm-nequip[train]") from None
    return h5py
