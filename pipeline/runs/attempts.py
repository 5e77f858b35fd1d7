"""Runs a pipeline on this machine in a process of its own, anew when it or one of its workers dies.

Beam's local runner cannot go on after a worker has died. A new attempt finds what is done by then,
and makes only what is missing. A row fails if two workers died over its picture; a picture that was
being made when a worker died is then made in a batch of its own.

`python -m pipeline.runs.attempts` is the process of one attempt; `run_attempts` starts it.
"""

import contextlib
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pipeline.machine.messages import is_verbose, tell_warnings
from pipeline.machine.signals import ignore_signals
from pipeline.machine.tensorflow_setup import quiet_logs
from pipeline.store import file_index, metadata
from pipeline.store.journal import Journal, count_deaths
from pipeline.store.progress import forget_doings, longest_step
from pipeline.store.stop_requests import StopRequest, request_stop, stop_requested
from pipeline.workers.limits import DEADLINE_HAS_COME

if TYPE_CHECKING:
    from pipeline.runs.spec import RunSpec

# Seconds that workers have to stop in order, on top of the longest step that one is in.
GRACE = 120.0
CLOSING = 600.0  # seconds for an attempt that only writes the rows of the ones before
_MOST_VAIN_ATTEMPTS = 3  # that die one after the other without finishing a picture
_PIPELINE_FAILED, _WORKER_DIED = 1, 75  # exit codes


def run_attempts(spec: "RunSpec", arguments: Sequence[str], warn: Callable[[str], None]) -> None:
    """Runs the pipeline to its end, in as many attempts as it takes.

    An attempt that does not end `GRACE` seconds and a step after a stop was requested, or after the
    deadline, is killed; its rows are deferred.

    Args:
      arguments: Beam's options from the command line.
      warn: called with a message for each worker that died.

    Raises:
      RuntimeError: the pipeline failed, or nothing could be done for several attempts.
    """
    died, done, patience = 0, 0, GRACE
    while True:
        attempt = _Attempt(spec, arguments, patience)
        code = attempt.wait()
        if code == 0:
            return
        if code == _PIPELINE_FAILED:
            raise RuntimeError(attempt.message)
        count_deaths(spec.folder, spec.run_id)
        attempt.kill()
        forget_doings(spec.folder, spec.run_id)
        # So that the next attempt need not read again what this one has read.
        file_index.gather(spec.folder, spec.shard, spec.run_id)
        if attempt.hung:
            if patience == CLOSING:
                raise RuntimeError("workers do not answer, though they were begun anew")
            patience = CLOSING
            stop = stop_requested(spec.folder, spec.run_id)
            stop = stop or StopRequest("deadline", DEADLINE_HAS_COME)
            request_stop(spec.folder, spec.run_id, *stop)
            warn(f"{stop.text}, and a worker did not answer: it was ended, its rows are deferred")
            continue
        warn(f"{attempt.message or 'a process of this run died'}; going on without it")
        finished = Journal.of_run(spec.folder, spec.run_id).finished
        died = 1 if finished > done else died + 1
        done = finished
        if died >= _MOST_VAIN_ATTEMPTS:
            raise RuntimeError(
                f"workers died {died} times without finishing a picture in between; run the same "
                "command again with a lower parallelism, size or memory_limit"
            )


def run_jobs(
    folder: str, run_id: str, run: Callable[[], None], warn: Callable[[str], None]
) -> None:
    """Runs the pipeline on a cluster, in as many jobs as it takes.

    A cluster's engine restarts a job by itself, but gives it up after it has lost some workers, or
    after certain sequences of losses (docs/operations.md). A new job finds what the last one made.

    Args:
      run: runs one job to its end.
      warn: called with a message for each job that failed.

    Raises:
      RuntimeError: a job failed without finishing a picture.
    """
    done = 0
    while True:
        try:
            return run()
        except RuntimeError as error:
            finished = Journal.of_run(folder, run_id).finished
            if finished <= done:
                raise
            done = finished
            metadata.remove_metadata(folder, run_id)  # the next job writes all rows
            warn(f"{error}; going on in a new job")


class _Attempt:
    """Starts and watches one attempt: a process group of the pipeline and its workers."""

    def __init__(self, spec: "RunSpec", arguments: Sequence[str], patience: float):
        self._spec, self._patience, self.message, self.hung = spec, patience, "", False
        # -P: code comes from where nst is installed, not from the current folder.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pipeline.runs.attempts"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches the launcher only
        )
        # Its standard input closes when this process dies, which tells it to end too.
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(pickle.dumps((spec, list(arguments))))
                self._process.stdin.flush()

    def wait(self) -> int:
        """Waits for the exit code; if the attempt hangs, sets `hung` and returns `_WORKER_DIED`."""
        overdue = math.inf
        while True:
            try:
                code = self._process.wait(timeout=0.5)
                break
            except subprocess.TimeoutExpired:
                pass
            folder, run_id = self._spec.folder, self._spec.run_id
            if overdue == math.inf and (
                stop_requested(folder, run_id) or time.time() > self._spec.deadline
            ):
                overdue = time.monotonic() + self._patience + longest_step(folder, run_id)
            if time.monotonic() > overdue:
                self.hung = True
                return _WORKER_DIED
        if self._process.stdout:
            self.message = self._process.stdout.read().decode(errors="replace").strip()
        return code

    def kill(self) -> None:
        """Kills what still runs of the attempt's process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def main() -> None:
    """Runs the pipeline that standard input describes; prints to standard output why it failed."""
    ignore_signals()
    if not is_verbose():
        quiet_logs()
    spec, arguments = pickle.load(sys.stdin.buffer)
    from pipeline.runs.beam_options import beam_options, make_pipeline
    from pipeline.runs.graph import build

    tell_warnings()
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    threading.excepthook = lambda caught: _thread_failed(spec, caught)
    try:
        options = beam_options(arguments, spec.config, spec.rows)
        pipeline = make_pipeline(options)
        build(pipeline, spec)
        pipeline.run().wait_until_finish()
    except Exception as error:
        _exit_at_once(_PIPELINE_FAILED, f"{type(error).__name__}: {error}")
    _exit_at_once(0)


def _end_with_launcher() -> None:
    sys.stdin.buffer.read()  # returns when the launcher is gone
    os.killpg(os.getpid(), signal.SIGKILL)


def _thread_failed(spec: "RunSpec", caught: threading.ExceptHookArgs) -> None:
    """Ends the attempt if the thread that watches over a worker fails; Beam would wait for ever."""
    if caught.thread is not None and caught.thread.name == "run_worker":
        count_deaths(spec.folder, spec.run_id)
        _exit_at_once(_WORKER_DIED, f"{caught.exc_value} (-9: killed, perhaps for its memory)")


def _exit_at_once(code: int, message: str = "") -> None:
    sys.stdout.write(message)
    sys.stdout.flush()
    os._exit(code)  # does not wait for Beam's threads


if __name__ == "__main__":
    main()
