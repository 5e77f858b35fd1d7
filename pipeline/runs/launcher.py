"""Starts a run, watches over it, and writes its record at the end."""

import contextlib
import functools
import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

from pipeline.errors import ConfigError
from pipeline.jobs.row import STATUSES
from pipeline.manifest.parts import remove_parts
from pipeline.runs.attempts import run_attempts, run_jobs
from pipeline.runs.beam_options import beam_options, make_pipeline, runs_here, with_processes
from pipeline.runs.graph import build
from pipeline.runs.preparation import PreparedRun
from pipeline.runs.record import (
    begin_record,
    end_record,
    failure_stop,
    run_outcome,
    stop_record,
    warn_of_little_space,
)
from pipeline.runs.recovery import finalize_dead_runs
from pipeline.runs.spec import RunSpec
from pipeline.store import locks, records
from pipeline.store.progress import Tally
from pipeline.store.stop_requests import StopRequest, request_stop, stop_requested

_NOTIFY_SECONDS = 10.0


def execute(
    run: PreparedRun,
    show: Callable[[dict[str, Any]], None],
    warn: Callable[[str], None],
    *,
    in_attempts: bool = True,
) -> dict[str, Any]:
    """Runs the pipeline and writes the run's record.

    Args:
      show: called every half second with what `Tally.read` returns.
      warn: called with a message for what went wrong without harm to the run.
      in_attempts: whether the process of a run on this machine, or the job of a run on a cluster,
        is begun anew when it dies; otherwise the pipeline runs once.

    Returns:
      The summary, as in summary.json.

    Raises:
      ConfigError: Beam refuses the options or resource hints; nothing was started.
      LockedError: another run is at work on the folder; nothing was started.
      RuntimeError: the run failed; it has a summary that says so.
    """
    started, (spec, parts, options, arguments) = time.time(), run
    if options.get_all_options().get("template_location"):
        raise ConfigError(
            "--template_location only stores the pipeline, and nst run would take it for done; "
            "use deploy/dataflow/main.py"
        )
    try:
        # Even if an attempt will build its own, so that what is wrong shows before anything begins.
        pipeline = make_pipeline(options)
        build(pipeline, spec)
    except (ValueError, ImportError) as error:
        raise ConfigError(f"Beam's options or resource hints: {error}") from error
    with locks.lock(spec.folder, spec.run_id, spec.shard):
        finalize_dead_runs(spec)
        begun = begin_record(spec, parts)
        warn_of_little_space(spec, warn)
        tally = Tally(spec.folder, spec.run_id)
        try:
            with _watched(spec, tally, show, warn):
                if not in_attempts:
                    pipeline.run().wait_until_finish()
                elif runs_here(options):
                    run_attempts(spec, with_processes(arguments, spec.processes), warn)
                else:
                    job = functools.partial(_run_job, spec, arguments)
                    run_jobs(spec.folder, spec.run_id, job, warn)
            summary = begun | run_outcome(spec, started)
        except Exception as error:
            reason = _short_reason(error)
            failed = StopRequest("error", f"failed: {type(error).__name__}: {reason}")
            summary = begun | stop_record(failed)
            # The next run finds the rows, and makes metadata of them.
            done = tally.read()
            summary |= {status: done[status] for status in STATUSES} | {"errors": {}}
            records.write_record(spec.folder, spec.run_id, "summary.json", summary)
            remove_parts(spec.folder, spec.run_id)
            _notify(spec.config.notify_url, summary, warn)
            raise RuntimeError(reason) from error
        end_record(spec, summary, warn)
    _notify(spec.config.notify_url, summary, warn)
    return summary


def _run_job(spec: RunSpec, arguments: list[str]) -> None:
    """Runs the pipeline once, on a cluster."""
    # Each job gets its own options, as runners change them.
    pipeline = make_pipeline(beam_options(arguments, spec.config, spec.rows))
    build(pipeline, spec)
    try:
        pipeline.run().wait_until_finish()
    except RuntimeError as error:
        raise RuntimeError(_short_reason(error)) from error


def _short_reason(error: Exception) -> str:
    """Returns an error's first line and its root cause, without the traces of Java engines."""
    beginning, *others = str(error).splitlines() or [""]
    causes = [line for line in others if line.startswith("Caused by: ")]
    return "; ".join([beginning, *causes[-1:]]) if causes else str(error)


@contextlib.contextmanager
def _watched(
    spec: RunSpec,
    tally: Tally,
    show: Callable[[dict[str, Any]], None],
    warn: Callable[[str], None],
) -> Iterator[None]:
    done = threading.Event()

    def look() -> None:
        progress = tally.read()
        stop = failure_stop(spec, progress)
        if stop and not stop_requested(spec.folder, spec.run_id):
            request_stop(spec.folder, spec.run_id, *stop)
        show(progress)

    def watch() -> None:
        while not done.wait(0.5):
            try:
                look()
            except Exception as error:  # a full disk, a closed terminal: the run goes on
                warn(f"progress is not shown any more: {type(error).__name__}: {error}")
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        with contextlib.suppress(Exception):
            look()


def _notify(url: str | None, summary: dict[str, Any], warn: Callable[[str], None]) -> None:
    """Posts the summary to a URL, if there is one; a slow or dead server does not delay the end."""
    if url is None:
        return
    failed = ["no answer"]

    def post() -> None:
        try:
            data = json.dumps(summary).encode()
            request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
            urllib.request.urlopen(request, timeout=_NOTIFY_SECONDS).close()
            failed.clear()
        except Exception as error:  # urllib raises many kinds, such as for an invalid port
            failed[:] = [str(error)]

    thread = threading.Thread(target=post, daemon=True)
    thread.start()
    thread.join(_NOTIFY_SECONDS)  # in all; a socket's timeout is for each of its reads
    if failed:
        warn(f"notify_url: the summary could not be posted: {failed[0]}")
