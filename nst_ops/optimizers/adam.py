"""Adam on the pixels of a batch of images."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from nst_ops.images.resampling import resize
from nst_ops.images.size import Size
from nst_ops.optimizers.rows import per_image, select_rows

_STRIP = 512  # rows


class AdamState(NamedTuple):
    """Of a batch of B images."""

    trial: tf.Tensor  # [B, H, W, 3]
    image: tf.Tensor  # [B, H, W, 3]
    loss: tf.Tensor  # [B]
    rejections: tf.Tensor  # [B] int32, always 0: Adam takes every step
    first: tf.Tensor  # [B, H, W, 3], mean gradient
    second: tf.Tensor  # [B, H, W, 3], mean squared gradient
    steps: tf.Tensor  # [B]


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba 2015) on pixels, which are clipped to [0, 1] after every step.

    Args:
      learning_rate: per step, a pixel's range being 1.
      storage: of the moments between steps: `float32`, or `bfloat16`, which halves them.
    """

    learning_rate: float
    storage: str = "float32"
    beta1: float = 0.9
    beta2: float = 0.99
    epsilon: float = 1e-8

    def start(self, image: tf.Tensor) -> AdamState:
        """The state whose first trial is `image`, [B, H, W, 3] in [0, 1]."""
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
        """Takes in loss [B] and gradient [B, H, W, 3] at `state.trial`.

        Where the loss is not finite it goes on from the best picture.
        """
        better = loss < state.loss
        taken = tf.math.is_finite(loss)  # else the moments would be lost for good
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
        """Whether the state could be this optimizer's."""
        return isinstance(state, AdamState) and state.first.dtype == self.storage

    def resize(self, state: AdamState, size: Size) -> AdamState:
        """The state for the next scale: moments carried over, the picture to be evaluated anew."""
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
    """Adam's `update`, which looks at every pixel by itself, a strip of rows at a time.

    What it computes on the way is then as large as a strip, not as the picture.
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
        image = state.trial  # itself: a copy would be as large as the picture
    else:
        image = select_rows(better, state.trial, state.image)
    whole = {name: tf.concat(parts.pop(name), axis=1) for name in list(parts)}
    return new._replace(image=image, **whole)
