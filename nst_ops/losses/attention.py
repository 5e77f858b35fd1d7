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

from nst_ops.images.size import Size
from nst_ops.losses.moments import Moments, moments
from nst_ops.losses.octaves import MOST_ANSWERS

_PAIRS_AT_ONCE = 2**24  # similarities that are in memory at a time, 64 MB
_ROUNDS = 3  # in which answers spread to neighbours; each takes them one position further
_NEVER = -1e9  # a logit; where no painting has a weight, -inf would give NaN


class Answers(NamedTuple):
    """Holds the positions of a painting that can answer."""

    features: tf.Tensor  # [M, C], in the float type that the network gives
    keys: tf.Tensor  # [M, C] float32, of unit length
    weight: float | tf.Tensor  # of the painting in its blend; a number, or one per question
    # The positions are a map of this height and width; None: only every n-th is there, so that
    # those beside each other in the map are not so in the painting.
    size: Size | None
    silent: tf.Tensor | None  # [M], 0 for positions that answer, else -inf; None: all do


def thin(features: tf.Tensor) -> tf.Tensor:
    """Returns every n-th row and column of features [1, h, w, C], so many as can answer."""
    height, width = int(features.shape[1]), int(features.shape[2])
    step = 1
    while -(-height // step) * -(-width // step) > MOST_ANSWERS:
        step += 1
    # Else a slice would be a copy in vain.
    return features[:, ::step, ::step] if step > 1 else features


def answers(
    features: tf.Tensor,
    weight: float | tf.Tensor = 1.0,
    mask: tf.Tensor | None = None,
    *,
    thinned: bool = False,
) -> Answers:
    """Returns the answers that a painting can give.

    Args:
      features: of the painting, [1, h, w, C].
      weight: of the painting in its blend: a number above 0, or one for each position that asks,
        [h, w], where 0 gives no answer.
      mask: [1, h, w, 1]: only positions at least half as white as the whitest answer. None: all.
      thinned: whether `thin` has left positions out.
    """
    keys = _unit_length(moments(features).normalize(features))
    height, width, channels = (int(side) for side in features.shape[1:])
    silent = None
    if mask is not None:
        whites = tf.reshape(mask, [-1])
        silent = tf.where(whites >= tf.reduce_max(whites) / 2, 0.0, -float("inf"))
    flat = [-1, channels]
    size = None if thinned else (height, width)
    return Answers(tf.reshape(features, flat), tf.reshape(keys, flat), weight, size, silent)


def questions(shown: Sequence[tuple[tf.Tensor, Moments]]) -> tf.Tensor:
    """Returns what each position asks for: the mean of what photo and picture show there.

    Args:
      shown: features [B, h, w, C] of the photo, and of the picture so far if it asks too; and the
        moments of all their positions, of which these may be a part.

    Returns:
      [B, h, w, C] float16, of unit length: for large pictures they are most of what is in memory.
    """
    asked = tf.add_n([of.normalize(features) for features, of in shown])
    return tf.cast(_unit_length(asked), tf.float16)


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
    if temperature:
        return _weighted_mean(asked, given, temperature)
    return tf.gather(tf.concat([each.features for each in given], axis=0), nearest(asked, given))


def nearest(asked: tf.Tensor, given: Sequence[Answers]) -> tf.Tensor:
    """Returns for each question [h, w, C] the index of its answer among those of all paintings,
    [h, w] int32. Arguments are those of `attend`.
    """
    height, width, _ = asked.shape
    shares = _shares(given, height * width)
    chosen = tf.zeros([height, width], tf.int32)
    least, before = tf.fill([height, width], float("inf")), 0
    for each, share in zip(given, tf.unstack(shares), strict=True):
        index, similarity = _match(asked, each)
        share = tf.reshape(share, [height, width])
        # float16 makes a cosine of a little more than 1, and 0 over a share of 0 would win too.
        distance = tf.math.divide_no_nan(tf.maximum(1.0 - similarity, 0.0), share)
        distance = tf.where(share > 0.0, distance, float("inf"))
        chosen = tf.where(distance < least, before + index, chosen)
        least = tf.minimum(distance, least)
        before += len(each.keys)
    return chosen


def _unit_length(features: tf.Tensor) -> tf.Tensor:
    return tf.math.l2_normalize(features, axis=-1, epsilon=1e-12)


def _shares(given: Sequence[Answers], count: int) -> tf.Tensor:
    """Returns each painting's weight over the mean of those that have one, [paintings, count]."""
    weights = [tf.broadcast_to(tf.reshape(each.weight, [-1]), [count]) for each in given]
    stacked = tf.cast(tf.stack(weights), tf.float32)
    active = tf.reduce_sum(tf.cast(stacked > 0.0, tf.float32), axis=0)
    mean = tf.math.divide_no_nan(tf.reduce_sum(stacked, axis=0), active)
    return tf.math.divide_no_nan(stacked, mean)


def _match(asked: tf.Tensor, given: Answers) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns for each question [h, w, C] the index of the painting's answer, and how similar the
    painting's nearest position is, by which paintings are compared; [h, w] each.
    """
    height, width, channels = asked.shape
    flat = tf.reshape(asked, [-1, channels])
    silent = tf.zeros([1]) if given.silent is None else given.silent
    rows = _rows_at_once(len(given.keys))
    found = [
        _most_similar(flat[start : start + rows], given.keys, silent)
        for start in range(0, height * width, rows)
    ]
    index, similarity = (
        tf.reshape(tf.concat(parts, axis=0), [height, width]) for parts in zip(*found, strict=True)
    )
    if given.size is not None:
        index = _follow_neighbours(asked, index, given, given.size)
    return index, similarity


def _follow_neighbours(asked: tf.Tensor, index: tf.Tensor, given: Answers, size: Size) -> tf.Tensor:
    """Makes answers hang together: positions beside each other take after parts of the painting
    that are beside each other, wherever the 3 x 3 positions around both are then more alike
    (coherence search, Ashikhmin 2001; PatchMatch's propagation, Barnes et al. 2009).

    Returns:
      The indices anew, [h, w].
    """
    keys = tf.reshape(given.keys, [*size, -1])
    silent = tf.zeros(size) if given.silent is None else tf.reshape(given.silent, size)
    places = tf.stack([index // size[1], index % size[1]], axis=-1)  # [h, w, (row, column)]
    best = _around(asked, keys, silent, places)
    for _ in range(_ROUNDS):
        for step in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            # What continues the answer of the neighbour on this side.
            others = _shifted(places, step) - tf.constant(step, places.dtype)
            others = tf.clip_by_value(others, 0, tf.constant(size, places.dtype) - 1)
            similarity = _around(asked, keys, silent, others)
            places = tf.where((similarity > best)[:, :, None], others, places)
            best = tf.maximum(similarity, best)
    return places[..., 0] * size[1] + places[..., 1]


def _around(asked: tf.Tensor, keys: tf.Tensor, silent: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
    """Returns how similar the 3 x 3 questions around each position are to the 3 x 3 keys around its
    place, [h, w].
    """
    height, width, channels = asked.shape
    rows = max(1, _PAIRS_AT_ONCE // (4 * width * channels))
    padded = tf.concat([asked[:1], asked, asked[-1:]], axis=0)
    padded = tf.concat([padded[:, :1], padded, padded[:, -1:]], axis=1)
    return tf.concat(
        [
            _around_strip(padded[top : top + rows + 2], keys, silent, places[top : top + rows])
            for top in range(0, height, rows)
        ],
        axis=0,
    )


@tf.function(reduce_retracing=True)
def _around_strip(
    padded: tf.Tensor, keys: tf.Tensor, silent: tf.Tensor, places: tf.Tensor
) -> tf.Tensor:
    height, width = tf.shape(places)[0], tf.shape(places)[1]
    last = tf.cast(tf.shape(keys)[:2], places.dtype) - 1
    total = tf.gather_nd(silent, places)
    for row in range(3):
        for column in range(3):
            step = tf.constant([row - 1, column - 1], places.dtype)
            theirs = tf.gather_nd(keys, tf.clip_by_value(places + step, 0, last))
            ours = tf.cast(padded[row : row + height, column : column + width], tf.float32)
            total += tf.reduce_sum(ours * theirs, axis=-1)
    return total / 9.0


def _shifted(places: tf.Tensor, step: tuple[int, int]) -> tf.Tensor:
    """Returns a map [h, w, 2] in which each position has what its neighbour has, `step` away."""
    height, width = int(places.shape[0]), int(places.shape[1])
    rows = tf.clip_by_value(tf.range(height) + step[0], 0, height - 1)
    columns = tf.clip_by_value(tf.range(width) + step[1], 0, width - 1)
    return tf.gather(tf.gather(places, rows, axis=0), columns, axis=1)


def _weighted_mean(asked: tf.Tensor, given: Sequence[Answers], temperature: float) -> tf.Tensor:
    height, width, channels = asked.shape
    shares = _shares(given, height * width)
    flat = tf.reshape(asked, [-1, channels])
    features = tf.concat([tf.cast(each.features, tf.float32) for each in given], axis=0)
    rows, parts = _rows_at_once(len(features)), []
    for start in range(0, height * width, rows):
        logits = []
        for each, share in zip(given, tf.unstack(shares), strict=True):
            part = tf.cast(flat[start : start + rows], tf.float32)
            similarity = tf.matmul(part, each.keys, transpose_b=True)
            similarity += 0.0 if each.silent is None else each.silent
            sharp = share[start : start + rows, None] * temperature
            logit = tf.math.divide_no_nan(tf.minimum(similarity - 1.0, 0.0), sharp)
            logits.append(tf.where(sharp > 0.0, logit, _NEVER))
        weights = tf.nn.softmax(tf.concat(logits, axis=1), axis=1)
        parts.append(tf.cast(tf.matmul(weights, features), given[0].features.dtype))
    return tf.reshape(tf.concat(parts, axis=0), [height, width, channels])


def _rows_at_once(answers: int) -> int:
    return max(64, _PAIRS_AT_ONCE // answers)


@tf.function(reduce_retracing=True)
def _most_similar(
    asked: tf.Tensor, keys: tf.Tensor, silent: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    similarity = tf.matmul(tf.cast(asked, tf.float32), keys, transpose_b=True) + silent
    return tf.argmax(similarity, axis=1, output_type=tf.int32), tf.reduce_max(similarity, axis=1)
