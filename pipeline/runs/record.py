"""Writes a run's record when it begins and when it has ended."""

import json
import os
import shlex
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import yaml

from pipeline.errors import ConfigError
from pipeline.manifest.parts import JobParts, remove_parts
from pipeline.report import page
from pipeline.runs.spec import RunSpec
from pipeline.store import file_index, files, layout, locks, metadata, records
from pipeline.store.progress import clear
from pipeline.store.stop_requests import StopRequest, stop_requested
from pipeline.workers.batch_checkpoint import all_checkpoints
from pipeline.workers.limits import DEADLINE_HAS_COME

# For stylized pictures, which are full of strokes; rough guesses, not measured.
_BYTES_PER_PIXEL = {"png": 2.0, "tiff": 3.0, "jpeg": 0.6, "webp": 0.5}


def begin_record(spec: RunSpec, parts: JobParts) -> dict[str, Any]:
    """Writes what is known when a run begins, as it may not live to write more, and returns it."""
    begun = asdict(spec) | {"shard": str(spec.shard), "versions": metadata.versions()}
    del begun["settings"], begun["deadline"]  # one is in config.yaml, the other may be infinite
    path = files.join(layout.record_folder(spec.folder, spec.run_id), "config.yaml")
    try:
        files.write(path, _settings_file(spec))
        records.write_record(spec.folder, spec.run_id, "run.json", begun)
        # Shows now, rather than when the first picture is done, whether pictures can be written.
        trial = files.join(layout.images_folder(spec.folder), f"{spec.run_id}.trial")
        files.write(trial, b"may be deleted\n")
        files.delete(trial)
        parts.publish(spec.folder, spec.run_id)
    except OSError as error:
        what = f"{error.filename}: {error.strerror}"
        raise ConfigError(f"{what}; give another --output") from error
    return begun


def warn_of_little_space(spec: RunSpec, warn: Callable[[str], None]) -> None:
    """Warns if the pictures may not fit on the disk, before a run of many hours begins."""
    if files.is_url(spec.folder):
        return
    side, images = spec.config.engine.long_side, layout.images_folder(spec.folder)
    each = side**2 * _BYTES_PER_PIXEL[spec.config.format]
    left = spec.share
    free = shutil.disk_usage(images if os.path.isdir(images) else spec.folder).free
    if left * each > free:  # counts pictures, perhaps a million, only if it matters
        left = max(0, left - sum(len(names) for _, _, names in os.walk(images)))
    expected = left * each
    if expected > free:
        warn(
            f"{left} pictures of up to {side} px may take {expected / 1e9:.1f} GB, and "
            f"{free / 1e9:.1f} GB are free at {spec.folder}; free some, or lower size"
        )


def run_outcome(spec: RunSpec, started: float) -> dict[str, Any]:
    """Returns how the run ended: seconds, why it was stopped, and counts.

    Raises:
      RuntimeError: pictures that rows tell of are gone.
    """
    metadata.remove_leftovers(spec.folder, spec.run_id)
    table = metadata.read_metadata(spec.folder, spec.run_id, ["status", "error_type", "output"])
    counts = metadata.counts(table)
    if missing := metadata.count_missing(spec.folder, table):
        raise RuntimeError(
            f"{missing} pictures that were there are gone from {layout.images_folder(spec.folder)}"
            "; was it deleted or replaced? run the same command again to make them anew"
        )
    stop = stop_requested(spec.folder, spec.run_id) or failure_stop(spec, counts)
    if counts["deferred"] and not stop:
        stop = StopRequest("deadline", DEADLINE_HAS_COME)
    return {"seconds": round(time.time() - started, 3), **stop_record(stop), **counts}


def stop_record(stop: StopRequest | None) -> dict[str, str]:
    """Returns the columns of a summary that say why its run was stopped."""
    reason, text = stop or StopRequest("", "")
    return {"stopped": text, "stop_reason": reason}


def end_record(spec: RunSpec, summary: dict[str, Any], warn: Callable[[str], None]) -> None:
    """Writes the summary and the report, and removes what the run no longer needs."""
    records.close_record(spec.folder, spec.run_id, summary)
    try:
        page.write_report(spec.folder, spec.run_id)
    except Exception as error:  # the pictures are there, and `nst report` can try again
        warn(f"no report: {type(error).__name__}: {error}")
    file_index.gather(spec.folder, spec.shard, spec.run_id)
    remove_parts(spec.folder, spec.run_id)
    clear(spec.folder, spec.run_id)
    # Checkpoints that no run will need, such as those of rows that were deleted from a manifest.
    strays = all_checkpoints(spec.folder)
    if strays and locks.running(spec.folder) <= {spec.run_id} and _all_is_done(spec.folder):
        for path in strays:
            files.delete(path)


def _all_is_done(folder: str) -> bool:
    """Says whether the last run of every manifest, and of every shard of it, deferred no row."""
    last = {(s["manifest"], s["shard"]): s for s in records.summaries(folder)}
    return all(s["seconds"] is not None and not s["deferred"] for s in last.values())


def failure_stop(spec: RunSpec, counts: dict[str, Any]) -> StopRequest | None:
    """Returns why the run should stop if too many rows failed, as on a wrong mount; else None."""
    rows, ratio = spec.share, spec.config.max_failure_ratio
    if counts["failed"] <= ratio * rows:
        return None
    text = f"{counts['failed']} of {rows} rows failed, more than max_failure_ratio = {ratio:g}"
    return StopRequest("failures", text)


def _settings_file(spec: RunSpec) -> bytes:
    """Returns config.yaml: the settings, headed by the command that runs them again from there."""
    settings = json.loads(spec.settings)
    words = ["nst", "run", "--config", "config.yaml", "--manifest", spec.manifest]
    words += ["--output", spec.folder]
    words += ["--shard", str(spec.shard)] if spec.shard.count > 1 else []
    comments = [shlex.join(words)]
    if settings.pop("notify_url"):
        comments.append("notify_url was set, and is not recorded, as it may hold a secret")
    head = "".join(f"# {comment}\n" for comment in comments)
    return f"{head}{yaml.safe_dump(settings)}".encode()
