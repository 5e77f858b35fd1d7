"""A run's settings from YAML and the command line; every error names the file, the key, the value
and the remedy.
"""

import difflib
import hashlib
import json
import os
import re
import urllib.parse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import pydantic
import yaml
from pydantic import Field

from nst_ops.coarse_to_fine.schedule import Size
from nst_ops.engines.recipe import recipe
from nst_ops.errors import short
from nst_ops.images.codec import MAX_PIXELS
from nst_ops.settings import Settings
from nst_ops.vgg.weights import LAYERS
from pipeline.store import files


class ConfigError(ValueError):
    """A configuration that cannot be used; nothing was started. Its arguments are the problems, one
    a line of its text.
    """

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class DuplicateKeyError(yaml.YAMLError):
    """A key that stands twice in one mapping, of which YAML would silently take the last."""


class RunConfig(Settings):
    """All settings of a run: what changes the picture (`Settings`), how it is stored, and
    limits.
    """

    format: Literal["png", "jpeg", "webp", "tiff"] = Field("png", description="of the results")
    quality: int = Field(92, ge=1, le=100, description="of jpeg and webp (100: lossless webp)")
    batch_size: Literal["auto"] | int = Field(
        "auto", description="pictures of one shape optimised together"
    )
    tiling: Literal["auto", "off"] | int = Field(
        "auto", description="computing large pictures in tiles: `auto`, `off`, or a side in px"
    )
    memory_limit: int | None = Field(
        None, ge=1, description="bytes, or text such as 8GB (default: 70 % of what is free)"
    )
    cache_dir: str | None = Field(
        None, description="local folder for paintings' targets, shared by runs and processes"
    )
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="larger inputs fail their row")
    max_file_bytes: int = Field(500_000_000, ge=1, description="larger files fail their row")
    timeout_seconds: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="a picture that takes longer fails its row",
    )
    checkpoint_seconds: float | None = Field(
        60.0,
        ge=0,
        allow_inf_nan=False,
        description="between checkpoints within a scale, beside one after each; null: none at all",
    )
    max_failure_ratio: float = Field(
        1.0, ge=0, le=1, description="stop the run when more than this share of rows has failed"
    )
    accelerator: str = Field(
        "", description="Beam resource hint, such as type:nvidia-l4;count:1;install-nvidia-driver"
    )
    min_ram: str = Field("", description="Beam resource hint, such as 16GB")
    parallelism: Literal["auto"] | int = Field(
        "auto", description="processes on this machine, where no engine decides (FnApiRunner)"
    )
    slots: int = Field(1, ge=1, description="worker processes that share one machine of a cluster")
    notify_url: str | None = Field(
        None, description="where the summary is posted as JSON when the run has ended"
    )

    @pydantic.field_validator("memory_limit", "max_file_bytes", mode="before")
    @classmethod
    def _bytes(cls, value: Any) -> Any:
        match = re.fullmatch(r"([\d.]+)\s*([KMGT])(i?)B?", str(value), re.IGNORECASE)
        if not match:
            return value
        thousand = 1024 if match[3] else 1000
        return round(float(match[1]) * thousand ** (" KMGT".index(match[2].upper())))

    @pydantic.field_validator("tiling")
    @classmethod
    def _tile_side(cls, value: str | int) -> str | int:
        if isinstance(value, int) and (value < 64 or value % 16):
            raise ValueError("a tile's side must be a multiple of 16, at least 64")
        return value

    @pydantic.field_validator("batch_size", "parallelism")
    @classmethod
    def _at_least_one(cls, value: str | int) -> str | int:
        if isinstance(value, int) and value < 1:
            raise ValueError("must be at least 1, or `auto`")
        return value

    @pydantic.field_validator("notify_url")
    @classmethod
    def _web_address(cls, url: str | None) -> str | None:
        if url is not None:
            parts = urllib.parse.urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError("must be a web address, https://... or http://...")
        return url

    @pydantic.field_validator("cache_dir", "init", "weights")
    @classmethod
    def _home(cls, path: str | None) -> str | None:
        return os.path.expanduser(path) if path and path.startswith("~") else path

    @pydantic.field_validator("content_layers", "style_layers")
    @classmethod
    def _of_vgg19(cls, layers: dict[str, float]) -> dict[str, float]:
        for layer in layers:
            if layer not in LAYERS:
                raise ValueError(f"no layer {layer!r} in VGG19; its layers are {', '.join(LAYERS)}")
        return layers

    @property
    def weights_file(self) -> str | None:
        """The file that `weights` names, if it names one."""
        return None if self.weights in ("embedded", "imagenet") else self.weights

    def recipe(self, size: Size) -> dict[str, Any]:
        """What changes a picture of this size, or its file, as plain values."""
        quality = {"quality": self.quality} if self.format in ("jpeg", "webp") else {}
        return {**recipe(self, size), "format": self.format, **quality}

    def with_adam(self) -> "RunConfig":
        """The settings of what is made where memory is short for L-BFGS."""
        return self.model_copy(update={"optimizer": "adam"})

    def batch_of(self, pixels: int) -> int:
        """How many pictures of so many pixels are optimised together.

        `auto`: on a CPU, batches of pictures over 256 px gain nothing (measured: 379 GFLOP/s for
        one, while at 128 px four together take 326 to 397); a GPU, which `accelerator` asks for, is
        filled by about 4 million pixels.
        """
        if self.batch_size != "auto":
            return self.batch_size
        room = 4_000_000 if self.accelerator else 131_072
        return max(1, min(16, room // pixels))


# Columns a manifest may set for one row.
ROW_SETTINGS = tuple(
    name for name in [*Settings.model_fields, "format", "quality"] if name != "weights"
)


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
            raise ConfigError(f"{path}: not valid YAML: {_reason(error)}") from error
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


def parse_yaml(text: str) -> Any:
    """Plain values from YAML.

    Raises:
      DuplicateKeyError: a key stands twice, naming both lines.
      yaml.YAMLError: not YAML, other values, or aliases.
    """
    try:
        return yaml.load(text, _PlainLoader)
    except yaml.YAMLError:
        raise
    except Exception as error:  # of PyYAML's constructors, such as KeyError for `!!bool x`
        raise yaml.YAMLError(f"{type(error).__name__}: {error}") from error


class _PlainLoader(yaml.SafeLoader):
    """Of YAML 1.1, but as people mean it: `off` is a word, 1e3 a number."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # as PyYAML has it
        first: [kind for kind in kinds if kind[0] != "tag:yaml.org,2002:bool"]
        for first, kinds in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            # Ten lines of them can stand for a billion values.
            raise yaml.YAMLError("aliases are not supported; write the value out")
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}  # of each key
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # a list or mapping, which is no key of ours
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in lines:
                raise DuplicateKeyError(
                    f"line {line}: the key {short(key.value)} stands twice, first on line "
                    f"{lines[name]}; keep one of them"
                )
            lines[name] = line
        return node


_PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"(?:[tT]rue|TRUE|[fF]alse|FALSE)$"), list("tTfF")
)
_PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def spec_hash(recipe: Mapping[str, Any], sources: Mapping[str, Any]) -> str:
    """Identifies a picture by all that it depends on: 16 hex digits."""
    text = json.dumps({"recipe": recipe, "sources": sources}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"--set {override}: expected key=value, such as --set size=512")
    try:
        value = parse_yaml(text)
    except yaml.YAMLError as error:
        reason = _reason(error)
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


def _reason(error: Exception) -> str:
    """Why a text is no YAML, on one line: PyYAML says it on several, with a drawing."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.problem or error.context}"
    return " ".join(str(error).split())


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
