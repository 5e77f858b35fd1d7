"""How the images of a batch came about: per scale, and step by step."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nst_ops.images.size import Size

if TYPE_CHECKING:
    pass

LOSSES = ("total", "content", "style", "tv")


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


class Result(NamedTuple):
    """Pictures [B, H, W, 3] float32 in [0, 1], and a report on each."""

    images: np.ndarray
    reports: list[Report]

    @property
    def seconds_optimize(self) -> float:
        """Spent in the compiled step by the whole batch: each scale takes as long as its last."""
        per_scale = zip(*(report.scales for report in self.reports), strict=True)
        return sum(max(scale.seconds for scale in scales) for scales in per_scale)
