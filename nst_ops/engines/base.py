"""The interface between what schedules work and what makes pictures.

An engine is one way of making pictures under one set of settings: plain functions that planners
may call for a million rows, none of which starts TensorFlow. In a worker process, `open` returns a
session, which makes the pictures. Nothing outside an engine knows how it does that.

A new engine is one module and a line in `BUILT_IN`; one of another package is an entry point of the
group `nst.engines`, so that `engine: its_name` finds it.
"""

import functools
import importlib
import importlib.metadata
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, ClassVar, NamedTuple, Protocol, cast

import numpy as np
from pydantic import BaseModel

from nst_ops.errors import InputError
from nst_ops.images.inputs import Style
from nst_ops.images.size import Size

BUILT_IN = {
    "optimizer": "nst_ops.engines.optimizer:OptimizerEngine",
    "network": "nst_ops.engines.network:NetworkEngine",
    "hybrid": "nst_ops.engines.hybrid:HybridEngine",
}
DEFAULT = "optimizer"
# The most px that are decoded while another picture is made. Larger files are decoded only in their
# turn, which takes longer; but they are few, and a JPEG is decoded at a reduced size.
READ_AHEAD = 4_000_000
_GROUP = "nst.engines"  # of entry points

# A column of the metadata: `str`, `int`, `float`, or a list of rows that have columns themselves.
ColumnType = type | list["Columns"]
Columns = Mapping[str, Any]  # {name: ColumnType}


class Sources(NamedTuple):
    """Holds how large the files are that a picture needs, so that their memory can be planned."""

    decoded: int = 0  # px, of the largest file
    painting: Size = (0, 0)  # the largest size at which a painting is seen
    paintings: int = 0  # px, of all paintings of a blend together
    regions: int = 0  # parts of the photo that masks tell apart

    def join(self, other: "Sources") -> "Sources":
        """Returns the larger of both in each field."""
        larger = max(self.painting, other.painting, key=math.prod)
        paintings = max(self.paintings, other.paintings)
        regions = max(self.regions, other.regions)
        return Sources(max(self.decoded, other.decoded), larger, paintings, regions)


class Resources(NamedTuple):
    """Holds what a session may use beside the memory that its plans count."""

    cache_bytes: int  # of memory, for what is kept from batch to batch
    cache_dir: str | None  # a folder for the same, shared by processes and runs
    # What a session leaves for later ones in this process, which may have other settings.
    shared: dict[str, Any]


class Plan(Protocol):
    """Says how a batch is computed in the memory that there is. It is a named tuple of plain
    values; its `str` is for people.
    """

    @property
    def bytes(self) -> int:
        """Returns the expected peak memory of the process."""
        ...

    @property
    def variant(self) -> str:
        """Returns which of the engine's `recipes` this makes, by name; "" is what was asked for."""
        ...

    def _asdict(self) -> dict[str, Any]: ...


class NamedStyle(NamedTuple):
    """Stands for a style that an engine knows by name, such as one of a trained network's."""

    name: str
    weight: float


class Batch(NamedTuple):
    """Holds what is needed to make several pictures of one size together."""

    contents: Sequence[np.ndarray]  # [H, W, 3] float32 each, sRGB in [0, 1], at the result's size
    styles: Sequence[Sequence[Style | NamedStyle]]  # a blend for each picture
    seeds: Sequence[int]  # one for each picture
    # The pixels of `initial_file`, [h, w, 3] of any size; or a first picture for each photo.
    initial: np.ndarray | Sequence[np.ndarray] | None = None
    # For each picture where its photo stays as it is, [h, w] in [0, 1] at any size; None: nowhere.
    keeps: Sequence[np.ndarray | None] | None = None
    style_sha256: Sequence[Sequence[str]] = ()  # of each style's file, or what identifies the name

    @property
    def size(self) -> Size:
        """Returns the (height, width) of each picture in px."""
        height, width, _ = self.contents[0].shape
        return height, width

    def take(self, row: int) -> "Batch":
        """Returns the batch of only one of the pictures."""
        several = isinstance(self.initial, Sequence)
        return Batch(
            [self.contents[row]],
            [self.styles[row]],
            [self.seeds[row]],
            [self.initial[row]] if self.initial is not None and several else self.initial,
            self.keeps and [self.keeps[row]],
            self.style_sha256 and [self.style_sha256[row]],
        )


def stack(images: Sequence[np.ndarray]) -> np.ndarray:
    """Returns images as [B, H, W, 3]; a single one, which may be large, is not copied."""
    return images[0][None] if len(images) == 1 else np.stack(images)


class Checkpoint(Protocol):
    """Holds the state of a batch, as a value that outlives its process."""

    def take(self, rows: list[int]) -> "Checkpoint":
        """Returns the checkpoint of the pictures with these indices."""
        ...

    def save(self, file: BinaryIO, **facts: Any) -> None:
        """Writes the checkpoint, and plain values with it."""
        ...


class Painted(NamedTuple):
    """Holds a finished picture that is not yet a file."""

    pixels: np.ndarray  # [H, W, 3] float32, sRGB in [0, 1]
    variant: str  # name of the engine's recipe that made it
    columns: Mapping[str, Any]  # values for the engine's `columns` of the metadata


class Step(NamedTuple):
    """Reports on one step of a session: its progress and, with the last step, the pictures."""

    text: str  # for people
    seconds: float  # that a step takes at present
    share: float  # of the batch's cost that is done by now, in [0, 1]
    stage: str = ""  # for people: the part of the work that ended with this step, if one did
    # Returns what is needed to go on from here another time; None if that cannot be, or is no use.
    checkpoint: Callable[[], Checkpoint] | None = None
    # With the last step only: each picture of the batch, or the error that prevented it.
    pictures: Sequence[Painted | Exception] | None = None


class Session(Protocol):
    """Makes an engine's pictures, in one process."""

    def stylize(
        self, batch: Batch, plan: Plan, *, resume: Callable[[], Checkpoint] | None = None
    ) -> Iterator[Step]:
        """Makes the pictures step by step; the last step holds them.

        Args:
          batch: the photos and styles to make pictures of.
          plan: how to compute them.
          resume: returns the checkpoint of an earlier session with the same batch and plan. It is
            called once, since checkpoints may be large.

        Raises:
          MemoryError: there was less memory than planned for.
        """
        ...

    def retry(self, batch: Batch, plan: Plan, error: Exception) -> Plan | None:
        """Returns another plan for one picture that failed with this error, or None."""
        ...

    def measure_speed(self) -> float:
        """Measures, by a short trial, how many units of `Engine.cost` are done in a second."""
        ...

    def load_checkpoint(self, file: BinaryIO) -> tuple[Checkpoint, dict[str, Any]]:
        """Reads what `Checkpoint.save` wrote: the checkpoint, and the values saved with it.

        Raises:
          InputError: the file is damaged, or of another version.
        """
        ...


class Engine(Protocol):
    """Describes one way of making pictures under one set of settings, without TensorFlow."""

    name: ClassVar[str]
    Settings: ClassVar[type[BaseModel]]  # all that changes the picture, including `size`
    run_wide: ClassVar[frozenset[str]]  # settings that a row of a manifest cannot set
    file_settings: ClassVar[Mapping[str, Sequence[str]]]  # they hold a path, or one of these words
    takes_masks: ClassVar[bool]  # whether paintings may be confined to a part of the photo
    columns: ClassVar[Columns]  # of the metadata, beyond those that every engine fills

    def __init__(self, settings: Any): ...

    @property
    def settings(self) -> Any:
        """Returns the settings, an instance of `Settings`."""
        ...

    def assets(self) -> Mapping[str, str]:
        """Returns the SHA-256 of each file that is needed beside photos and paintings, by what it
        is, such as `weights`.

        Raises:
          InputError: a file cannot be used, or does not fit the settings.
        """
        ...

    @property
    def asset_files(self) -> Sequence[str]:
        """Returns the paths of those `assets` that the user named."""
        ...

    @property
    def initial_file(self) -> str | None:
        """Returns the path of the picture to start from; None if the settings name none."""
        ...

    @property
    def long_side(self) -> int:
        """Returns the long side of a result in px, at most."""
        ...

    @property
    def seed(self) -> int:
        """Returns the seed of everything random, to which each photo adds its own."""
        ...

    @property
    def style_names(self) -> Sequence[str]:
        """Returns the names of the styles that the engine has learned or knows, for people; empty
        if there are none.
        """
        ...

    def named_style(self, name: str) -> str | None:
        """Returns what identifies the style of this name; None if it is no name but a path."""
        ...

    def learned_style(self, sha256: str) -> str | None:
        """Returns the name of the style that was learned from the painting with this hash; None if
        the engine looks at paintings themselves.

        Raises:
          InputError: the engine paints only what it has learned, and not from that painting.
        """
        ...

    def output_size(self, photo: Size) -> Size:
        """Returns the size of the result for a photo of this size.

        Raises:
          InputError: the photo is too small.
        """
        ...

    def style_side(self, painting: Size, picture: Size) -> int:
        """Returns the largest long side in px at which a painting of this size is needed; 0: it is
        not looked at.

        Raises:
          InputError: the painting is too small.
        """
        ...

    def recipes(self, picture: Size) -> Mapping[str, Mapping[str, Any]]:
        """Returns recipes by name. A recipe is all that determines a picture of this size beside
        its files, as plain values. The one under "" is what was asked for; sessions may fall back
        on the others.
        """
        ...

    def batch_size(self, picture: Size, *, accelerator: bool) -> int:
        """Returns how many pictures of this size are best made together."""
        ...

    def cost(self, picture: Size) -> int:
        """Returns what a picture costs at most, in the engine's own unit, proportional to time."""
        ...

    def plan(
        self,
        picture: Size,
        *,
        limit: float,
        batch: int = 1,
        tiling: str | int = "auto",
        sources: Sources = Sources(),  # noqa: B008  # immutable
    ) -> Plan:
        """Returns the fastest plan that stays below `limit` bytes.

        Args:
          picture: size of each picture.
          limit: peak memory of the process in bytes.
          batch: number of pictures at once.
          tiling: `auto`, `off` or the side of tiles in px.
          sources: what has to be read.

        Raises:
          InputError: of code `memory`: no plan fits; one for fewer pictures at once may.
        """
        ...

    def resume_problem(self, before: Mapping[str, Any], now: Plan, *, tiling: str | int) -> str:
        """Returns why a batch that was begun under one plan cannot go on now that another would be
        chosen; "" if it can.

        Args:
          before: the plan that it was begun under, as plain values.
          now: the plan that would be chosen now.
          tiling: as for `plan`.
        """
        ...

    def restore_plan(self, values: Mapping[str, Any]) -> Plan:
        """Returns a plan from its plain values, as `_asdict` gives them."""
        ...

    def open(self, resources: Resources) -> Session:
        """Opens a session in this process, which starts TensorFlow."""
        ...


@functools.cache
def engine_class(name: str) -> type[Engine]:
    """Returns the engine of this name.

    Raises:
      InputError: there is none.
    """
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    for entry in _entry_points():
        if entry.name == name:
            return cast(type[Engine], entry.load())
    known = ", ".join(engine_names())
    raise InputError(f"there is no engine {name!r}; engines are {known}")


def engine_names() -> list[str]:
    """Returns the names of all engines that are installed."""
    return [*BUILT_IN, *(entry.name for entry in _entry_points())]


def all_columns() -> dict[str, Any]:
    """Returns the columns that all installed engines add to the metadata. A name that two engines
    use must mean the same.
    """
    return {
        name: kind for each in engine_names() for name, kind in engine_class(each).columns.items()
    }


@functools.cache
def _entry_points() -> Sequence[importlib.metadata.EntryPoint]:
    return tuple(importlib.metadata.entry_points(group=_GROUP))
