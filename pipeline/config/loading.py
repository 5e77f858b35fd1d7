"""A run's settings from YAML and the command line; every error names the file, the key, the value
and the remedy."""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pydantic
import yaml

from nst_ops.errors import short
from pipeline.config.plain_yaml import DuplicateKeyError, parse_yaml, yaml_problem
from pipeline.config.run_config import RunConfig
from pipeline.errors import ConfigError
from pipeline.store import files


def load_config(path: str | None, overrides: Iterable[str] = ()) -> RunConfig:
    """Reads a YAML file (or none: defaults) and applies `key.path=value` overrides, values being
    YAML.

    Raises:
      ConfigError: with all that is wrong, one problem a line.
    """
    values = {}
    if path is not None:
        try:
            values = parse_yaml(Path(path).read_text(encoding="utf-8-sig"))
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}; give an existing YAML file") from error
        except DuplicateKeyError as error:
            raise ConfigError(f"{path}: {error}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not valid YAML: {yaml_problem(error)}") from error
        values = {} if values is None else values
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: expected `key: value` lines, got a {type(values).__name__}")
    for override in overrides:
        _override(values, override)
    config = validate(values, path or "--set")
    # Workers may have another working folder.
    paths = {
        "init": config.init_file,
        "weights": config.weights_file,
        "cache_dir": config.cache_dir,
    }
    return config.model_copy(update={key: files.absolute(p) for key, p in paths.items() if p})


def validate(values: Mapping[str, Any], where: str) -> RunConfig:
    """The settings, or a `ConfigError` that begins with `where`."""
    try:
        return RunConfig.model_validate(values)
    except pydantic.ValidationError as error:
        raise ConfigError(*(f"{where}: {_explain(p)}" for p in error.errors())) from error


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"--set {override}: expected key=value, such as --set size=512")
    try:
        value = parse_yaml(text)
    except yaml.YAMLError as error:
        reason = yaml_problem(error)
        raise ConfigError(f"--set {override}: the value is not valid YAML: {reason}") from error
    *parents, last = key.split(".")
    target: Any = values
    try:
        for part in parents:
            if isinstance(target, list):
                target = target[int(part)]
            elif part.isdigit():
                raise TypeError
            else:
                target = target.setdefault(part, {})
        if isinstance(target, list):
            target[int(last)] = value
        elif isinstance(target, dict):
            target[last] = value
        else:
            raise TypeError
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise ConfigError(
            f"--set {override}: {key!r} is not there; a list's entries count from 0 and must be "
            "in the config "
            "(`scales: auto` has none: list the scales, or set `steps`)"
        ) from error


def _explain(problem: Mapping[str, Any]) -> str:
    # Pydantic names the branches of a union too, such as `scales.list[Scale].0.size`.
    parts = [
        str(p) for p in problem["loc"] if not str(p).startswith(("list[", "literal[", "function"))
    ]
    key = ".".join(p for p in parts if p not in ("int", "str"))
    if problem["type"] == "extra_forbidden":
        close = difflib.get_close_matches(key, list(RunConfig.model_fields), n=1)
        hint = (
            f"did you mean {close[0]!r}?"
            if close
            else f"keys are {', '.join(RunConfig.model_fields)}"
        )
        return f"unknown key {key!r}; {hint}"
    message = problem["msg"].removeprefix("Value error, ")
    if not key:
        return message
    given = short(problem["input"])
    return f"{key}: {given} is not usable: {message[0].lower()}{message[1:]}"
