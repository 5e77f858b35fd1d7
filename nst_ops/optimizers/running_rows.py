"""The state of a batch of which some images have stopped; only the others are computed."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from nst_ops.compiled import uses_xla
from nst_ops.losses.terms import LossWeights, Targets
from nst_ops.optimizers.optimizer import State
from nst_ops.optimizers.rows import join_rows, select_rows, take_rows

Part = tuple[Sequence[int] | np.ndarray, State]  # rows of the batch, and their state


class RunningRows:
    """Advances the images of a batch that still run, at one scale.

    On a GPU a smaller batch would have to be compiled, so there all images are computed, and those
    that have stopped are put back to where they were.

    Args:
      state: the optimizer's, of all B images.
      targets: of all B images.
    """

    def __init__(self, state: State, targets: Targets):
        self._all_targets = targets
        self._begin(state)

    def _begin(self, state: State) -> None:
        self._state, self._targets = state, self._all_targets
        self._rows = np.arange(state.loss.shape[0])  # of the images that are computed
        self._aside: list[Part] = []
        self._put_back: np.ndarray | None = None  # [B] bool: computed in vain

    @property
    def parts(self) -> list[Part]:
        """Returns the state of all images in the parts in which it is kept."""
        return [(self._rows, self._state), *self._aside]

    def whole(self) -> State:
        """Returns the state of all images, joined."""
        return join_rows(self.parts)

    def set_aside(self, stopped: np.ndarray) -> None:
        """Stops computing these images, [B] bool; they must include all that had stopped before."""
        if uses_xla():
            self._put_back = stopped if stopped.any() else None
            return
        out = np.flatnonzero(stopped[self._rows])
        if not len(out):
            return
        left = np.flatnonzero(~stopped[self._rows])
        self._aside.append((self._rows[out], take_rows(self._state, out)))
        self._rows = self._rows[left]
        self._state = take_rows(self._state, left)
        self._targets = take_rows(self._all_targets, self._rows)

    def begin_anew(self, stopped: np.ndarray) -> None:
        """Runs all images again, under weights or targets whose losses cannot be compared with
        those so far. The next trial is accepted whatever its loss; for images that had stopped, it
        is their best picture.

        Args:
          stopped: [B] bool, the images that had stopped.
        """
        state = self.whole()
        self._begin(
            state._replace(
                loss=tf.fill(state.loss.shape, float("inf")),
                rejections=tf.zeros_like(state.rejections),
                trial=select_rows(tf.constant(stopped), state.image, state.trial),
            )
        )

    def aim_at(self, targets: Targets) -> None:
        """Sets other targets, which count from the next `begin_anew` on."""
        self._all_targets = targets

    def advance(
        self, step: Callable, weights: LossWeights
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Makes one step of the images that still run.

        Args:
          step: (state, targets, weights) -> (state, losses).
          weights: of the terms of the loss.

        Returns:
          The losses of the trial, [B] each, NaN for images that were set aside; and how many trials
          in a row were rejected, [B], 0 for those images.
        """
        if self._put_back is None:
            self._state, found = step(self._state, self._targets, weights)
        else:
            after, found = step(self._state, self._targets, weights)
            put_back = tf.constant(self._put_back)
            self._state = tf.nest.map_structure(
                lambda old, new: select_rows(put_back, old, new), self._state, after
            )
        count = sum(len(rows) for rows, _ in self.parts)
        losses = {name: np.full(count, np.nan, np.float32) for name in found}
        for name, values in found.items():
            losses[name][self._rows] = values.numpy()
        rejections = np.zeros(count, np.int32)
        rejections[self._rows] = self._state.rejections.numpy()
        return losses, rejections
