"""NequIP-family E(3)-equivariant interatomic potentials for OpenMM.

>>> from openmmml import MLPotential
>>> system = MLPotential("nequip", modelPath="aspirin.safetensors").createSystem(topology)
"""

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openmmml as _openmmml  # noqa: F401 - first: it imports our plugin, which needs it complete

from .errors import InputError
from .modelfile import list_models

if TYPE_CHECKING:
    from .potential import Potential

__version__ = version("openmm-nequip")
__all__ = ["InputError", "Potential", "list_models", "load"]


def load(path_or_name: str | Path) -> "Potential":
    """Load a model file, or a bundled potential by name.

    Returns
    -------
    Potential
        A PyTorch module in evaluation mode.

    Raises
    ------
    InputError
        The file is missing or damaged, or the name is unknown.
    """
    from .modelfile import find_model, load_file

    return load_file(find_model(path_or_name))


def __getattr__(name: str) -> Any:
    if name == "Potential":  # imported when asked for: it needs torch and e3nn
        from .potential import Potential

        return Potential
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
