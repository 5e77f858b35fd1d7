"""Reads a run's settings from YAML and the command line.

Every error names the file, the key, the value and the remedy.
"""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pydantic
import yaml

from nst_ops.engines.base import DEFAULT, engine_class
from nst_ops.errors import short
from pipeline.config.plain_yaml import DuplicateKeyError, parse_yaml, yaml_problem
from pipeline.config.run_config import RunConfig, setting_owners
from pipeline.errors import ConfigError
from pipeline.store import files


def load_config(path: str | None, overrides: Iterable[str] = ()) -> RunConfig:
    """Reads a YAML file, or takes the defaults without one, and applies overrides.

    Args:
      path: of the YAML file, or None.
      overrides: `key.path=value` each, where the value is YAML.

    Raises:
      ConfigError: the settings cannot be used; it has all problems, one a line.
    """
    values = read_values(path, overrides)
    config = validate(values, path or "--set")
    # Paths become absolute, as workers may have another working folder.
    settings = config.engine.settings
    named = {"cache_dir": config.cache_dir}
    for key, words in config.engine.file_settings.items():
        value = getattr(settings, key)
        named[key] = None if value in words else value
    return config.changed({key: files.absolute(path) for key, path in named.items() if path})


def read_values(path: str | None, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Reads keys and values from a YAML file, if one is given, and applies overrides.

    Args:
      path: of the YAML file, or None.
      overrides: `key.path=value` each, where the value is YAML.

    Raises:
      ConfigError: the file cannot be read, or holds something else.
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
    return values


def validate(values: Mapping[str, Any], where: str = "") -> RunConfig:
    """Returns the settings, or raises a `ConfigError` whose problems begin with `where`."""
    try:
        return RunConfig.model_validate(values)
    except pydantic.ValidationError as error:
        begin = f"{where}: " if where else ""
        problems = [f"{begin}{_explain(p, values)}" for p in error.errors()]
        raise ConfigError(*problems) from error


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


def _explain(problem: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    if problem["type"] != "extra_forbidden":
        return explain(problem, ())
    key, engine = _key(problem), str(values.get("engine", DEFAULT))
    owners = setting_owners().get(key)
    if not owners:
        return explain(
            problem, [*engine_class(engine).Settings.model_fields, *RunConfig.model_fields]
        )
    others = " and ".join(f"`engine: {owner}`" for owner in owners)
    return f"{key!r} is a setting of {others}, and this is `engine: {engine}`; leave it out"


def explain(problem: Mapping[str, Any], known: Iterable[str]) -> str:
    """Returns what is wrong with a key or its value, as Pydantic describes it, in our words.

    Args:
      problem: one of `pydantic.ValidationError.errors()`.
      known: the keys that there are.
    """
    key = _key(problem)
    if problem["type"] == "extra_forbidden":
        close = difflib.get_close_matches(key, known := list(known), n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"keys are {', '.join(known)}"
        return f"unknown key {key!r}; {hint}"
    message = problem["msg"].removeprefix("Value error, ")
    if not key:
        return message
    given = short(problem["input"])
    return f"{key}: {given} is not usable: {message[0].lower()}{message[1:]}"


def _key(problem: Mapping[str, Any]) -> str:
    # Pydantic names the branches of a union too, such as `scales.list[Scale].0.size`.
    parts = [
        str(p) for p in problem["loc"] if not str(p).startswith(("list[", "literal[", "function"))
    ]
    return ".".join(p for p in parts if p not in ("int", "str", "constrained-int"))
