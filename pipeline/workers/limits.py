"""Whether a picture is begun, and whether it goes on: deadlines, stop requests, time limits."""

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

_LOOK_SECONDS = 20.0  # between looks at whether the run is over


class Stopped(Exception):  # noqa: N818  # no error: the run was asked to stop
    """The run stops here; what is not done is deferred to the next one."""

    def __init__(self, reason: StopReason, text: str):
        super().__init__(text)
        self.reason = reason


class TooSlowError(RuntimeError):
    """A picture took longer than `timeout_seconds`."""


def parse_deadline(clock: str | None, hours: float | None) -> float:
    """As `time.time()`: the next time that a local clock shows HH:MM, or so many hours from now.

    Raises:
      ConfigError: `clock` is no such time.
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
    """Ends this process, a worker's, some time after its run.

    An engine that loses a machine forgets workers on the others, and their pools keep them. A run
    whose launcher died is not over: it was asked to stop, and writes its rows. Not where the folder
    is a URL: the request to stop is not seen there.
    """
    if files.is_url(folder):
        return
    record = files.join(record_folder(folder, run_id), "summary.json")

    def watch() -> None:
        while not os.path.exists(record) or stop_requested(folder, run_id):
            time.sleep(_LOOK_SECONDS)
        os._exit(0)  # Beam's threads would wait for the engine

    threading.Thread(target=watch, daemon=True).start()


class Supervisor:
    """Asked before a batch and between steps; knows how fast this process has been.

    Args:
      folder: the run's folder, where a stop is requested.
      run_id: of the run.
      deadline: as `time.time()`.
    """

    def __init__(self, folder: str, run_id: str, deadline: float = math.inf):
        self.folder, self.run_id, self.deadline = folder, run_id, deadline
        # The best so far: a first picture takes longer, and none should be refused for that.
        self._seconds_per_cost = math.inf
        self._began = 0.0
        self._limit = math.inf

    def begin(self, cost: int, timeout: float | None) -> None:
        """A batch is about to be optimized.

        Args:
          cost: in the engine's unit, at most; 0 if nobody knows.
          timeout: in seconds.

        Raises:
          Stopped: a stop is requested, or it would not end before the deadline, as far as the
            speed of earlier batches tells.
        """
        self.check_stop()
        known = math.isfinite(self._seconds_per_cost)
        expected = self._seconds_per_cost * cost if known else 0.0
        if time.time() + expected > self.deadline:
            raise Stopped("deadline", "the deadline is too near to begin another picture")
        self._began = time.perf_counter()
        self._limit = math.inf if timeout is None else timeout

    def check(self) -> None:
        """Between steps.

        Raises:
          Stopped: a stop is requested or the deadline has come.
          TooSlowError: the batch has had its time.
        """
        self.check_stop()
        spent = time.perf_counter() - self._began
        if spent > self._limit:
            raise TooSlowError(
                f"not done after {spent:.0f} s; raise timeout_seconds, or lower size"
            )

    def end(self, cost: int) -> None:
        """The batch of this cost is optimized."""
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
