"""Merges the last runs of all shards into one run with a record of its own: `nst merge`."""

from typing import Any

import pyarrow

from nst_ops.errors import InputError
from pipeline.config.run_config import RunConfig
from pipeline.jobs.shard import Shard
from pipeline.report.history import as_json, read_settings
from pipeline.report.page import write_report
from pipeline.store import files, layout, metadata, records

# Settings that may fit each machine or its schedule, as they do not change a picture.
_OF_MACHINES = RunConfig.model_fields.keys() - {"engine", *RunConfig.of_rows}


def merge_shards(folder: str) -> dict[str, Any]:
    """Gathers the rows of each shard's last run under a new run id; those runs stay as they are.

    Returns:
      The summary; its `merged` lists the ids of the shards' runs.

    Raises:
      InputError: there is no run of any shard, a shard's run is missing or was killed, or the
        shards do not make one manifest together.
    """
    parts = _last_of_each(folder)
    run_id = layout.new_run_id()
    tables = [metadata.read_metadata(folder, part["run_id"]) for part in parts]
    table = pyarrow.concat_tables(tables).sort_by("manifest_line")
    if len(table) != parts[0]["rows"]:
        raise InputError(
            f"the shards have {len(table)} rows together, the manifest had {parts[0]['rows']}; run "
            "the shards again",
            path=folder,
        )
    metadata.write_metadata(folder, run_id, "part-merged.parquet", [table])

    newest = layout.record_folder(folder, max(part["run_id"] for part in parts))
    record = layout.record_folder(folder, run_id)
    files.write(files.join(record, "config.yaml"), files.read(files.join(newest, "config.yaml")))
    summary = {
        **parts[0],
        "run_id": run_id,
        "merged": [part["run_id"] for part in parts],
        "shard": str(Shard()),
        "seconds": max(part["seconds"] for part in parts),
        **next((_stop_of(part) for part in parts if part["stopped"]), _stop_of(parts[0])),
        **metadata.counts(table),
    }
    records.close_record(folder, run_id, summary)
    write_report(folder, run_id)
    return summary


def _stop_of(part: dict[str, Any]) -> dict[str, str]:
    return {name: part[name] for name in ("stopped", "stop_reason")}


def _last_of_each(folder: str) -> list[dict[str, Any]]:
    """Returns the summary of each shard's last run, in the order of the shards."""
    last: dict[Shard, dict[str, Any]] = {}
    newest = Shard()
    for summary in records.summaries(folder):
        shard = Shard.parse(summary["shard"])
        if shard.count > 1:
            newest = shard
            last[shard] = summary
    if newest.count == 1:
        raise InputError(
            "no run with --shard has ended here; there is nothing to merge", path=folder
        )
    wanted = [Shard(number, newest.count) for number in range(1, newest.count + 1)]
    missing = [str(shard) for shard in wanted if shard not in last]
    if missing:
        raise InputError(f"no run of --shard {', '.join(missing)} has ended; run it", path=folder)
    unfinished = [str(shard) for shard in wanted if last[shard]["seconds"] is None]
    if unfinished:
        raise InputError(
            f"the last run of --shard {', '.join(unfinished)} did not end; run it again",
            path=folder,
        )
    parts = [last[shard] for shard in wanted]
    # Compared by content: a manifest may have been rewritten under the same name.
    manifests = {
        part.get("manifest_sha256"): f"{part['manifest']} of {part['rows']} rows" for part in parts
    }
    if len(manifests) > 1:
        names = ", ".join(sorted(set(manifests.values())))
        raise InputError(
            f"the shards' last runs were of different manifests, or of one that was changed in "
            f"between: {names}; run all of them with one",
            path=folder,
        )
    _check_settings(folder, parts)
    return parts


def _check_settings(folder: str, parts: list[dict[str, Any]]) -> None:
    """Raises an InputError if shards differ in a setting that changes pictures."""
    # What a record lacks, since it is older, was as it is by default.
    defaults, first = as_json(RunConfig().model_dump()), {}
    for part in parts:
        found = defaults | read_settings(folder, part["run_id"])
        first = first or found
        for name in found.keys() - _OF_MACHINES:
            if first.get(name) != found.get(name):
                raise InputError(
                    f"the last runs of --shard {parts[0]['shard']} and {part['shard']} had "
                    f"different settings: {name} was {first.get(name)} and {found.get(name)}; run "
                    "one of them again",
                    path=folder,
                )
