"""What an optimization tells while it runs, and afterwards."""

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
    """The three weights of a running optimization.

    Change them between steps; nothing is traced again, and images that had converged go on.

    Raises:
      InputError: a weight that is set is not a finite number of at least 0.
    """

    content_weight: float
    style_weight: float
    tv_weight: float

    def __setattr__(self, name: str, value: float) -> None:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not 0.0 <= number <= MOST_WEIGHT:
            raise InputError(
                f"{name}: {short(value)} is not a finite number of at least 0, and at most "
                f"{MOST_WEIGHT:g}"
            )
        super().__setattr__(name, number)


class Iterate(NamedTuple):
    """The state of a batch of B images after one step."""

    scale: int  # index into the schedule, 0 is the coarsest
    scales: int  # length of the schedule
    size: Size
    step: int  # of this scale, from 1
    steps: int  # at most, of this scale
    # By the names in LOSSES, [B] each, of this step's trial; of those who have stopped, their best.
    losses: dict[str, np.ndarray]
    best: dict[str, np.ndarray]  # the same, of the best picture of this scale so far
    stopped: tuple[str, ...]  # per image: "" while it runs, else its `ScaleReport.stop_reason`
    seconds: float  # spent in the compiled step so far, at this scale
    image: Callable[[], np.ndarray]  # the best picture so far, [B, *size, 3] in [0, 1]
    reports: list[Report]  # one per image; they grow with the loop
    # To go on from here another time. Only the latest iterate has it: it is all of the optimizer's
    # memory, which is not kept for those who gather iterates.
    checkpoint: Callable[[], Checkpoint]

    @property
    def finished(self) -> bool:
        """Whether this is the last iterate of its scale."""
        return all(self.stopped)

    @property
    def last(self) -> bool:
        """Whether this is the last iterate of all."""
        return self.finished and self.scale == self.scales - 1

    def record(self, row: int) -> None:
        """Adds this step to the report of the image that is this row of the batch."""
        report = self.reports[row]
        if len(report.scales) > self.scale:
            report.scales.pop()  # it had stopped, and goes on under other weights
        total, content, style, tv = (float(self.losses[name][row]) for name in LOSSES)
        report.curve.append((self.scale, self.step, total, content, style, tv))
        if self.stopped[row]:
            steps = self.step  # one update is one evaluation
            reason = self.stopped[row]
            report.scales.append(ScaleReport(self.size, steps, steps, self.seconds, reason))
            report.losses = {name: float(values[row]) for name, values in self.best.items()}
