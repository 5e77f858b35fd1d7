"""Reports on how each image of a batch came about, per scale and step by step."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from nst_ops.images.size import Size

LOSSES = ("total", "content", "style", "tv", "attention")


class ScaleReport(NamedTuple):
    """Describes the optimization of one image at one scale.

    Attributes:
      size: (height, width) in px.
      steps: how many updates of the optimizer were made.
      evaluations: how often loss and gradient were computed.
      seconds: spent in the compiled step, by the whole batch, until this image was done.
      stop_reason: `steps` (the budget was spent), `converged` (the loss had become flat), `stalled`
        (no further step lowered the loss) or `non-finite` (the loss was never finite).
    """

    size: Size
    steps: int
    evaluations: int
    seconds: float
    stop_reason: str


@dataclass
class Report:
    """Describes how one image came about. It grows while the optimization runs.

    Attributes:
      scales: a report on each scale that has ended, coarse to fine.
      curve: for each step its scale, from 0, its number at that scale, from 1, and its losses
        `total`, `content`, `style`, `tv` and `attention`. The total is the sum of the others, which
        include their weights.
      losses: those of the result, by the same names.
    """

    scales: list[ScaleReport] = field(default_factory=list)
    curve: list[tuple[int, int, float, float, float, float, float]] = field(default_factory=list)
    losses: dict[str, float] = field(default_factory=dict)

    @property
    def non_finite(self) -> bool:
        """Tells whether the loss was never finite, so that there is no result."""
        return any(scale.stop_reason == "non-finite" for scale in self.scales)


class Result(NamedTuple):
    """Holds what `run` has made of a batch of B photos.

    Attributes:
      images: the pictures, [B, H, W, 3] float32, sRGB in [0, 1].
      reports: one for each of them, on how it came about.
    """

    images: np.ndarray
    reports: list[Report]

    @property
    def seconds_optimize(self) -> float:
        """Returns the seconds that the whole batch spent in the compiled step. A scale takes as
        long as the image that stops last.
        """
        per_scale = zip(*(report.scales for report in self.reports), strict=True)
        return sum(max(scale.seconds for scale in scales) for scales in per_scale)
