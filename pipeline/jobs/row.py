"""A metadata `Row` says, in plain values, what became of one line of the manifest."""

from datetime import datetime
from typing import TypedDict

STATUSES = ("ok", "cached", "failed", "deferred")


class StyleRow(TypedDict):
    """Names one style of a blend and its weight."""

    path: str  # or the name of a style that the engine has
    weight: float


class MaskRow(TypedDict):
    """Names the masks of one style; null where it has none."""

    photo: str | None  # where its strokes go
    painting: str | None  # from where they come


class TrimRow(TypedDict):
    """Says what was left out of a painting's file as its margin, in px of the file."""

    top: int
    bottom: int
    left: int
    right: int


class Row(TypedDict):
    """Lists the columns that every row has.

    Rows also have the columns of all engines (`Engine.columns`), which are null where another
    engine was at work, or none.
    """

    run_id: str
    job_id: str
    manifest_line: int
    status: str  # one of STATUSES
    error_type: str | None
    error_code: str | None  # of an InputError
    error_message: str | None
    error_path: str | None  # the file at fault
    content: str
    styles: list[StyleRow]
    masks: list[MaskRow] | None  # for each style, if any has one
    keep: str | None  # mask of what stays as in the photo
    style_trims: list[TrimRow] | None  # for each painting, of a picture that was made
    output: str  # relative to the images folder
    engine: str | None
    height: int | None
    width: int | None
    seed: int | None
    spec_hash: str | None
    content_sha256: str | None
    style_sha256: list[str] | None
    batch_size: int | None  # pictures made together; they share the seconds
    threads: int | None  # of the process; sums in another order differ in rounding
    seconds_total: float | None
    peak_memory_bytes: int | None  # of the worker process, so far
    worker: str | None  # host:process
    device: str | None
    precision: str | None
    versions: str  # JSON
    started_at: datetime | None
    finished_at: datetime
    schema_version: int
