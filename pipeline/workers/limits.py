"""Decides by deadlines, stop requests and time limits whether a picture is begun and goes on."""

import datetime
import functools
import math
import os
import threading
import time

from pipeline.errors import ConfigError
from pipeline.store import files
from pipeline.store.layout import record_folder
from pipeline.store.stop_requests import StopReason, stop_requested

DEADLINE_HAS_COME = "the deadline has come"

_LOOK_SECONDS = 20.0  # between two checks of whether the run has ended


class Stopped(Exception):  # noqa: N818  # not an error: the run was asked to stop
    """Raised where a run stops; what is not done is deferred to the next run."""

    def __init__(self, reason: StopReason, text: str):
        super().__init__(text)
        self.reason = reason


class TooSlowError(RuntimeError):
    """Raised where a picture takes longer than `timeout_seconds`."""


def parse_deadline(clock: str | None, hours: float | None) -> float:
    """Returns the deadline as `time.time()`; infinity if there is none.

    Args:
      clock: HH:MM, the next time that the local clock shows it.
      hours: from now; it goes before `clock`.

    Raises:
      ConfigError: `clock` is not HH:MM.
    """
    if hours is not None:
        return time.time() + 3600.0 * hours
    if clock is None:
        return math.inf
    try:
        wanted = datetime.datetime.strptime(clock, "%H:%M").time()
    except ValueError as error:
        raise ConfigError(f"--deadline {clock}: expected HH:MM, such as 06:00") from error
    now = datetime.datetime.now()
    then = datetime.datetime.combine(now.date(), wanted)
    return (then if then > now else then + datetime.timedelta(days=1)).timestamp()


@functools.cache  # one thread is enough
def end_with_run(folder: str, run_id: str) -> None:
    """Ends this worker process soon after its run has ended, from a thread that watches the run.

    A cluster's engine that loses a machine forgets its workers on other machines, and their pools
    keep them. A run whose launcher died has not ended: it was asked to stop, and still writes its
    rows. Where the folder is a URL nothing is watched, as requests to stop do not reach it.
    """
    if files.is_url(folder):
        return
    record = files.join(record_folder(folder, run_id), "summary.json")

    def watch() -> None:
        while not os.path.exists(record) or stop_requested(folder, run_id):
            time.sleep(_LOOK_SECONDS)
        os._exit(0)  # does not wait for Beam's threads, which wait for the engine

    threading.Thread(target=watch, daemon=True).start()


class Supervisor:
    """Decides before a batch and between its steps whether to go on.

    It remembers how fast this process has been, to foresee whether a batch meets the deadline.

    Args:
      folder: the run's folder, in which stops are requested.
      run_id: the id of the run.
      deadline: as `time.time()`.
    """

    def __init__(self, folder: str, run_id: str, deadline: float = math.inf):
        self.folder, self.run_id, self.deadline = folder, run_id, deadline
        # The lowest so far: a first picture takes longer, which should not refuse later ones.
        self._seconds_per_cost = math.inf
        self._began = 0.0
        self._limit = math.inf

    def begin(self, cost: int, timeout: float | None) -> None:
        """Allows a batch to begin, and starts its clock.

        Args:
          cost: at most, in the engine's unit; 0 if it is unknown.
          timeout: in seconds; None: there is no limit.

        Raises:
          Stopped: a stop is requested, or the batch would not end before the deadline, judged by
            the speed of earlier batches.
        """
        self.check_stop()
        known = math.isfinite(self._seconds_per_cost)
        expected = self._seconds_per_cost * cost if known else 0.0
        if time.time() + expected > self.deadline:
            raise Stopped("deadline", "the deadline is too near to begin another picture")
        self._began = time.perf_counter()
        self._limit = math.inf if timeout is None else timeout

    def check(self) -> None:
        """Allows a batch to go on; to be called between steps.

        Raises:
          Stopped: a stop is requested or the deadline has come.
          TooSlowError: the batch has taken longer than its timeout.
        """
        self.check_stop()
        spent = time.perf_counter() - self._began
        if spent > self._limit:
            raise TooSlowError(
                f"not done after {spent:.0f} s; raise timeout_seconds, or lower size"
            )

    def end(self, cost: int) -> None:
        """Notes how fast a batch was made, now that it is done.

        Args:
          cost: as `begin` was given; 0 notes nothing.
        """
        if cost:
            speed = (time.perf_counter() - self._began) / cost
            self._seconds_per_cost = min(self._seconds_per_cost, speed)

    def check_stop(self) -> None:
        """Raises `Stopped` if a stop is requested or the deadline has come."""
        request = stop_requested(self.folder, self.run_id)
        if request:
            raise Stopped(*request)
        if time.time() > self.deadline:
            raise Stopped("deadline", DEADLINE_HAS_COME)
