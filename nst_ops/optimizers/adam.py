"""Adam on the pixels of a batch of images."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from nst_ops.images.resampling import resize
from nst_ops.images.size import Size
from nst_ops.optimizers.rows import per_image, select_rows

_STRIP = 512  # rows that are updated at a time


class AdamState(NamedTuple):
    """Holds the state of Adam for a batch of B images."""

    trial: tf.Tensor  # [B, H, W, 3], the picture to evaluate next
    image: tf.Tensor  # [B, H, W, 3], the best so far
    loss: tf.Tensor  # [B], of `image`; infinite before the first evaluation
    rejections: tf.Tensor  # [B] int32, always 0: Adam takes every step
    first: tf.Tensor  # [B, H, W, 3], mean gradient
    second: tf.Tensor  # [B, H, W, 3], mean squared gradient
    steps: tf.Tensor  # [B], updates with a finite loss so far


@dataclass(frozen=True)
class Adam:
    """Implements Adam (Kingma & Ba 2015) on pixels, which are clipped to [0, 1] after every step.

    Args:
      learning_rate: size of a step, where a pixel's range is 1.
      storage: type of the moments between steps: `float32`, or `bfloat16` for half the memory.
      beta1: decay of the mean gradient.
      beta2: decay of the mean squared gradient.
      epsilon: added to the root of the mean squared gradient.
    """

    learning_rate: float
    storage: str = "float32"
    beta1: float = 0.9
    beta2: float = 0.99
    epsilon: float = 1e-8

    def start(self, image: tf.Tensor) -> AdamState:
        """Returns the state whose first trial is `image`, [B, H, W, 3] in [0, 1]."""
        zeros = tf.zeros_like(image[:, 0, 0, 0])
        moment = tf.zeros_like(image, self.storage)
        return AdamState(
            image,
            image,
            zeros + float("inf"),
            tf.zeros_like(zeros, tf.int32),
            moment,
            moment,
            zeros,
        )

    def update(self, state: AdamState, loss: tf.Tensor, gradient: tf.Tensor) -> AdamState:
        """Returns the next state, given loss [B] and gradient [B, H, W, 3] at `state.trial`.

        Images whose loss is not finite go on from their best picture.
        """
        better = loss < state.loss
        taken = tf.math.is_finite(loss)  # NaN would never leave the moments again
        steps = state.steps + 1.0
        first, second = tf.cast(state.first, tf.float32), tf.cast(state.second, tf.float32)
        first = self.beta1 * first + (1.0 - self.beta1) * gradient
        second = self.beta2 * second + (1.0 - self.beta2) * tf.square(gradient)
        mean = first / per_image(1.0 - self.beta1**steps)
        deviation = tf.sqrt(second / per_image(1.0 - self.beta2**steps))
        trial = tf.clip_by_value(
            state.trial - self.learning_rate * mean / (deviation + self.epsilon), 0.0, 1.0
        )
        return AdamState(
            trial=select_rows(taken, trial, state.image),
            image=select_rows(better, state.trial, state.image),
            loss=tf.where(better, loss, state.loss),
            rejections=state.rejections,
            first=select_rows(taken, tf.cast(first, self.storage), state.first),
            second=select_rows(taken, tf.cast(second, self.storage), state.second),
            steps=tf.where(taken, steps, state.steps),
        )

    def fits(self, state: object) -> bool:
        """Tells whether the state could be one of this optimizer's."""
        return isinstance(state, AdamState) and state.first.dtype == self.storage

    def resize(self, state: AdamState, size: Size) -> AdamState:
        """Returns the state for the next scale. It keeps the moments, resized; the picture has to
        be evaluated anew.
        """
        shrink = (state.image.shape[1] * state.image.shape[2]) / (size[0] * size[1])
        image = tf.clip_by_value(resize(state.image, size), 0.0, 1.0)
        first = resize(state.first, size) * shrink
        second = tf.maximum(resize(state.second, size), 0.0) * shrink**2
        return self.start(image)._replace(
            first=tf.cast(first, self.storage),
            second=tf.cast(second, self.storage),
            steps=state.steps,
        )


def update_in_strips(
    update: Callable, state: AdamState, loss: tf.Tensor, gradient: np.ndarray
) -> AdamState:
    """Runs Adam's `update` on one strip of rows after the other, since every pixel is independent.

    Its intermediate values then take the memory of a strip, not of the picture.

    Args:
      update: `Adam.update`, perhaps compiled.
      state: of the whole images.
      loss: [B], at `state.trial`.
      gradient: [B, H, W, 3], at `state.trial`.
    """
    parts: dict[str, list[tf.Tensor]] = {"trial": [], "first": [], "second": []}
    new = state
    for top in range(0, gradient.shape[1], _STRIP):
        rows = slice(top, top + _STRIP)
        strip = {name: getattr(state, name)[:, rows] for name in (*parts, "image")}
        new = update(state._replace(**strip), loss, tf.constant(gradient[:, rows]))
        for name, part in parts.items():
            part.append(getattr(new, name))
    better = new.loss != state.loss
    if tf.reduce_all(better):
        image = state.trial  # not a copy, which would be as large as the picture
    else:
        image = select_rows(better, state.trial, state.image)
    whole = {name: tf.concat(parts.pop(name), axis=1) for name in list(parts)}
    return new._replace(image=image, **whole)
