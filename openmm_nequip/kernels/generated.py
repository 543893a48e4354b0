"""Modules of generated source, in files: Numba caches beside the file, Triton reads its lines.

What runs is always the source given, never what a file contains: it is compiled from memory, and
so is what `inspect` returns; a file that differs is replaced.
"""

import linecache
import os
import sys
import tempfile
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import ModuleType

PREFIX = "openmm_nequip_generated_"


def load(name: str, source: str) -> ModuleType:
    """Execute generated source as a module.

    Parameters
    ----------
    name
        An identifier to recognise the module by; the same source gives the same file.
    source
        Python code.
    """
    name = f"{PREFIX}{name}_{sha256(source.encode()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    path = folder() / f"{name}.py"
    _write(path, source)
    return execute(name, str(path), source)


def execute(name: str, path: str, source: str) -> ModuleType:
    """Execute source as the module of this name, said to come from this file."""
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = path
    # no modification time: `linecache` never looks at the file
    linecache.cache[path] = (len(source), None, source.splitlines(keepends=True), path)
    exec(compile(source, path, "exec"), module.__dict__)
    return sys.modules.setdefault(name, module)


@cache
def folder() -> Path:
    """Return the folder of generated files.

    ``$OPENMM_NEQUIP_CACHE``, or ``openmm-nequip/kernels`` in the user's cache folder; a temporary
    one where that cannot be written.
    """
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    chosen = os.environ.get("OPENMM_NEQUIP_CACHE") or f"{base}/openmm-nequip/kernels"
    path = Path(chosen).expanduser().absolute()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except (OSError, RuntimeError):  # RuntimeError: no home
        return Path(tempfile.mkdtemp(prefix="openmm-nequip-"))


def _write(path: Path, source: str) -> None:
    """Write in one step, so that no process sees half a file; leave an equal file as it is."""
    content = source.encode()
    try:
        if path.read_bytes() == content:
            return
    except OSError:
        pass
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
        file.write(content)
    os.replace(file.name, path)
