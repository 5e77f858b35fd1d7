"""Reads the records of past runs, for the report and for comparisons of runs."""

import contextlib
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow
import yaml

from nst_ops.errors import InputError
from pipeline.jobs.row import Row
from pipeline.store import files
from pipeline.store.layout import record_folder
from pipeline.store.metadata import read_metadata
from pipeline.store.records import read_summary

LOSSES = (
    "total",
    "content",
    "style",
    "tv",
    "attention",
)  # in the loss curves of engines that have any
_CURVE_POINTS = 60  # of a loss curve
_LEAST_LOSS = 1e-9  # drawn as zero
_OUTCOME = (
    *("output", "manifest_line", "status", "seconds_total", "batch_size"),
    *("error_type", "error_message", "error_path", "device", "precision"),
)
_MOST_ROWS = 10_000  # that a report shows


class Record(NamedTuple):
    """Holds what is known of a run that has ended."""

    run_id: str
    summary: dict[str, Any]
    settings: dict[str, str]  # values as JSON
    outcomes: pyarrow.Table  # what became of each row, in the manifest's order
    # All rows, or some of very many, with the engines' columns; curves are those of `loss_curves`.
    rows: list[dict[str, Any]]

    def each_outcome(self) -> Iterator[Row]:
        """Yields the outcomes one by one: a million at once would take gigabytes."""
        for batch in self.outcomes.to_batches(max_chunksize=8192):
            yield from batch.to_pylist()


def read_run(folder: str, run_id: str, *, most_rows: int = _MOST_ROWS) -> Record:
    """Reads the record of a run that has ended, with at most `most_rows` rows in full.

    Raises:
      InputError: the record is damaged.
    """
    record = record_folder(folder, run_id)
    try:
        summary = read_summary(folder, run_id)
        settings = read_settings(folder, run_id)
        outcomes = _last_rows(read_metadata(folder, run_id, _OUTCOME))
        lines = _choose_lines(outcomes, most_rows)
        table = _last_rows(read_metadata(folder, run_id, lines=lines)) if len(lines) else None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"the record of run {run_id} is damaged: {error}", path=record) from error
    rows: list[dict[str, Any]] = []
    if table is not None:
        plain = table.select([name for name in table.column_names if name != "loss_curve"])
        curves = loss_curves(table)
        rows = [r | {"curve": c} for r, c in zip(plain.to_pylist(), curves, strict=True)]
    return Record(run_id, summary, settings, outcomes, rows)


def read_settings(folder: str, run_id: str) -> dict[str, str]:
    """Returns the settings of a run: {name: value as JSON}."""
    path = files.join(record_folder(folder, run_id), "config.yaml")
    return as_json(yaml.safe_load(files.read(path)))


def read_previous(folder: str, record: Record, earlier: Sequence[str]) -> Record | None:
    """Reads what `compare` needs of the last of the `earlier` runs of the same shard, if any."""
    for run_id in reversed(earlier):
        with contextlib.suppress(InputError, ValueError):  # damaged: nothing to compare with
            if read_summary(folder, run_id)["shard"] == record.summary["shard"]:
                return read_run(folder, run_id, most_rows=0)
    return None


def _last_rows(table: pyarrow.Table) -> pyarrow.Table:
    """Keeps the last row of each line, in the manifest's order.

    A run that died after writing its metadata, but before its end, may have its rows twice.
    """
    lines = table["manifest_line"].to_numpy()
    _, last = np.unique(lines[::-1], return_index=True)
    return table.take(pyarrow.array(len(lines) - 1 - last))


def _choose_lines(outcomes: pyarrow.Table, most: int) -> pyarrow.Array:
    """Chooses the lines of the rows to show in full.

    These are all lines, or if there are too many, as many of rows without a picture as of others,
    evenly spaced.
    """
    lines = outcomes["manifest_line"].to_numpy()
    if len(lines) <= most:
        return pyarrow.array(lines)
    made = np.isin(outcomes["status"].to_numpy(zero_copy_only=False), ["ok", "cached"])
    without = _sample(lines[~made], max(most // 2, most - made.sum()))
    return pyarrow.array(np.concatenate([without, _sample(lines[made], most - len(without))]))


def _sample(lines: np.ndarray, most: int) -> np.ndarray:
    count = min(len(lines), most)
    return lines[np.linspace(0, len(lines) - 1, count).round().astype(int)]


def loss_curves(table: pyarrow.Table) -> list[dict[str, Any] | None]:
    """Returns the rows' loss curves, thinned out.

    Returns:
      Per row None, or {steps, starts, total, content, style, tv, attention}: the number of steps,
      those at which a scale starts, and of each loss at most 60 values of
      round(1000 * log10(loss)), evenly spaced, as differences from the one before: a third of the
      bytes.
    """
    column = table["loss_curve"].combine_chunks()
    offsets, points = column.offsets.to_numpy(), column.values
    scales = points.field("scale").to_numpy(zero_copy_only=False)
    levels = {name: _levels(points.field(name)) for name in LOSSES}
    curves: list[dict[str, Any] | None] = []
    for start, end in itertools.pairwise(offsets.tolist()):
        if start == end:
            curves.append(None)
            continue
        steps = end - start
        keep = np.linspace(start, end - 1, min(steps, _CURVE_POINTS)).round().astype(int)
        starts = np.flatnonzero(np.diff(scales[start:end], prepend=-1)).tolist()
        differences = {name: np.diff(levels[name][keep], prepend=0).tolist() for name in LOSSES}
        curves.append({"steps": steps, "starts": starts, **differences})
    return curves


def as_json(settings: dict[str, Any]) -> dict[str, str]:
    """Returns settings with their values as JSON, as they are compared and shown."""
    return {name: json.dumps(value) for name, value in settings.items()}


def _levels(losses: pyarrow.Array) -> np.ndarray:
    values = np.nan_to_num(losses.to_numpy(zero_copy_only=False), nan=0.0)
    return np.round(1000.0 * np.log10(np.maximum(values, _LEAST_LOSS))).astype(int)
