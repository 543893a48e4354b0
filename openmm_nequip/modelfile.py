"""The model file: one ``.safetensors`` file with the weights and, in its header, all the rest.

The header holds one JSON document: schema version, the architecture's full configuration, units,
reference energies, provenance, held-out errors, licence and citation. Loading runs no code from
the file.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from .errors import InputError, did_you_mean

if TYPE_CHECKING:
    from .potential import Potential

SCHEMA_VERSION = 1
DEFAULT_MODEL = "organic-small"
_KEY = "openmm-nequip"  # of the JSON document among the header's strings
_UNITS = {"energy": "eV", "length": "Å", "stress": "eV/Å³"}


def save(potential: "Potential", path: str | Path) -> None:
    """Write `potential` to `path`, atomically: a crash leaves the old file or the new one."""
    from safetensors.torch import save as serialize

    from . import __version__

    document = {
        "schema_version": SCHEMA_VERSION,
        "written_by": f"openmm-nequip {__version__}",
        "config": potential.config.model_dump(),
        "units": _UNITS,
        "metadata": potential.metadata,
    }
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in potential.state_dict().items()
    }
    content = serialize(tensors, metadata={_KEY: json.dumps(document)})
    write_atomically(Path(path), content)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is never seen half written: temporary file, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp allows the owner only
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_header(path: str | Path) -> dict[str, Any]:
    """Return the JSON document of a model file without reading its tensors.

    Raises
    ------
    InputError
        The file is missing, damaged, not ours, or of a newer schema.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"model file '{path}' {_why_not_a_file(path)}")
    try:
        with safe_open(path, framework="np") as file:
            strings = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise InputError(f"'{path}' is damaged or not a safetensors file: {error}") from None
    if _KEY not in strings:
        raise InputError(
            f"'{path}' is a safetensors file, but not of openmm-nequip: its header has no "
            f"'{_KEY}' entry"
        )
    try:
        document: dict[str, Any] = json.loads(strings[_KEY])
        version = int(document["schema_version"])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"the header of model file '{path}' is damaged; get it again") from None
    if version > SCHEMA_VERSION:
        raise InputError(
            f"'{path}' has model-file schema {version} (written by {document.get('written_by')}), "
            f"this version reads up to {SCHEMA_VERSION}: update openmm-nequip"
        )
    return document


def load_file(path: str | Path) -> "Potential":
    """Read a model file and return its potential in evaluation mode.

    Raises
    ------
    InputError
        As `read_header`, or the weights do not fit the configuration.
    """
    from .architectures import Architecture
    from .config import parse_config
    from .potential import Potential

    document = read_header(path)
    config = parse_config(Architecture, document.get("config", {}), where=f"model file '{path}'")
    potential = Potential(config, document.get("metadata"))
    with safe_open(path, framework="pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    try:
        potential.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"the weights in '{path}' do not fit its configuration: {reason}"
        ) from None
    return potential.eval()


def list_models() -> list[str]:
    """Return the names of the bundled potentials, the default one first."""
    names = sorted(_bundled())
    return sorted(names, key=lambda name: name != DEFAULT_MODEL)


def find_model(path_or_name: str | Path) -> Path:
    """Return the model file that a path or the name of a bundled potential stands for.

    Raises
    ------
    InputError
        There is neither such a file nor such a bundled potential.
    """
    bundled = _bundled()
    if str(path_or_name) in bundled:
        return bundled[str(path_or_name)]
    path = Path(path_or_name)
    if path.is_file():
        return path
    if str(path_or_name) and (path.suffix or len(path.parts) > 1 or path.is_dir()):
        raise InputError(f"model file '{path}' {_why_not_a_file(path)}")
    raise InputError(
        f"no bundled potential is called '{path_or_name}'"
        f"{did_you_mean(path.stem.lower(), bundled)}; there are: {', '.join(list_models())}"
    )


def _why_not_a_file(path: Path) -> str:
    if not path.is_dir():
        return f"does not exist{did_you_mean(path.stem.lower(), _bundled())}"
    files = sorted(path.glob("*.safetensors"))
    return f"is a folder; give the file in it{f', {files[0].name}' if files else ''}"


def _bundled() -> dict[str, Path]:
    """Model files by name: in the installed package, or in the checkout beside it."""
    package = Path(__file__).parent
    for folder in (package / "models", package.parent / "models"):
        if folder.is_dir():
            return {file.parent.name: file for file in folder.glob("*/*.safetensors")}
    return {}
