"""Writes the records of runs that were killed, which did not live to write them."""

from nst_ops.atomic import TEMPORARY
from nst_ops.errors import InputError
from pipeline.manifest.parts import remove_parts, runs_with_parts
from pipeline.runs.record import stop_record
from pipeline.runs.spec import RunSpec
from pipeline.store import file_index, files, layout, locks, metadata, records
from pipeline.store.journal import recover_dead_runs
from pipeline.store.stop_requests import StopRequest, request_stop


def finalize_dead_runs(spec: RunSpec) -> None:
    """Writes the records of runs of this folder that were killed, and removes their leftovers.

    Args:
      spec: the run that begins now, which holds the folder's lock.
    """
    folder = spec.folder
    # Listed before asking which runs are alive: a run takes its lock before it writes anything.
    begun_runs = files.listing(folder, "runs/*/run.json")
    with_leftovers = metadata.runs_with_leftovers(folder) | runs_with_parts(folder)
    # Object stores have no half-written files.
    half_written = [] if files.is_url(folder) else files.listing(folder, f"**/{TEMPORARY}")
    file_index.gather_dead(folder, spec.shard, lambda: locks.running(folder))
    recover_dead_runs(folder, lambda: locks.running(folder))
    alive = locks.running(folder)
    if alive <= {spec.run_id}:
        for name in half_written:
            files.delete(files.join(folder, name))
    dead = {name.split("/")[1] for name in begun_runs} - alive
    for run_id in sorted(dead):
        path = files.join(layout.record_folder(folder, run_id), "summary.json")
        if not files.exists(path):
            # Stops what a cluster may still be doing for the run.
            request_stop(folder, run_id, "abandoned", "its launcher died")
            with_leftovers.add(run_id)
            try:
                begun = records.read_record(folder, run_id, "run.json")
                table = metadata.read_metadata(folder, run_id, ["status", "error_type"])
            except InputError as error:
                files.set_aside(error)
                continue
            if begun.get("launcher"):
                # A job that still runs on a cluster may need them to end in order.
                with_leftovers.discard(run_id)
            killed = StopRequest("abandoned", "it was killed")
            summary = begun | stop_record(killed) | metadata.counts(table)
            records.write_record(folder, run_id, "summary.json", summary)
    for run_id in with_leftovers & dead:
        metadata.remove_leftovers(folder, run_id)
        remove_parts(folder, run_id)
