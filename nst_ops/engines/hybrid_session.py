"""A session of the engine `hybrid`: the optimizer starts from the network's pictures."""

from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from nst_ops.coarse_to_fine.checkpoints import Checkpoint
from nst_ops.engines.base import Batch, Step
from nst_ops.engines.memory import MemoryPlan
from nst_ops.engines.network_session import NetworkSession
from nst_ops.engines.optimizer_session import OptimizerSession
from nst_ops.images.colors import match_colors


class HybridSession:
    """Implements `engines.base.Session`, where its methods are described.

    Args:
      painter: paints the pictures that are optimized.
      optimizer: optimizes them.
      color: the optimizer's setting; `match`: the painting is recoloured, and so the pictures are.
    """

    def __init__(self, painter: NetworkSession, optimizer: OptimizerSession, color: str):
        self._painter, self._optimizer, self._color = painter, optimizer, color

    def stylize(
        self, batch: Batch, plan: MemoryPlan, *, resume: Callable[[], Checkpoint] | None = None
    ) -> Iterator[Step]:
        """Paints the batch, and has it optimized. It is painted even if there is a checkpoint,
        since a picture whose loss was not finite is begun anew.
        """
        begun = self._painter.paint(batch)
        if self._color == "match":
            begun = [match_colors(*both) for both in zip(begun, batch.contents, strict=True)]
        yield from self._optimizer.stylize(batch._replace(initial=begun), plan, resume=resume)

    def retry(self, batch: Batch, plan: MemoryPlan, error: Exception) -> MemoryPlan | None:
        """Returns what the optimizer does."""
        return self._optimizer.retry(batch, plan, error)

    def measure_speed(self) -> float:
        """Measures the optimizer, in pixels x steps."""
        return self._optimizer.measure_speed()

    def load_checkpoint(self, file: BinaryIO) -> tuple[Checkpoint, dict[str, Any]]:
        """Reads the optimizer's checkpoint, and the values saved with it."""
        return self._optimizer.load_checkpoint(file)
