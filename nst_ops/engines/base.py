"""What makes pictures: the seam between whoever schedules work and whoever paints.

An engine is one way of making pictures under one set of settings: plain functions that planners
may call for a million rows, none of which starts TensorFlow. `open` gives a session, which does the
painting, in a worker process. Nothing outside an engine knows how it paints.

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

BUILT_IN = {"optimizer": "nst_ops.engines.optimizer:OptimizerEngine"}
DEFAULT = "optimizer"
# The most px that are decoded while another picture is made: more take longer, but few files
# have so many, and of a JPEG no more is decoded than is needed.
READ_AHEAD = 4_000_000
_GROUP = "nst.engines"  # of entry points

# A column of the metadata: `str`, `int`, `float`, or a list of rows that have columns themselves.
ColumnType = type | list["Columns"]
Columns = Mapping[str, Any]  # {name: ColumnType}


class Sources(NamedTuple):
    """What has to be read for a picture, as far as it takes memory."""

    decoded: int = 0  # px, of the largest file
    painting: Size = (0, 0)  # as the largest is seen

    def join(self, other: "Sources") -> "Sources":
        """Of both."""
        larger = max(self.painting, other.painting, key=math.prod)
        return Sources(max(self.decoded, other.decoded), larger)


class Resources(NamedTuple):
    """What a session may use beside the memory of its plans."""

    cache_bytes: int  # of memory, for what is kept from batch to batch
    cache_dir: str | None  # a folder for the same, shared by processes and runs
    # What sessions of this process hand to those after them, perhaps under other settings.
    shared: dict[str, Any]


class Plan(Protocol):
    """How a batch is computed in the memory that there is: a named tuple of plain values, whose
    text is for people.
    """

    @property
    def bytes(self) -> int:
        """The expected peak of the process."""
        ...

    @property
    def variant(self) -> str:
        """Which of the engine's `recipes` this makes; "" is what was asked for."""
        ...

    def _asdict(self) -> dict[str, Any]: ...


class NamedStyle(NamedTuple):
    """A style that an engine knows by name, such as one of a network's."""

    name: str
    weight: float


class Batch(NamedTuple):
    """Pictures of one size that are made together."""

    contents: Sequence[np.ndarray]  # [H, W, 3] float32 each, sRGB in [0, 1], at the result's size
    styles: Sequence[Sequence[Style | NamedStyle]]  # a blend each
    seeds: Sequence[int]
    initial: np.ndarray | None = None  # [h, w, 3] of any size: what `initial_file` holds

    @property
    def size(self) -> Size:
        """Of each picture."""
        height, width, _ = self.contents[0].shape
        return height, width

    def take(self, row: int) -> "Batch":
        """One of the pictures by itself."""
        return Batch([self.contents[row]], [self.styles[row]], [self.seeds[row]], self.initial)


class Checkpoint(Protocol):
    """Where a batch stands, as a value that outlives its process."""

    def take(self, rows: list[int]) -> "Checkpoint":
        """Of some of the pictures."""
        ...

    def save(self, file: BinaryIO, **facts: Any) -> None:
        """Writes it, and plain values with it."""
        ...


class Painted(NamedTuple):
    """A picture that is not yet a file."""

    pixels: np.ndarray  # [H, W, 3] float32, sRGB in [0, 1]
    variant: str  # which of the engine's recipes made it
    columns: Mapping[str, Any]  # of the metadata, by the engine's `columns`


class Step(NamedTuple):
    """What a session has done since the one before, and where that has led."""

    text: str  # for people
    seconds: float  # that a step takes, at present
    share: float  # of the batch's cost that is done by now, in [0, 1]
    stage: str = ""  # for people: a part of the work that has ended with this step
    # To go on from here another time; None where there is no such place, or nothing to win.
    checkpoint: Callable[[], Checkpoint] | None = None
    # Of the last step: a picture for each of the batch, or what prevented it.
    pictures: Sequence[Painted | Exception] | None = None


class Session(Protocol):
    """An engine at work, in one process."""

    def stylize(
        self, batch: Batch, plan: Plan, *, resume: Callable[[], Checkpoint] | None = None
    ) -> Iterator[Step]:
        """Makes the pictures step by step; the last step has them.

        Args:
          resume: gives where an earlier session had come to with the same batch and plan. It is
            called once, as what it gives may be large.

        Raises:
          MemoryError: there was less than planned for.
        """
        ...

    def retry(self, batch: Batch, plan: Plan, error: Exception) -> Plan | None:
        """Another way to make one picture that failed like this; None if there is none."""
        ...

    def measure_speed(self) -> float:
        """Units of `Engine.cost` that are done a second, by a short trial."""
        ...

    def load_checkpoint(self, file: BinaryIO) -> tuple[Checkpoint, dict[str, Any]]:
        """What `Checkpoint.save` wrote.

        Raises:
          InputError: it is damaged, or of another version.
        """
        ...


class Engine(Protocol):
    """One way of making pictures, under one set of settings; starts no TensorFlow."""

    name: ClassVar[str]
    Settings: ClassVar[type[BaseModel]]  # all that changes the picture, with `size` among it
    run_wide: ClassVar[frozenset[str]]  # settings that single rows cannot have
    file_settings: ClassVar[Mapping[str, Sequence[str]]]  # that hold a path, or one of these words
    columns: ClassVar[Columns]  # of the metadata, that only this engine fills

    def __init__(self, settings: Any): ...

    @property
    def settings(self) -> Any:
        """Of the model `Settings`."""
        ...

    def assets(self) -> Mapping[str, str]:
        """SHA-256 of the files that it works with beside photos and paintings, by what they are.

        Raises:
          InputError: one cannot be used, or does not go with the settings.
        """
        ...

    @property
    def asset_files(self) -> Sequence[str]:
        """Of those, the ones that a user named."""
        ...

    @property
    def initial_file(self) -> str | None:
        """A picture to start from, if the settings name one."""
        ...

    @property
    def long_side(self) -> int:
        """Of a result, in px, at most."""
        ...

    @property
    def seed(self) -> int:
        """Of everything random, to which each photo adds its own."""
        ...

    def named_style(self, name: str) -> str | None:
        """What identifies the style of this name; None if it names none, and so is a path."""
        ...

    def output_size(self, photo: Size) -> Size:
        """The result's size for a photo.

        Raises:
          InputError: the photo is too small.
        """
        ...

    def style_side(self, painting: Size, picture: Size) -> int:
        """Long side in px at which a painting of this size is needed at most.

        Raises:
          InputError: the painting is too small.
        """
        ...

    def recipes(self, picture: Size) -> Mapping[str, Mapping[str, Any]]:
        """All that makes a picture of this size what it is, beside its files, as plain values: of
        what is asked for, under "", and of what sessions may fall back on, under its name.
        """
        ...

    def batch_size(self, picture: Size, *, accelerator: bool) -> int:
        """How many pictures of this size are best made together."""
        ...

    def cost(self, picture: Size) -> int:
        """Of one picture, at most, in a unit of the engine's own that time is proportional to."""
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
        """The fastest way that stays below `limit` bytes.

        Raises:
          InputError: of the code `memory`: nothing fits; fewer pictures at once may.
        """
        ...

    def resume_problem(self, before: Mapping[str, Any], now: Plan, *, tiling: str | int) -> str:
        """Why a batch that was begun with one plan, as plain values, cannot go on where it would
        now begin with another; "" if it can.
        """
        ...

    def restore_plan(self, values: Mapping[str, Any]) -> Plan:
        """A plan from its plain values."""
        ...

    def open(self, resources: Resources) -> Session:
        """To work with, in this process; here TensorFlow starts."""
        ...


@functools.cache
def engine_class(name: str) -> type[Engine]:
    """The engine of this name.

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
    """Of all engines that are installed."""
    return [*BUILT_IN, *(entry.name for entry in _entry_points())]


def all_columns() -> dict[str, Any]:
    """What engines that are installed add to the metadata; a name that two use means the same."""
    return {
        name: kind for each in engine_names() for name, kind in engine_class(each).columns.items()
    }


@functools.cache
def _entry_points() -> Sequence[importlib.metadata.EntryPoint]:
    return tuple(importlib.metadata.entry_points(group=_GROUP))
