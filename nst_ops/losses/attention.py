"""Attention: each part of a picture is to look like the part of a painting that resembles it most.

A Gram matrix says which strokes a painting has, but not where they belong, so that a calm sky gets
the same small curls as a crowd. Here every position of a feature map is matched with the most
similar positions of the paintings, whose features become its target (Kolkin et al. 2022, NNST; Li &
Wand 2016, CNNMRF; with a temperature, Liu et al. 2021, AdaAttN). The distance from the target is a
term of the loss like content's.

In attention's terms, the picture asks questions (queries), and the painting's positions answer by
their keys. The two are compared without palette and contrast, which photo and painting do not
share: features are normalised by channel, over all positions, and scaled to unit length.
"""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

# A painting answers with at most so many positions; if it has more, with every n-th row and column.
# More were not seen to help, and time grows with their number.
MOST_ANSWERS = 2**16
_PAIRS_AT_ONCE = 2**24  # similarities that are in memory at a time, 64 MB
_LEAST_SHARE = 1e-9  # in place of 0, by which nothing can be divided


class Answers(NamedTuple):
    """Holds the positions of a painting that can answer."""

    features: tf.Tensor  # [M, C], in the float type that the network gives
    keys: tf.Tensor  # [M, C] float32, of unit length
    weight: float | tf.Tensor  # of the painting in its blend; a number, or one per question


def answers(
    features: tf.Tensor, weight: float | tf.Tensor = 1.0, mask: tf.Tensor | None = None
) -> Answers:
    """Returns the answers that a painting can give.

    Args:
      features: of the painting, [1, h, w, C].
      weight: of the painting in its blend: a number above 0, or one for each position that asks,
        [h, w], where 0 gives no answer.
      mask: [1, h, w, 1]: only positions at least half as white as the whitest answer. None: all.
    """
    keys = _unit_length(instance_normalized(features))
    height, width, channels = (int(side) for side in features.shape[1:])
    step = 1
    while -(-height // step) * -(-width // step) > MOST_ANSWERS:
        step += 1
    if step > 1:  # else a slice would be a copy in vain
        features, keys = features[:, ::step, ::step], keys[:, ::step, ::step]
    flat = [-1, channels]
    features, keys = tf.reshape(features, flat), tf.reshape(keys, flat)
    if mask is not None:
        whites = tf.reshape(mask[:, ::step, ::step], [-1])
        can = whites >= tf.reduce_max(whites) / 2
        features, keys = tf.boolean_mask(features, can), tf.boolean_mask(keys, can)
    return Answers(features, keys, weight)


def questions(photo: tf.Tensor, picture: tf.Tensor | None) -> tf.Tensor:
    """Returns what each position asks for: the mean of what the photo and the picture show there.

    Args:
      photo: features [B, h, w, C].
      picture: features of the picture so far, of the same shape; None: the photo alone asks.

    Returns:
      [B, h, w, C] float32, of unit length.
    """
    asked = instance_normalized(photo)
    if picture is not None:
        asked += instance_normalized(picture)
    return _unit_length(asked)


def attend(asked: tf.Tensor, given: Sequence[Answers], temperature: float) -> tf.Tensor:
    """Returns the painting's features that each position of one picture gets as an answer.

    Args:
      asked: [h, w, C], from `questions`.
      given: the answers of each painting in the blend. A painting's distances are divided by its
        relative weight: one of twice the weight answers even where it is up to twice as far away.
        What a position gets at which no painting has a weight does not matter.
      temperature: 0: the nearest position answers. Above 0: all do, weighted by
        exp(-distance / temperature), where the distance is 1 - cosine.

    Returns:
      [h, w, C], in the type of the answers.
    """
    height, width, channels = asked.shape
    flat = tf.reshape(asked, [-1, channels])
    shares = _shares(given, height * width)
    most = max(each.keys.shape[0] for each in given)
    rows = max(64, _PAIRS_AT_ONCE // most)
    parts = []
    for start in range(0, height * width, rows):
        part, of_part = flat[start : start + rows], shares[:, start : start + rows]
        if temperature:
            parts.append(_weighted_mean(part, given, of_part, temperature))
        else:
            parts.append(_nearest(part, given, of_part))
    return tf.reshape(tf.concat(parts, axis=0), [height, width, channels])


def instance_normalized(features: tf.Tensor) -> tf.Tensor:
    """Scales [B, h, w, C] to mean 0, variance 1 over positions, float32 (Ulyanov et al. 2016)."""
    features = tf.cast(features, tf.float32)
    mean, variance = tf.nn.moments(features, axes=[1, 2], keepdims=True)
    return (features - mean) * tf.math.rsqrt(variance + 1e-6)


def _unit_length(features: tf.Tensor) -> tf.Tensor:
    return tf.math.l2_normalize(features, axis=-1, epsilon=1e-12)


def _shares(given: Sequence[Answers], count: int) -> tf.Tensor:
    """Returns each painting's weight over the mean of those that have one, [paintings, count]."""
    weights = [tf.broadcast_to(tf.reshape(each.weight, [-1]), [count]) for each in given]
    stacked = tf.cast(tf.stack(weights), tf.float32)
    active = tf.reduce_sum(tf.cast(stacked > 0.0, tf.float32), axis=0)
    mean = tf.math.divide_no_nan(tf.reduce_sum(stacked, axis=0), active)
    return tf.maximum(tf.math.divide_no_nan(stacked, mean), _LEAST_SHARE)


def _nearest(asked: tf.Tensor, given: Sequence[Answers], shares: tf.Tensor) -> tf.Tensor:
    found, distances = [], []
    for each, share in zip(given, tf.unstack(shares), strict=True):
        index, similarity = _most_similar(asked, each.keys)
        found.append(tf.gather(each.features, index))
        distances.append((1.0 - similarity) / share)
    if len(found) == 1:
        return found[0]
    chosen = tf.argmin(tf.stack(distances, axis=1), axis=1)
    return tf.gather(tf.stack(found, axis=1), chosen, batch_dims=1)


def _weighted_mean(
    asked: tf.Tensor, given: Sequence[Answers], shares: tf.Tensor, temperature: float
) -> tf.Tensor:
    logits = [
        (tf.matmul(asked, each.keys, transpose_b=True) - 1.0) / (share[:, None] * temperature)
        for each, share in zip(given, tf.unstack(shares), strict=True)
    ]
    weights = tf.nn.softmax(tf.concat(logits, axis=1), axis=1)
    features = tf.concat([tf.cast(each.features, tf.float32) for each in given], axis=0)
    return tf.cast(tf.matmul(weights, features), given[0].features.dtype)


@tf.function(reduce_retracing=True)
def _most_similar(asked: tf.Tensor, keys: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    similarity = tf.matmul(asked, keys, transpose_b=True)
    return tf.argmax(similarity, axis=1), tf.reduce_max(similarity, axis=1)
