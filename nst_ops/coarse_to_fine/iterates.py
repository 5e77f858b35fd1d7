"""What an optimisation tells while it runs, and afterwards."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nst_ops.errors import InputError, short
from nst_ops.images.size import Size
from nst_ops.settings import MOST_WEIGHT

if TYPE_CHECKING:
    from nst_ops.coarse_to_fine.checkpoints import Checkpoint

LOSSES = ("total", "content", "style", "tv")


@dataclass
class Knobs:
    """The three weights of a running optimisation.

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
    reports: list["Report"]  # one per image; they grow with the loop
    # To go on from here another time. Only the latest iterate has it: it is all of the optimiser's
    # memory, which is not kept for those who gather iterates.
    checkpoint: Callable[[], "Checkpoint"]

    @property
    def finished(self) -> bool:
        """Whether this is the last iterate of its scale."""
        return all(self.stopped)

    @property
    def last(self) -> bool:
        """Whether this is the last iterate of all."""
        return self.finished and self.scale == self.scales - 1


class ScaleReport(NamedTuple):
    """How one image fared at one scale."""

    size: Size
    steps: int
    evaluations: int
    seconds: float
    stop_reason: str  # steps | converged | stalled | non-finite


@dataclass
class Report:
    """How one image came about."""

    scales: list[ScaleReport] = field(default_factory=list)
    curve: list[tuple[int, int, float, float, float, float]] = field(default_factory=list)
    """Per step: scale, step, and the losses in the order of LOSSES."""
    losses: dict[str, float] = field(default_factory=dict)
    """Of the result."""

    @property
    def non_finite(self) -> bool:
        """Whether the loss was never a number, so that there is no result."""
        return any(scale.stop_reason == "non-finite" for scale in self.scales)

    def add(self, iterate: Iterate, row: int) -> None:
        """Records one step of the image that is this row of the batch."""
        if len(self.scales) > iterate.scale:
            self.scales.pop()  # it had stopped, and goes on under other weights
        total, content, style, tv = (float(iterate.losses[name][row]) for name in LOSSES)
        self.curve.append((iterate.scale, iterate.step, total, content, style, tv))
        if iterate.stopped[row]:
            steps = iterate.step  # one update is one evaluation
            reason = iterate.stopped[row]
            self.scales.append(ScaleReport(iterate.size, steps, steps, iterate.seconds, reason))
            self.losses = {name: float(values[row]) for name, values in iterate.best.items()}


class Result(NamedTuple):
    """Pictures [B, H, W, 3] float32 in [0, 1], and a report on each."""

    images: np.ndarray
    reports: list[Report]

    @property
    def seconds_optimise(self) -> float:
        """Spent in the compiled step by the whole batch: each scale takes as long as its last."""
        per_scale = zip(*(report.scales for report in self.reports), strict=True)
        return sum(max(scale.seconds for scale in scales) for scales in per_scale)
