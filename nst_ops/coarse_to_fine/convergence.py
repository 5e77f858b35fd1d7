"""The convergence of a batch at one scale: the losses so far, and which images are done there."""

from typing import NamedTuple

import numpy as np

from nst_ops.settings import Settings

_STALLED_AFTER = 10  # rejected trials in a row: two restarts along the gradient found nothing lower


class Convergence(NamedTuple):
    """Holds how far a batch of B images is after `step` steps, as plain values for a checkpoint."""

    step: int
    best: dict[str, np.ndarray]  # losses [B] of the best pictures; empty before the first step
    threshold: np.ndarray  # [B]; a loss below it is a gain, by `Settings.tolerance`
    stalled_steps: np.ndarray  # [B], steps since the last gain
    stopped: tuple[str, ...]  # per image: "" while it runs, else its `ScaleReport.stop_reason`
    seconds: float  # spent in the compiled step
    weights: tuple[float, ...] | None = None  # of the terms of these losses; None before any step

    @classmethod
    def at_start(cls, count: int) -> "Convergence":
        """Returns the convergence of `count` images before the first step."""
        return cls(0, {}, np.full(count, np.inf), np.zeros(count, int), ("",) * count, 0.0)

    @property
    def active(self) -> np.ndarray:
        """Returns which images still run, [B] bool."""
        return np.array([not reason for reason in self.stopped])

    @property
    def finished(self) -> bool:
        """Tells whether all images have stopped."""
        return all(self.stopped)

    def under_other_weights(self) -> "Convergence":
        """Forgets the losses, which do not compare with those under other weights. Images run
        again, unless their steps were spent.
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
        """Returns the convergence after one more step.

        Args:
          losses: [B] each, of the step's trial; any values for images that have stopped. `total`
            decides.
          rejections: [B], how many trials in a row did not improve.
          seconds: how long the step took.
          last: whether this was the last step in the budget of the scale.
          settings: `tolerance` and `patience` say when a loss has become flat.
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
            if not np.isfinite(total[row]):  # it has not been finite at any step so far
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
        """Returns the convergence of the images with these indices."""
        return self._replace(
            best={name: values[rows] for name, values in self.best.items()},
            threshold=self.threshold[rows],
            stalled_steps=self.stalled_steps[rows],
            stopped=tuple(self.stopped[row] for row in rows),
        )
