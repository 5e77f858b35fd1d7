"""What a run left behind, read for those who look back: the report, and comparisons of runs."""

import contextlib
import itertools
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow
import yaml

from nst_ops.errors import InputError
from nst_ops.iterates import LOSSES
from pipeline import files
from pipeline.outputs import SCHEMA, Row, read_metadata, read_summary, record_folder

_CURVE_POINTS = 60  # of a loss curve
_LEAST_LOSS = 1e-9  # drawn as zero
_COMPARED = ("output", "manifest_line", "status", "seconds_total", "batch_size")


class Record(NamedTuple):
    """What a run left behind."""

    run_id: str
    summary: dict[str, Any]
    settings: dict[str, str]  # values as JSON
    rows: list[Row]  # in the manifest's order, their curves as `loss_curves` gives them


def read_run(folder: str, run_id: str, columns: Sequence[str] = SCHEMA.names) -> Record:
    """The record of a run that has ended, with these columns of its rows.

    Raises:
      InputError: it is damaged.
    """
    record = record_folder(folder, run_id)
    try:
        summary = read_summary(folder, run_id)
        settings = yaml.safe_load(files.read(files.join(record, "config.yaml")))
        table = read_metadata(folder, run_id, columns)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"the record of run {run_id} is damaged: {error}", path=record) from error
    curves = loss_curves(table) if "loss_curve" in columns else [None] * len(table)
    rows = table.select([name for name in columns if name != "loss_curve"]).to_pylist()
    # By line: a run that died after its metadata, but before its end, has its rows twice.
    once = {r["manifest_line"]: r | {"curve": c} for r, c in zip(rows, curves, strict=True)}
    return Record(run_id, summary, as_json(settings), [once[line] for line in sorted(once)])


def read_previous(folder: str, run: Record, earlier: Sequence[str]) -> Record | None:
    """The last of the `earlier` runs that was of the same shard, as far as `compare` needs it."""
    for run_id in reversed(earlier):
        with contextlib.suppress(InputError, ValueError):  # damaged: nothing to compare with
            if read_summary(folder, run_id)["shard"] == run.summary["shard"]:
                return read_run(folder, run_id, _COMPARED)
    return None


def loss_curves(table: pyarrow.Table) -> list[dict[str, Any] | None]:
    """The rows' loss curves, thinned.

    Returns:
      Per row None, or {steps, starts, total, content, style, tv}: the number of steps, those at
      which a scale starts, and of each loss at most 60 values of round(1000 * log10(loss)), evenly
      spaced, as differences from the one before: a third of the bytes.
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
    """Settings as they are compared and shown."""
    return {name: json.dumps(value) for name, value in settings.items()}


def _levels(losses: pyarrow.Array) -> np.ndarray:
    values = np.nan_to_num(losses.to_numpy(zero_copy_only=False), nan=0.0)
    return np.round(1000.0 * np.log10(np.maximum(values, _LEAST_LOSS))).astype(int)
