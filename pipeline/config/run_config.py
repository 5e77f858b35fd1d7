"""A run's settings from YAML and the command line; every error names the file, the key, the value
and the remedy.
"""

import hashlib
import json
import os
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any, Literal

import pydantic
from pydantic import Field

from nst_ops.engines.recipe import recipe
from nst_ops.images.codec import MAX_PIXELS
from nst_ops.images.size import Size
from nst_ops.settings import Settings
from nst_ops.vgg.weights import LAYERS


class RunConfig(Settings):
    """All settings of a run: what changes the picture (`Settings`), how it is stored, and
    limits.
    """

    format: Literal["png", "jpeg", "webp", "tiff"] = Field("png", description="of the results")
    quality: int = Field(92, ge=1, le=100, description="of jpeg and webp (100: lossless webp)")
    batch_size: Literal["auto"] | int = Field(
        "auto", description="pictures of one shape optimized together"
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
        """How many pictures of so many pixels are optimized together.

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


def spec_hash(recipe: Mapping[str, Any], sources: Mapping[str, Any]) -> str:
    """Identifies a picture by all that it depends on: 16 hex digits."""
    text = json.dumps({"recipe": recipe, "sources": sources}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
