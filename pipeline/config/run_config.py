"""All settings of a run, in one model: those of the run itself, and those of its engine.

To users they are one flat list of keys. `engine` names the engine; its settings are validated by
its own model, and become an `Engine`, which is what the rest of the program asks.
"""

import functools
import os
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import pydantic
from pydantic import ConfigDict, Field
from pydantic_core import InitErrorDetails, PydanticCustomError

from nst_ops.engines.base import DEFAULT, Engine, engine_class, engine_names
from nst_ops.errors import InputError
from nst_ops.images.codec import MAX_PIXELS
from nst_ops.images.size import Size

# A number, or text such as 8GB; Pydantic's own schema has neither the bound nor an example.
Bytes = Annotated[
    pydantic.ByteSize,
    Field(ge=1),
    pydantic.WithJsonSchema({"type": "integer", "minimum": 1, "examples": ["8GB"]}),
]
# Bounds that validators below see to, whose messages name the word, too.
Count = Annotated[int, Field(json_schema_extra={"minimum": 1})]
TileSide = Annotated[int, Field(json_schema_extra={"minimum": 64, "multipleOf": 16})]


class RunConfig(pydantic.BaseModel):
    """What is set once for a run, or by one of its rows."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    engine: Any = Field(  # an Engine
        None,
        description="what makes the pictures; each engine has settings of its own",
        exclude=True,
    )
    format: Literal["png", "jpeg", "webp", "tiff"] = Field(
        "png", description="of the results' files"
    )
    quality: int = Field(
        92, ge=1, le=100, description="of `jpeg` and `webp`; 100 makes `webp` lossless"
    )
    trim: Literal["auto", "off"] | Annotated[int, Field(ge=0, strict=True)] = Field(
        "auto",
        description="margin of a painting's file, such as a scan's white border, that is left out: "
        "what is found, nothing, or so many px at each side",
        json_schema_extra={"unit": "px"},
    )
    batch_size: Literal["auto"] | Count = Field(
        "auto",
        description="pictures of one shape made together; `auto`: small ones on a CPU, about 4 "
        "megapixels where `accelerator` is set",
        json_schema_extra={"unit": "pictures"},
    )
    tiling: Literal["auto", "off"] | TileSide = Field(
        "auto",
        description="`auto`: a picture that would not fit into `memory_limit` is computed in "
        "tiles; `off`: none is; or a tile's side. The picture is the same",
        json_schema_extra={"unit": "px"},
    )
    memory_limit: Bytes | None = Field(
        None,
        description="of a process; set it, and `parallelism`, where a picture must be the same to "
        "the byte whatever else the machine does",
        json_schema_extra={"unit": "bytes", "unset": "70 % of what is free"},
    )
    cache_dir: str | None = Field(
        None,
        description="a local folder that keeps what was computed of paintings, for later runs and "
        "other processes",
        json_schema_extra={"format": "path"},
    )
    parallelism: Literal["auto"] | Count = Field(
        "auto",
        description="how many work on this machine, where no cluster decides; `auto`: by cores, "
        "memory and picture size, or one a GPU",
        json_schema_extra={"unit": "processes"},
    )
    checkpoint_seconds: float | None = Field(
        60.0,
        ge=0,
        allow_inf_nan=False,
        description="between checkpoints inside a picture, beside one after each of its stages; "
        "`null`: none at all",
        json_schema_extra={"unit": "s"},
    )
    timeout_seconds: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="a picture that takes longer fails its row",
        json_schema_extra={"unit": "s"},
    )
    max_failure_ratio: float = Field(
        1.0,
        ge=0,
        le=1,
        description="the run stops, with exit code 1, when more than this share of all its rows "
        "has failed",
    )
    max_pixels: int = Field(
        MAX_PIXELS,
        ge=1,
        description="larger inputs fail their row",
        json_schema_extra={"unit": "px"},
    )
    max_file_bytes: Bytes = Field(
        pydantic.ByteSize(500_000_000),
        description="larger files fail their row",
        json_schema_extra={"unit": "bytes"},
    )
    notify_url: str | None = Field(
        None,
        description="gets the run's summary posted as JSON when the run has ended",
        json_schema_extra={"format": "uri"},
    )
    accelerator: str = Field(
        "",
        description="Beam resource hint for workers, such as "
        "`type:nvidia-l4;count:1;install-nvidia-driver`",
    )
    min_ram: str = Field("", description="Beam resource hint for workers, such as `16GB`")
    slots: int = Field(
        1,
        ge=1,
        description="worker processes that share one machine of a cluster",
        json_schema_extra={"unit": "processes"},
    )

    # Of these, what a row of a manifest may have of its own.
    of_rows: ClassVar[tuple[str, ...]] = ("format", "quality", "trim")

    @pydantic.model_validator(mode="wrap")
    @classmethod
    def _with_engine(cls, values: Any, validate_run: Any) -> "RunConfig":
        """Takes the flat keys apart; all that is wrong in either part is told together."""
        if isinstance(values, cls):
            return values
        values, problems = dict(values), []
        name = values.pop("engine", DEFAULT)
        kind = _engine_kind(name)
        keys = kind.Settings.model_fields.keys() & values.keys()
        own = {key: values.pop(key) for key in keys}
        engine, config = None, None
        try:
            engine = kind(kind.Settings.model_validate(own))
        except pydantic.ValidationError as error:
            problems += error.errors()
        try:
            config = validate_run({**values, "engine": engine})
        except pydantic.ValidationError as error:
            problems += error.errors()
        if config is None or problems:
            raise _validation_error(problems)
        return config

    @pydantic.model_serializer(mode="wrap")
    def _flat(self, dump_run: Any, info: pydantic.SerializationInfo) -> dict[str, Any]:
        own = self.engine.settings.model_dump(mode=info.mode)
        return {"engine": self.engine.name, **own, **dump_run(self)}

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

    @pydantic.field_validator("cache_dir")
    @classmethod
    def _home(cls, path: str | None) -> str | None:
        return os.path.expanduser(path) if path else path

    def changed(self, changes: Mapping[str, Any]) -> "RunConfig":
        """With other values of some keys, validated."""
        return RunConfig.model_validate({**self.model_dump(), **changes}) if changes else self

    def recipes(self, picture: Size) -> dict[str, dict[str, Any]]:
        """What changes a picture of this size, or its file, as plain values: by the engine's
        variants.
        """
        file: dict[str, Any] = {"format": self.format}
        if self.trim != "auto":
            file["trim"] = self.trim
        if self.format in ("jpeg", "webp"):
            file["quality"] = self.quality
        return {name: {**made, **file} for name, made in self.engine.recipes(picture).items()}

    def batch_of(self, picture: Size) -> int:
        """How many pictures of this size are made together."""
        if self.batch_size != "auto":
            return self.batch_size
        return self.engine.batch_size(picture, accelerator=bool(self.accelerator))


def _engine_kind(name: Any) -> type[Engine]:
    try:
        return engine_class(name)
    except (InputError, TypeError) as error:
        message = f"there is no such engine; use {' or '.join(engine_names())}"
        problem = {"type": "unknown_engine", "loc": ("engine",), "input": name, "msg": message}
        raise _validation_error([problem]) from error


def _validation_error(problems: Sequence[Any]) -> pydantic.ValidationError:
    """One error of several, as `ValidationError.errors` describes them."""
    details = [
        InitErrorDetails(
            type=PydanticCustomError(problem["type"], "{message}", {"message": problem["msg"]}),
            loc=problem["loc"],
            input=problem["input"],
        )
        for problem in problems
    ]
    return pydantic.ValidationError.from_exception_data("RunConfig", details)


@functools.cache
def setting_owners() -> dict[str, list[str]]:
    """Which engines have a setting, by its key."""
    owners: dict[str, list[str]] = {}
    for name in engine_names():
        for key in engine_class(name).Settings.model_fields:
            owners.setdefault(key, []).append(name)
    return owners


def row_settings(config: RunConfig) -> tuple[str, ...]:
    """Keys that a row of a manifest may set for itself."""
    engine = config.engine
    own = [key for key in type(engine.settings).model_fields if key not in engine.run_wide]
    return (*own, *RunConfig.of_rows)
