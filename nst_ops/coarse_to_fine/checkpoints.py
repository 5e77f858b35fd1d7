"""Checkpoints: the state of an optimization after a step, as a value that outlives its process.

`stylize(..., resume=lambda: checkpoint)` goes on as if it had never stopped: with the same inputs
on the same machine, it ends with the same bytes.
"""

from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import tensorflow as tf

from nst_ops import archives
from nst_ops.coarse_to_fine.convergence import Convergence
from nst_ops.coarse_to_fine.reports import Report, ScaleReport
from nst_ops.optimizers.adam import AdamState
from nst_ops.optimizers.lbfgs import LBFGSState
from nst_ops.optimizers.optimizer import State
from nst_ops.optimizers.rows import take_rows

_FORMAT = 4  # of the file; files of other formats are refused
_STATES = {kind.__name__: kind for kind in (LBFGSState, AdamState)}


class Checkpoint(NamedTuple):
    """Holds all that the optimization of a batch of B images needs to go on from here.

    Attributes:
      scale: index into the schedule, from 0, the coarsest.
      convergence: the losses so far at this scale, and which images are done.
      state: of the optimizer, with the pictures in it, [B, H, W, 3] float32.
      reports: one per image, up to here.
      matched: [B, H, W, 3], the pictures that attention last matched with the paintings at this
        scale; None: it matched the photos alone.
    """

    scale: int
    convergence: Convergence
    state: State
    reports: list[Report]
    matched: tf.Tensor | None = None

    def take(self, rows: list[int]) -> "Checkpoint":
        """Returns the checkpoint of some of the images, which do not depend on the others.

        Args:
          rows: indices into the batch, from 0.
        """
        reports = [self.reports[row] for row in rows]
        state = take_rows(self.state, rows)
        matched = None if self.matched is None else take_rows(self.matched, rows)
        return Checkpoint(self.scale, self.convergence.take(rows), state, reports, matched)

    def save(self, file: BinaryIO, **facts: Any) -> None:
        """Writes the checkpoint, array by array, so that no second copy of it is in memory.

        Args:
          file: open for writing bytes.
          facts: plain values that `load_checkpoint` returns with the checkpoint.
        """
        convergence = self.convergence
        header = {
            "state": type(self.state).__name__,
            "scale": self.scale,
            "step": convergence.step,
            "stopped": convergence.stopped,
            "seconds": convergence.seconds,
            "weights": convergence.weights,
            "reports": [[r.scales, r.curve, r.losses] for r in self.reports],
            "facts": facts,
        }
        arrays = dict(_flat(self.state))
        arrays |= {f"best/{name}": values for name, values in convergence.best.items()}
        arrays |= {"threshold": convergence.threshold, "stalled_steps": convergence.stalled_steps}
        if self.matched is not None:
            arrays["matched"] = self.matched.numpy()
        archives.write(file, "checkpoint", _FORMAT, header, arrays)


def load_checkpoint(file: BinaryIO) -> tuple[Checkpoint, dict[str, Any]]:
    """Reads a checkpoint that `Checkpoint.save` wrote.

    Args:
      file: open for reading bytes, from its beginning.

    Returns:
      The checkpoint, and the facts that it was saved with.

    Raises:
      InputError: the file is damaged, or of another format.
    """
    with archives.opened(file, "checkpoint", _FORMAT) as (header, arrays):
        state = _state(header["state"], arrays)
        best = {n.removeprefix("best/"): arrays[n] for n in arrays if n.startswith("best/")}
        convergence = Convergence(
            header["step"],
            best,
            arrays["threshold"],
            arrays["stalled_steps"],
            tuple(header["stopped"]),
            header["seconds"],
            header["weights"] and tuple(header["weights"]),
        )
        reports = [_report(*parts) for parts in header["reports"]]
        matched = tf.constant(arrays["matched"]) if "matched" in arrays else None
        checkpoint = Checkpoint(header["scale"], convergence, state, reports, matched)
        return checkpoint, header["facts"]


def _flat(state: State) -> Iterator[tuple[str, np.ndarray]]:
    for name, value in state._asdict().items():
        if isinstance(value, tuple):
            for index, tensor in enumerate(value):
                yield f"state/{name}/{index}", _storable(tensor)
        else:
            yield f"state/{name}", _storable(value)


def _storable(tensor: tf.Tensor) -> np.ndarray:
    # NumPy's files cannot hold bfloat16.
    return tensor.numpy().view(np.uint16) if tensor.dtype == tf.bfloat16 else tensor.numpy()


def _state(kind: str, arrays: Any) -> State:
    found: dict[str, Any] = {}
    for path in arrays:
        if not path.startswith("state/"):
            continue
        name, *index = path.split("/")[1:]
        array = arrays[path]
        if array.dtype == np.uint16:
            array = array.view(tf.bfloat16.as_numpy_dtype)
        if index:
            found.setdefault(name, {})[int(index[0])] = tf.constant(array)
        else:
            found[name] = tf.constant(array)
    lists = {
        name: tuple(value[index] for index in sorted(value))
        for name, value in found.items()
        if isinstance(value, dict)
    }
    return _STATES[kind](**found | lists)


def _report(scales: list, curve: list, losses: dict[str, float]) -> Report:
    return Report(
        [ScaleReport(tuple(size), *rest) for size, *rest in scales],
        [tuple(point) for point in curve],
        losses,
    )
