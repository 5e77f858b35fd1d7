"""Whether a picture is begun, and whether it goes on: deadlines, stop requests, time limits."""

import math
import time

from nst_ops.settings import Settings
from nst_ops.sizes import Size, schedule
from pipeline.work import stop_requested


class Stopped(Exception):  # noqa: N818  # no error: the run was asked to stop
    """The run stops here; what is not done is deferred to the next one."""


class TooSlowError(RuntimeError):
    """A picture took longer than `timeout_seconds`."""


class Supervisor:
    """Asked before a batch and between steps; knows how fast this process has been.

    Args:
      folder: the run's folder, where a stop is requested.
      run_id: of the run.
      deadline: as `time.time()`.
    """

    def __init__(self, folder: str, run_id: str, deadline: float = math.inf):
        self.folder, self.run_id, self.deadline = folder, run_id, deadline
        self._seconds_per_work: float | None = None
        self._began = 0.0
        self._limit = math.inf

    def begin(self, size: Size, batch: int, settings: Settings, timeout: float | None) -> None:
        """A batch is about to be optimised.

        Raises:
          Stopped: a stop is requested, or it would not end before the deadline, as far as the
            speed of earlier batches tells.
        """
        self.check_stop()
        expected = (self._seconds_per_work or 0.0) * _work(size, batch, settings)
        if time.time() + expected > self.deadline:
            raise Stopped("the deadline is too near to begin another picture")
        self._began = time.perf_counter()
        self._limit = math.inf if timeout is None else timeout * batch

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
                f"not done after {spent:.0f} s; raise timeout_seconds, or lower size or steps"
            )

    def end(self, size: Size, batch: int, settings: Settings) -> None:
        """The batch is optimised."""
        spent = time.perf_counter() - self._began
        self._seconds_per_work = spent / _work(size, batch, settings)

    def check_stop(self) -> None:
        """Raises `Stopped` if a stop is requested or the deadline has come."""
        reason = stop_requested(self.folder, self.run_id)
        if reason:
            raise Stopped(reason)
        if time.time() > self.deadline:
            raise Stopped("the deadline has come")


def _work(size: Size, batch: int, settings: Settings) -> float:
    """Pixels times steps at most."""
    plans = schedule(size, settings)
    return float(batch * sum(plan.size[0] * plan.size[1] * plan.steps for plan in plans))
