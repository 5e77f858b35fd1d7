"""Iterates, which show an optimization after each step, and knobs, which steer it meanwhile."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nst_ops.coarse_to_fine.checkpoints import Checkpoint
from nst_ops.coarse_to_fine.reports import LOSSES, Report, ScaleReport
from nst_ops.errors import InputError, short
from nst_ops.images.size import Size
from nst_ops.settings import MOST_WEIGHT


@dataclass
class Knobs:
    """Holds the weights of a running optimization.

    Change them between steps; nothing is traced again, and images that had converged go on.

    Attributes:
      content_weight: how much of the photo stays, 0 to 1e12; useful 1e3 to 1e4.
      style_weight: how much of the painting comes, 0 to 1e12; useful 1e-2 to 1e-1. Whether the
        photo keeps its own contrast, as it does at 0, is said by the settings.
      tv_weight: how smooth the picture is, 0 to 1e12; useful 10 to 100.
      attention_weight: how much strokes follow what is in the photo, times style_weight, 0 to
        1e12; useful .5 to 2.5. It has no effect if it is 0 in the settings. None: as there.

    Raises:
      InputError: a weight that is set is not a finite number of at least 0.
    """

    content_weight: float
    style_weight: float
    tv_weight: float
    attention_weight: float | None = None

    def __setattr__(self, name: str, value: float | None) -> None:
        if name == "attention_weight" and value is None:
            super().__setattr__(name, None)
            return
        try:
            number = float(value)  # pyright: ignore[reportArgumentType]  # None: TypeError
        except (TypeError, ValueError):
            number = math.nan
        if not 0.0 <= number <= MOST_WEIGHT:
            raise InputError(
                f"{name}: {short(value)} is not a finite number of at least 0, and at most "
                f"{MOST_WEIGHT:g}"
            )
        super().__setattr__(name, number)


class Iterate(NamedTuple):
    """Shows a batch of B images after one step.

    Attributes:
      scale: index into the schedule; 0 is the coarsest.
      scales: how many scales the schedule has.
      size: (height, width) of the pictures at this scale, in px.
      step: of this scale, from 1.
      steps: at most, of this scale.
      losses: `total`, `content`, `style`, `tv` and `attention`, [B] float32 each, of the picture
        that this step tried; for images that have stopped, of their best picture. The total is the
        sum of the others, which include their weights.
      best: the same losses of the best picture of this scale so far.
      stopped: per image its `ScaleReport.stop_reason`; "" while it runs.
      seconds: spent in the compiled step so far, at this scale.
      image: returns the best pictures so far, [B, *size, 3] float32, sRGB in [0, 1].
      reports: one per image; they grow while the loop runs.
      checkpoint: returns all that is needed to go on from here another time. Only the latest
        iterate has it: it is the whole state of the optimizer, too large to keep for every
        iterate. An earlier iterate's raises an `InputError`.
    """

    scale: int
    scales: int
    size: Size
    step: int
    steps: int
    losses: dict[str, np.ndarray]
    best: dict[str, np.ndarray]
    stopped: tuple[str, ...]
    seconds: float
    image: Callable[[], np.ndarray]
    reports: list[Report]
    checkpoint: Callable[[], Checkpoint]

    @property
    def finished(self) -> bool:
        """Tells whether this is the last iterate of its scale."""
        return all(self.stopped)

    @property
    def last(self) -> bool:
        """Tells whether this is the last iterate of all."""
        return self.finished and self.scale == self.scales - 1

    def record(self, row: int) -> None:
        """Adds this step to the report of one image. `stylize` does so before it yields.

        Args:
          row: the image's index in the batch, from 0.
        """
        report = self.reports[row]
        if len(report.scales) > self.scale:
            report.scales.pop()  # the image had stopped here, and was run again
        total, content, style, tv, attention = (float(self.losses[n][row]) for n in LOSSES)
        report.curve.append((self.scale, self.step, total, content, style, tv, attention))
        if self.stopped[row]:
            steps = self.step  # one update is one evaluation
            reason = self.stopped[row]
            report.scales.append(ScaleReport(self.size, steps, steps, self.seconds, reason))
            report.losses = {name: float(values[row]) for name, values in self.best.items()}
