"""The losses. A loss maps feature maps or images of a batch to one value per image, [B] float32.

Units. Every term is relative to its own target, so that none depends on resolution, batch size or
the magnitude of a layer's activations:

* style: mean over layers of |G - A|^2 / |A|^2 (Frobenius). The usual absolute form (Gatys et al.
  2016, eq. 5) lets block3 and block4 drown the other layers.
* content: mean (F - T)^2 / mean T^2, times `CONTENT_UNIT`; T are the photo's features in the
  painting's statistics (`targets.content`). The factor makes the field's ranges the useful ones:
  measured, a relative content term counts for something between .02 (free) and 2 (the photo hardly
  touched) times the style term, and content_weight / style_weight goes from 1e3 / 1e-1 to 1e4 /
  1e-2.
* attention: as content, but the target of each position is the part of the painting that it matches
  (`losses.attention`). It is also multiplied by style_weight: at attention_weight 1 it counts as
  much as all Gram matrices together.
* total variation: mean over pixels of the length of the colour gradient (per px, 0 to about 1),
  times `TV_UNIT`, measured so that 10 to 100 is the useful range beside a style_weight of 1e-2 to
  1e-1.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf

CONTENT_UNIT = 2.6e-6
TV_UNIT = 3e-4
_TV_SOFTNESS = (
    0.02  # gradients below about this length count quadratically: paint's grain is not an edge
)

Features = Mapping[str, tf.Tensor]


class LossWeights(NamedTuple):
    """Holds the factor of each term: scalars, or [B] for a batch whose images differ."""

    content: tf.Tensor
    style: tf.Tensor
    tv: tf.Tensor
    attention: tf.Tensor  # already multiplied by the style weight


class Targets(NamedTuple):
    """Holds what a batch is optimized towards at one scale."""

    content: dict[str, tf.Tensor]  # {layer: [B, h, w, C]}
    views: tuple["View", ...]  # what the style is compared in
    # {layer: ...}, features or where to find them; empty if the term is not in use.
    attention: "dict[str, tf.Tensor | Answered]"


class Answered(NamedTuple):
    """Holds a target's features as places in a list, which takes a hundredth of their memory."""

    features: tf.Tensor  # [B, M, 1, C]
    index: tf.Tensor  # [B, h, w, 1] int32, into M


class View(NamedTuple):
    """Holds the style's target in one region of the pictures, at one octave.

    Without masks there is one region, the whole picture.
    """

    grams: dict[str, tf.Tensor]  # {layer: [B, C, C]}
    weight: tf.Tensor  # [B], 0 for images that have no such region, or no target at this octave
    # {layer: [B, h, w, 1]}: how much each position counts, with sum 1; empty: all alike.
    positions: dict[str, tf.Tensor]


def cut_target(
    target: tf.Tensor | Answered, rows: slice, columns: slice = slice(None)
) -> tf.Tensor | Answered:
    """Returns the part of a target that belongs to these rows and columns of positions."""
    if isinstance(target, Answered):
        return target._replace(index=target.index[:, rows, columns])
    return target[:, rows, columns]


def target_features(target: tf.Tensor | Answered) -> tf.Tensor:
    """Returns a target as features [B, h, w, C] float32."""
    if isinstance(target, Answered):
        target = tf.gather(target.features[:, :, 0], target.index[..., 0], batch_dims=1)
    return tf.cast(target, tf.float32)


def feature_loss(
    features: Features, targets: Mapping[str, tf.Tensor | Answered], layers: Mapping[str, float]
) -> tf.Tensor:
    """Returns the weighted mean over layers of the squared distance relative to the target
    features.

    This is eq. 1 of Gatys et al. 2016, made relative. It is the content loss if the targets are
    made from features of the photo, and the attention loss if they are the painting's.

    Args:
      features: {layer: [B, h, w, C]} of the picture.
      targets: features of the same shapes.
      layers: {layer: weight}; the weights' sum does not matter.

    Returns:
      [B] float32.
    """
    terms = []
    for layer, weight in layers.items():
        target = target_features(targets[layer])
        distance = tf.reduce_mean(
            tf.square(tf.cast(features[layer], tf.float32) - target), axis=[1, 2, 3]
        )
        terms.append(
            weight
            * tf.math.divide_no_nan(distance, tf.reduce_mean(tf.square(target), axis=[1, 2, 3]))
        )
    return tf.add_n(terms) / sum(layers.values())


def style_loss(
    grams: Sequence[Features], views: Sequence[View], layers: Mapping[str, float]
) -> tf.Tensor:
    """Returns the weighted sum over views, and mean over layers, of the squared distance between
    Gram matrices, relative to the target.

    This is eq. 4-5 of Gatys et al. 2016, made relative; several octaves are from Snelgrove 2017,
    several regions from Gatys et al. 2017.

    Args:
      grams: Gram matrices of the picture for each view, {layer: [B, C, C]}.
      views: the targets. Their weights add up to 1, or to the share of the picture that has a
        painting.
      layers: {layer: weight}; the weights' sum does not matter.

    Returns:
      [B] float32.
    """
    terms = []
    for mine, view in zip(grams, views, strict=True):
        for layer, weight in layers.items():
            goal = view.grams[layer]
            distance = tf.reduce_sum(tf.square(mine[layer] - goal), axis=[1, 2])
            norm = tf.reduce_sum(tf.square(goal), axis=[1, 2])
            terms.append(view.weight * weight * tf.math.divide_no_nan(distance, norm))
    return tf.add_n(terms) / sum(layers.values())


def total_variation(images: tf.Tensor) -> tf.Tensor:
    """Returns the mean length of the gradient over space and colour (Rudin, Osher & Fatemi 1992;
    Blomgren & Chan 1998).

    It is a mean over pixels, so that grain of one amplitude costs the same at every resolution.

    Args:
      images: [B, H, W, 3] in [0, 1].

    Returns:
      [B] float32, 0 for a flat image.
    """
    height, width = tf.shape(images)[1], tf.shape(images)[2]
    return variation_sum(images) / tf.cast((height - 1) * (width - 1), tf.float32)


def variation_sum(images: tf.Tensor) -> tf.Tensor:
    """Returns `total_variation` before the mean is taken, for tiles of an image: [B] float32.

    A pixel is compared with its neighbours below and to the right, so the last row and column serve
    only as neighbours.
    """
    down = images[:, 1:, :-1] - images[:, :-1, :-1]
    right = images[:, :-1, 1:] - images[:, :-1, :-1]
    squared = tf.reduce_sum(tf.square(down) + tf.square(right), axis=-1)
    length = tf.sqrt(squared + _TV_SOFTNESS**2) - _TV_SOFTNESS
    return tf.reduce_sum(length, axis=[1, 2])


def weighted_total(
    weights: LossWeights,
    *,
    content: tf.Tensor,
    style: tf.Tensor,
    tv: tf.Tensor,
    attention: tf.Tensor,
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Returns the weighted loss from its four terms, [B] each.

    Returns:
      The total [B], and {"content", "style", "tv", "attention"}: [B] each, with their weights, so
      that they add up to the total.
    """
    terms = {
        "content": CONTENT_UNIT * weights.content * content,
        "style": weights.style * style,
        "tv": TV_UNIT * weights.tv * tv,
        "attention": weights.attention * attention,
    }
    return tf.add_n(list(terms.values())), terms
