"""Typed configuration files: YAML in, a validated object out, one clear line when it is wrong."""

import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import InputError, did_you_mean

#: What pydantic adds to a key's location to name one of its possible types.
_ALTERNATIVE = re.compile(r"(constrained-)?(str|int|float|bool)|[a-z-]+\[.*\]")


class Config(BaseModel):
    """Base of every configuration: an unknown key is an error, defaults are validated."""

    model_config = ConfigDict(extra="forbid", validate_default=True, protected_namespaces=())


C = TypeVar("C", bound=Config)


def load_config(cls: type[C], path: str | Path, overrides: Sequence[str] = ()) -> C:
    """Read a YAML file, apply ``section.key=value`` overrides and validate the result.

    Raises
    ------
    InputError
        The file is missing or not YAML, or a key or value is wrong.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except FileNotFoundError:
        raise InputError(f"configuration file '{path}' does not exist") from None
    except OSError as error:
        raise InputError(f"cannot read configuration file '{path}': {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold 'key: value' lines, found {type(values).__name__}")
    for override in overrides:
        _apply_override(values, override)
    where = f"{path} with {' '.join(overrides)}" if overrides else str(path)
    return parse_config(cls, values, where)


def search_folders(key: str, beside: Path, overrides: Sequence[str]) -> list[Path]:
    """Return where to look for a file that a configuration names, first things first.

    A path in the configuration file holds from the folder of that file, one given on the command
    line from the working directory. Where there is no such file, it is looked for in the other.

    Parameters
    ----------
    key
        That names the file, as ``data.file``.
    beside
        The folder of the configuration file.
    overrides
        What the command line has changed, as ``key=value``.
    """
    typed = {override.partition("=")[0].strip() for override in overrides}
    return [Path(), beside] if key in typed else [beside, Path()]


def locate(
    name: str, folders: Sequence[Path], is_there: Callable[[Path], bool] = Path.is_file
) -> str:
    """Return the first path of this name that is there, or the name itself."""
    return next((str(f / name) for f in folders if is_there(f / name)), name)


def parse_config(cls: type[C], values: Mapping[str, Any], where: str) -> C:
    """Validate a mapping as `cls`; `where` names its origin in the error message."""
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        problems = [_explain(cls, problem) for problem in error.errors()]
        raise InputError(f"{where}: " + "; ".join(dict.fromkeys(problems))) from None


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise InputError(f"override '{override}' is not of the form section.key=value")
    *sections, last = key.strip().split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise InputError(f"override '{override}': '{section}' is a value, not a section")
        values = inner
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputError(f"override '{override}': '{text}' is not a YAML value") from None


def _explain(cls: type[Config], problem: Any) -> str:
    """Turn one pydantic problem into words, with the nearest key for a misspelt one."""
    location = [
        part
        for part in problem["loc"]
        if isinstance(part, str) and not _ALTERNATIVE.fullmatch(part)
    ]
    name = ".".join(location)
    if problem["type"] == "extra_forbidden":
        known = _fields_at(cls, location[:-1])
        return f"unknown key '{name}'{did_you_mean(location[-1], known)}"
    if problem["type"] == "missing":
        return f"required key '{name}' is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if not name:
        return message
    given = problem.get("input")
    shown = f" (found {given!r})" if isinstance(given, str | int | float | bool) else ""
    return f"key '{name}': {message[:1].lower()}{message[1:]}{shown}"


def _fields_at(cls: type[Config], location: list[str]) -> list[str]:
    models: list[type[BaseModel]] = [cls]
    for part in location:
        inner: list[type[BaseModel]] = []
        for model in models:
            if part in model.model_fields:
                inner += _models_in(model.model_fields[part].annotation)
        models = inner or models
    return [field for model in models for field in model.model_fields]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is not None:
        return [m for argument in typing.get_args(annotation) for m in _models_in(argument)]
    return []
