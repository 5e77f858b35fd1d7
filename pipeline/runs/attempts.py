"""A run on this machine in a process of its own, begun anew when it or one of its workers dies.

Beam's local runner cannot go on without a worker. What is done by then is found done, so a new
attempt makes only what is missing. A picture that two workers died over fails its row; one that
was in flight with it once is made by itself.

`python -m pipeline.runs.attempts` is that process; `run_attempts` starts it.
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

# Seconds that workers have to stop in order, beyond the longest step that one of them is at.
GRACE = 120.0
CLOSING = 600.0  # seconds that an attempt has which only writes down what has come of the others
_LEAST_DONE_IN = 3  # attempts in a row that may die before any more pictures are done
_PIPELINE_FAILED, _WORKER_DIED = 1, 75  # exit codes


def run_attempts(spec: "RunSpec", arguments: Sequence[str], warn: Callable[[str], None]) -> None:
    """Runs the pipeline to its end, in as many attempts as it takes.

    What does not answer `GRACE` seconds after a stop was requested or the deadline has come is
    ended, and its rows are deferred.

    Args:
      arguments: Beam's.
      warn: is told of workers that died.

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
        # The next one need not read again what this one has.
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
        now = Journal.of_run(spec.folder, spec.run_id).finished
        died = 1 if now > done else died + 1
        done = now
        if died >= _LEAST_DONE_IN:
            raise RuntimeError(
                f"workers died {died} times without finishing a picture in between; run the same "
                "command again with a lower parallelism, size or memory_limit"
            )


def run_jobs(
    folder: str, run_id: str, run: Callable[[], None], warn: Callable[[str], None]
) -> None:
    """Runs the pipeline on a cluster, in as many jobs as it takes.

    An engine restarts a job by itself, but gives it up after some losses, or one order of them
    (docs/operations.md). A new job finds done what the last one made.

    Args:
      run: runs one job to its end.
      warn: is told of jobs that failed.

    Raises:
      RuntimeError: a job failed without finishing a picture.
    """
    done = 0
    while True:
        try:
            return run()
        except RuntimeError as error:
            now = Journal.of_run(folder, run_id).finished
            if now <= done:
                raise
            done = now
            metadata.remove_metadata(folder, run_id)  # the next job writes all rows
            warn(f"{error}; going on in a new job")


class _Attempt:
    """One process group: the pipeline and its workers."""

    def __init__(self, spec: "RunSpec", arguments: Sequence[str], patience: float):
        self._spec, self._patience, self.message, self.hung = spec, patience, "", False
        # -P: code comes from where nst is installed, not from the current folder.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pipeline.runs.attempts"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is the launcher's to see
        )
        # Its standard input stays open as long as we live, by which it knows.
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(pickle.dumps((spec, list(arguments))))
                self._process.stdin.flush()

    def wait(self) -> int:
        """Its exit code; another one if it hangs, and is to be killed."""
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
        """Ends what is left of it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def main() -> None:
    """Runs the pipeline that standard input describes; says on standard output why it failed."""
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
        _leave(_PIPELINE_FAILED, f"{type(error).__name__}: {error}")
    _leave(0)


def _end_with_launcher() -> None:
    sys.stdin.buffer.read()  # to its end, which comes when the launcher is gone
    os.killpg(os.getpid(), signal.SIGKILL)


def _thread_failed(spec: "RunSpec", caught: threading.ExceptHookArgs) -> None:
    """Of Beam's threads; without the one that watches over a worker, it would wait for ever."""
    if caught.thread is not None and caught.thread.name == "run_worker":
        count_deaths(spec.folder, spec.run_id)
        _leave(_WORKER_DIED, f"{caught.exc_value} (-9: killed, perhaps for its memory)")


def _leave(code: int, message: str = "") -> None:
    sys.stdout.write(message)
    sys.stdout.flush()
    os._exit(code)  # not waiting for Beam's threads


if __name__ == "__main__":
    main()
