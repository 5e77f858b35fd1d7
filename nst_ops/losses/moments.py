"""Moments: mean and variance of features by channel, over the positions of an image or a part."""

import functools
from typing import NamedTuple

import tensorflow as tf

_AT_ONCE = 2**23  # numbers that are summed up at a time, 64 MB


class Moments(NamedTuple):
    """Sums up the channels of features over positions, from which mean and variance follow."""

    count: float | tf.Tensor  # of positions, or the sum of their weights, [B, 1, 1, 1]
    total: tf.Tensor  # [B, 1, 1, C] float64
    squares: tf.Tensor  # likewise

    def join(self, other: "Moments") -> "Moments":
        """Returns the moments of the positions of both."""
        return Moments(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    @property
    def mean(self) -> tf.Tensor:
        """Returns the mean of each channel, [B, 1, 1, C] float64; 0 if there are no positions."""
        return tf.math.divide_no_nan(self.total, tf.cast(self.count, tf.float64))

    @property
    def variance(self) -> tf.Tensor:
        """Returns the variance of each channel, [B, 1, 1, C] float64."""
        squares = tf.math.divide_no_nan(self.squares, tf.cast(self.count, tf.float64))
        return tf.maximum(squares - tf.square(self.mean), 0.0)

    def normalize(self, features: tf.Tensor) -> tf.Tensor:
        """Scales features [B, h, w, C] to mean 0, variance 1 over these positions, float32, as
        instance normalisation does (Ulyanov et al. 2016).
        """
        scale = tf.cast(tf.math.rsqrt(self.variance + 1e-6), tf.float32)
        return (tf.cast(features, tf.float32) - tf.cast(self.mean, tf.float32)) * scale


def moments(features: tf.Tensor, weights: tf.Tensor | None = None) -> Moments:
    """Returns the moments of features.

    Args:
      features: [B, h, w, C].
      weights: how much each position counts, [B, h, w, 1]; None: all alike.
    """
    height, width, channels = (int(side) for side in features.shape[1:])
    rows = max(1, _AT_ONCE // max(1, width * channels * len(features)))
    # In strips, since float64 of all would be large; one, if a tile has no position of the layer.
    strips = (slice(top, top + rows) for top in range(0, max(1, height), rows))
    return functools.reduce(
        Moments.join,
        (
            _strip_moments(features[:, strip], None if weights is None else weights[:, strip])
            for strip in strips
        ),
    )


def _strip_moments(features: tf.Tensor, weights: tf.Tensor | None) -> Moments:
    values = tf.cast(features, tf.float64)
    count: float | tf.Tensor = float(values.shape[1]) * float(values.shape[2])
    weighted = values
    if weights is not None:
        places = tf.cast(weights, tf.float64)
        count, weighted = tf.reduce_sum(places, axis=[1, 2], keepdims=True), places * values
    return Moments(
        count,
        tf.reduce_sum(weighted, axis=[1, 2], keepdims=True),
        tf.reduce_sum(weighted * values, axis=[1, 2], keepdims=True),
    )
