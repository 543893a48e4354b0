"""Saving and loading Systems that hold a potential, for every kind of force.

OpenMM's own XML is not enough: reading a `TorchForce` crashes the process with openmm-torch 1.5,
and reading a `PythonForce` runs whatever code its file holds. `save_system` therefore writes the
System without the potential's forces, and beside it what defines them: plain settings and the
model file. `load_system` rebuilds them, and runs nothing from the file.
"""

import copy
import io
import json
import pickle
import xml.etree.ElementTree as ET
import zipfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import openmm
import torch

from ..errors import InputError
from ..modelfile import write_atomically
from . import torch_force
from .force import build_force, report_derivative
from .probe import first_that_works, import_openmmtorch, why_not
from .python_force import Computation
from .settings import FORCE_NAME, ForceSettings

_EXECUTABLE = {"TorchForce", "PythonForce", "PythonTorchForce"}  # their XML holds code


@dataclass(frozen=True)
class StoredForce:
    """A potential's force, apart from any System: what defines it, and its place.

    Attributes
    ----------
    index, group, name
        Place in the System, force group and name.
    settings, model_file
        What defines the force completely.
    """

    index: int
    group: int
    name: str
    settings: ForceSettings
    model_file: bytes

    def build(self) -> openmm.Force:
        """Build the force anew."""
        force = build_force(self.settings, self.model_file)
        force.setForceGroup(self.group)
        force.setName(self.name)
        return force


def save_system(system: openmm.System, path: str | Path) -> None:
    """Write a System with its potentials into one file, atomically.

    Parameters
    ----------
    system
        Its potentials may sit in forces of any kind.
    path
        A zip archive: ``system.xml`` without the potentials, and for each of them its settings
        (``force-0.json``) and its model file (``force-0.safetensors``).

    Raises
    ------
    InputError
        The System holds a `TorchForce` or `PythonForce` that is not ours.
    """
    root, stored = without_potentials(system)
    foreign = _executable(root)
    if foreign:
        raise InputError(f"cannot save the System: its {foreign} does not belong to openmm-nequip")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("system.xml", ET.tostring(root, encoding="unicode"))
        for k, force in enumerate(stored):
            description = asdict(force)
            file.writestr(f"force-{k}.safetensors", description.pop("model_file"))
            file.writestr(f"force-{k}.json", json.dumps(description))
    write_atomically(Path(path), archive.getvalue())


def load_system(path: str | Path, trust: bool = False, force: str = "auto") -> openmm.System:
    """Read a System that `save_system` or OpenMM's `XmlSerializer` has written.

    Parameters
    ----------
    path
        The file.
    trust
        Consent, needed for XML with a `PythonForce` or `TorchForce`: reading it unpickles Python
        objects or loads TorchScript, either of which can run any code. Files of `save_system`
        never need it.
    force
        Kind of force to rebuild; ``'auto'`` is the saved kind if it works here, else the fastest
        that does.

    Raises
    ------
    InputError
        The file is missing or damaged, needs `trust`, or holds a `TorchForce` that is not ours.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read '{path}': {error.strerror}") from None
    try:
        if content.startswith(b"PK"):
            root, stored = _read_archive(content)
        else:
            root = ET.fromstring(content)
            found = _executable(root)
            if found and not trust:
                raise InputError(
                    f"'{path}' is XML with a {found}: reading it can run any code it holds. Pass "
                    "trust=True if you know where it comes from; files written by save_system "
                    "need no trust"
                )
            stored = _take_out(root)
        if any(element.get("type") == "TorchForce" for element in root.iter()):
            raise InputError(f"'{path}' holds a TorchForce that does not belong to openmm-nequip")
        system = openmm.XmlSerializer.deserialize(ET.tostring(root, encoding="unicode"))
    except InputError:
        raise
    except (ET.ParseError, zipfile.BadZipFile, LookupError, TypeError, ValueError) as error:
        raise InputError(f"'{path}' is damaged or holds no System: {error}") from None
    except openmm.OpenMMException as error:
        raise InputError(f"OpenMM cannot read the System in '{path}': {error}") from None
    for item in stored:
        kind = force
        if kind == "auto":
            kind = item.settings.kind if not why_not(item.settings.kind) else first_that_works()
        # the device belongs to the machine on which the System was made
        here = replace(item.settings, kind=kind, device=None)
        _insert(system, replace(item, settings=here).build(), item.index)
        if here.interpolate and kind == "torch":
            report_derivative(system)
    return system


def without_potentials(system: openmm.System) -> tuple[ET.Element, list[StoredForce]]:
    """Return a System's XML without the potentials' forces, and these.

    Raises
    ------
    InputError
        OpenMM cannot serialize the System.
    """
    try:
        root = ET.fromstring(openmm.XmlSerializer.serialize(system))
    except openmm.OpenMMException as error:
        raise InputError(f"OpenMM cannot serialize this System: {error}") from None
    # the XML of a TorchForce does not have its name
    stored = [replace(f, name=system.getForce(f.index).getName()) for f in _take_out(root)]
    return root, stored


def _read_archive(content: bytes) -> tuple[ET.Element, list[StoredForce]]:
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        root = ET.fromstring(file.read("system.xml"))
        if _executable(root):
            raise ValueError("system.xml holds code, which save_system never writes")
        stored = []
        for k in range(sum(name.endswith(".json") for name in file.namelist())):
            description = json.loads(file.read(f"force-{k}.json"))
            settings = ForceSettings(**description.pop("settings"))
            model_file = file.read(f"force-{k}.safetensors")
            stored.append(StoredForce(settings=settings, model_file=model_file, **description))
    return root, stored


def _executable(root: ET.Element) -> str:
    """Return the type of a force that holds code, wherever it is nested, or an empty string."""
    types = [element.get("type", "") for element in root.iter()]
    return next((name for name in types if name in _EXECUTABLE), "")


def _take_out(root: ET.Element) -> list[StoredForce]:
    """Remove the potentials' forces from a System's XML and return them."""
    stored: list[StoredForce] = []
    parent = root.find("Forces")
    if parent is None:
        return stored
    for index, element in enumerate(list(parent)):
        kind, recipe = element.get("type"), None
        if kind == "TorchForce":
            import_openmmtorch()
            encoded = bytes.fromhex(element.get("encodedFileContents", ""))
            recipe = torch_force.read(torch.jit.load(io.BytesIO(encoded)))
        elif kind in _EXECUTABLE:
            recipe = _unpickle(bytes.fromhex(element.get("function", "")))
        if recipe is not None:
            group, name = int(element.get("forceGroup", "0")), element.get("name", FORCE_NAME)
            stored.append(StoredForce(index, group, name, *recipe))
            parent.remove(element)
    return stored


def _insert(system: openmm.System, force: openmm.Force, index: int) -> None:
    """Add a force in front of the one at `index`."""
    later = [copy.deepcopy(system.getForce(k)) for k in range(index, system.getNumForces())]
    for _ in later:
        system.removeForce(index)
    for member in (force, *later):
        system.addForce(member)


class _Recipe:
    """Receives the state of a pickled `Computation` without building its network."""

    state: tuple[str, bytes]

    def __setstate__(self, state: tuple[str, bytes]) -> None:
        self.state = state


class _OnlyOurs(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == (Computation.__module__, Computation.__qualname__):
            return _Recipe
        raise pickle.UnpicklingError(f"{module}.{name} is not ours")


def _unpickle(pickled: bytes) -> tuple[ForceSettings, bytes] | None:
    """Return what a `Computation` was built from; `None` if it is another function."""
    try:
        settings, model_file = _OnlyOurs(io.BytesIO(pickled)).load().state
    except (pickle.UnpicklingError, EOFError, AttributeError):
        return None
    return ForceSettings.from_json(settings), model_file
