"""Options of a command from a file: its keys are the names of the options, checked as these are."""

import os
from collections.abc import Hashable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import ErrorDetails
from satpipe.pipeline.option import Declared, declared, wanted
from satpipe.pipeline.storage import is_remote
from satpipe.sat.errors import ConfigError

INPUTS = "inputs"
NOTHING = ("", "~", "null")  # as YAML has it: the key counts as not given
SIMILAR = 0.5  # from 0 to 1: how much of an unknown key a suggestion must share


def read_config(path: Path, *options: type) -> dict[str, Any]:
    """Return the options that a YAML file gives.

    Relative paths start from the folder of the file, so that they do not depend on where the command is started.

    Args:
        path: The file.
        options: Dataclasses; each of their options may be a key, and `inputs`, a list of recordings.

    Raises:
        ConfigError: The file cannot be read, a key is unknown, or a value is not allowed.
    """
    known = {each.name: each for of in options for each in declared(of)}
    given = {key.replace("-", "_"): value for key, value in _read(path).items() if value not in NOTHING}
    if isinstance(given.get(INPUTS), str):
        given[INPUTS] = [given[INPUTS]]
    try:
        config = _model(known)(**given)
    except ValidationError as error:
        problems = sorted(error.errors(), key=lambda each: list(given).index(str(each["loc"][0])))
        raise ConfigError(*(f"{path}: {_problem(each, known)}" for each in problems)) from None
    values = {name: getattr(config, name) for name in given}
    return {name: _from_folder(path.absolute().parent, name, value, known.get(name)) for name, value in values.items()}


def _model(known: dict[str, Declared]) -> type[BaseModel]:
    """Return a model with the options as fields."""
    fields: dict[str, Any] = {INPUTS: (tuple[str, ...], ())}
    for name, each in known.items():
        low, high = each.option.minimum, each.option.maximum
        limits = {
            "gt" if each.option.above else "ge": low,
            "lt" if each.option.below else "le": high,
        }
        limited: dict[str, Any] = {key: value for key, value in limits.items() if value is not None}
        fields[name] = (Annotated[each.annotation, Field(**limited)] if limited else each.annotation, None)
    return create_model("Config", __config__=ConfigDict(extra="forbid", allow_inf_nan=False), **fields)


class _Loader(yaml.BaseLoader):
    """Leaves every value as it is written, as on the command line: `off` is a word, and a date is text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key '{key}' occurs twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _read(path: Path) -> dict[str, Any]:
    try:
        given = yaml.load(path.read_text(encoding="utf-8-sig"), _Loader)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is not readable YAML:", *str(error).splitlines()) from error
    if not isinstance(given, dict):
        raise ConfigError(f"{path} must have one option per line, such as 'threshold: 0.2'")
    return given


def _problem(error: ErrorDetails, known: dict[str, Declared]) -> str:
    """Return what is wrong with a value, in the words of the option itself."""
    key, value = str(error["loc"][0]), error["input"]
    if error["type"] == "extra_forbidden":
        near = get_close_matches(key, [INPUTS, *known], n=1, cutoff=SIMILAR)
        return f"unknown key '{key}'" + (f"; did you mean '{near[0]}'?" if near else "")
    if key == INPUTS:
        return f"{INPUTS} must be a list of files, folders or patterns, not {value}"
    return f"{key} must be {wanted(known[key], _number(value)) or 'text'}, not {value}"


def _number(value: Any) -> Any:
    for kind in (int, float):
        try:
            return kind(value)
        except (TypeError, ValueError):
            pass
    return value


def _from_folder(folder: Path, name: str, value: Any, each: Declared | None) -> Any:
    """Return a value whose relative paths start from a folder."""
    if name == INPUTS:
        return tuple(_path(folder, path) for path in value)
    if name == "model":  # a name, a path, or NAME:WEIGHTS
        *tagger, weights = value.split(":", 1)
        return ":".join([*tagger, _path(folder, weights) if (folder / weights).is_file() else weights])
    return _path(folder, value) if each and Path in each.kinds else value


def _path(folder: Path, path: str) -> str:
    return path if is_remote(path) else os.path.normpath(folder / os.path.expanduser(path))
