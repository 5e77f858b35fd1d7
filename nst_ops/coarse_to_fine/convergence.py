"""How a batch stands at one scale: the losses so far, and which of its images are done there."""

from typing import NamedTuple

import numpy as np

from nst_ops.settings import Settings

_STALLED_AFTER = 10  # rejected trials in a row: two restarts along the gradient found nothing lower


class Convergence(NamedTuple):
    """Of a batch of B images after `step` steps; plain arrays, so that a checkpoint can hold it."""

    step: int
    best: dict[str, np.ndarray]  # losses [B] of the best pictures; empty before the first step
    threshold: np.ndarray  # [B], the loss to get below
    stalled_steps: np.ndarray  # [B], steps since it was got below
    stopped: tuple[str, ...]  # per image: "" while it runs, else its `ScaleReport.stop_reason`
    seconds: float  # spent in the compiled step
    weights: tuple[float, ...] | None = None  # under which the losses are; None before the first

    @classmethod
    def at_start(cls, count: int) -> "Convergence":
        """Before the first step."""
        return cls(0, {}, np.full(count, np.inf), np.zeros(count, int), ("",) * count, 0.0)

    @property
    def active(self) -> np.ndarray:
        """[B] bool: who still runs."""
        return np.array([not reason for reason in self.stopped])

    @property
    def finished(self) -> bool:
        """Whether none runs any more."""
        return all(self.stopped)

    def under_other_weights(self) -> "Convergence":
        """Losses under other weights do not compare, and who had come to an end under the old ones
        goes on.
        """
        fresh = Convergence.at_start(len(self.stopped))
        ended = ("converged", "stalled", "non-finite")
        stopped = tuple("" if reason in ended else reason for reason in self.stopped)
        return self._replace(
            best={}, threshold=fresh.threshold, stalled_steps=fresh.stalled_steps, stopped=stopped
        )

    def after(
        self,
        losses: dict[str, np.ndarray],
        rejections: np.ndarray,
        seconds: float,
        *,
        last: bool,
        settings: Settings,
    ) -> "Convergence":
        """One step later.

        Args:
          losses: [B] each, of the step's trial, and anything for those who have stopped; `total`
            decides.
          rejections: [B], trials in a row that did not improve.
          seconds: that the step took.
          last: whether there is no budget for another step.
          settings: `tolerance` and `patience` say when a loss has flattened.
        """
        active = self.active
        known = self.best.get("total", np.full(len(active), np.inf))
        improved = active & ((losses["total"] < known) | ~np.isfinite(known))
        best = {
            name: np.asarray(np.where(improved, value, self.best.get(name, value)))
            for name, value in losses.items()
        }
        total = best["total"]
        gained = total < self.threshold
        stalled_steps = np.where(gained, 0, self.stalled_steps + 1)
        threshold = np.where(gained, total * (1.0 - settings.tolerance), self.threshold)
        stopped = list(self.stopped)
        for row in np.flatnonzero(active):
            if not np.isfinite(total[row]):  # not once so far
                stopped[row] = "non-finite"
            elif rejections[row] >= _STALLED_AFTER:
                stopped[row] = "stalled"
            elif stalled_steps[row] >= settings.patience:
                stopped[row] = "converged"
            elif last:
                stopped[row] = "steps"
        return self._replace(
            step=self.step + 1,
            best=best,
            threshold=threshold,
            stalled_steps=stalled_steps,
            stopped=tuple(stopped),
            seconds=self.seconds + seconds,
        )

    def take(self, rows: list[int]) -> "Convergence":
        """Of some of the images."""
        return self._replace(
            best={name: values[rows] for name, values in self.best.items()},
            threshold=self.threshold[rows],
            stalled_steps=self.stalled_steps[rows],
            stopped=tuple(self.stopped[row] for row in rows),
        )
