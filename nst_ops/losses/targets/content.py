"""Content's targets: the photo's structure, told in the paintings' statistics.

Features of the photo itself would hold on to its palette and contrast, which the Gram matrices are
there to change: the two terms would work against each other. So each channel of the photo's
features is brought to the mean and the deviation that it has in the painting (adaptive instance
normalisation, Huang & Belongie 2017), and what remains to be kept is where things are.
"""

from collections.abc import Sequence

import tensorflow as tf

from nst_ops.images.inputs import Style
from nst_ops.images.size import Size
from nst_ops.losses.moments import Moments, moments
from nst_ops.losses.objective import Objective
from nst_ops.losses.regions import Region, at_layer, resized
from nst_ops.losses.targets.cache import Seen, TargetCache, file_name
from nst_ops.losses.targets.paintings import painting_tile, resized_painting, seen_paintings
from nst_ops.losses.tiled import tiled_features, tiled_moments
from nst_ops.settings import Settings

# A channel's contrast is at most multiplied or divided by this: what hardly varies in a photo with
# much plain ground is no structure, and a plain painting must not take away the photo's.
_MOST_GAIN = 4.0
_STRIP = 64  # rows of positions; all in float32 would be large


def content_targets(
    photos: tf.Tensor,
    regions: Sequence[Sequence[Region]],
    final: Size,
    settings: Settings,
    objective: Objective,
    cache: TargetCache,
    side: int | None = None,
) -> dict[str, tf.Tensor]:
    """Returns the features that each position of the pictures should keep to; where no painting
    goes, those of the photos.

    Args:
      photos: [B, H, W, 3], at the size of the scale.
      regions: of each picture.
      final: size of the result, which `style_scales` in px refer to.
      side: of tiles, in px; None: photos are computed whole.

    Returns:
      {layer: [B, h, w, C]}.
    """
    layers = tuple(layer for layer, _ in objective.content_layers)
    shown = tiled_features(objective, layers, photos, side)
    if not settings.style_weight:
        return shown
    height, width = photos.shape.as_list()[1:3]
    found: dict[str, list[tf.Tensor]] = {layer: [] for layer in layers}
    for row, each in enumerate(regions):
        painted = [
            _painted(region.paintings, (height, width), final, settings, objective, cache)
            for region in each
        ]
        for layer in layers:
            features = shown[layer][row : row + 1]
            given = [
                (None if region.where is None else at_layer(objective, region.where, layer), seen)
                for region, seen in zip(each, (of[layer] for of in painted), strict=True)
            ]
            found[layer].append(_retold(features, given))
    return {layer: tf.concat(rows, axis=0) for layer, rows in found.items()}


def _painted(
    blend: Sequence[Style],
    picture: Size,
    final: Size,
    settings: Settings,
    objective: Objective,
    cache: TargetCache,
) -> dict[str, Moments]:
    """Returns the moments of a blend's paintings together, at all `style_scales`: by layer."""
    layers = tuple(sorted(layer for layer, _ in objective.content_layers))
    sums: dict[str, Moments] = {}
    for style, size, share in seen_paintings(blend, picture, final, settings, objective):

        def compute(style: Style = style, size: Size = size) -> tuple[Seen, ...]:
            places: dict[str, tf.Tensor] = {}
            if style.painting_mask is not None:
                mask = resized(style.painting_mask, size)
                places = {layer: at_layer(objective, mask, layer) for layer in layers}
            image, side = resized_painting(style.image, size), painting_tile(size, objective)
            seen = tiled_moments(objective, layers, image, side, places)
            return ({layer: tf.stack([of.mean, of.variance]) for layer, of in seen.items()},)

        key = ("content", objective.identity, layers, style.digest, size)
        name = file_name(objective.network, "content", style.digest, size, layers)
        (found,) = cache.get(key, compute, name)
        for layer, (mean, variance) in found.items():
            part = Moments(share, share * mean, share * (variance + tf.square(mean)))
            sums[layer] = sums[layer].join(part) if layer in sums else part
    return sums


def _retold(features: tf.Tensor, given: Sequence[tuple[tf.Tensor | None, Moments]]) -> tf.Tensor:
    """Returns a photo's features with the moments of paintings.

    Args:
      features: [1, h, w, C].
      given: where paintings go, [1, h, w, 1], or None for everywhere; and their moments.
    """
    changes = []
    for place, wanted in given:
        own = moments(features, place)
        gain = tf.sqrt(tf.math.divide_no_nan(wanted.variance, own.variance))
        gain = tf.clip_by_value(gain, 1.0 / _MOST_GAIN, _MOST_GAIN)
        offset = wanted.mean - gain * own.mean
        changes.append((place, tf.cast(gain - 1.0, tf.float32), tf.cast(offset, tf.float32)))
    masks = [place for place, _ in given if place is not None]
    most = tf.maximum(1.0, tf.add_n(masks)) if masks else None  # where masks overlap
    strips = []
    for top in range(0, int(features.shape[1]), _STRIP):
        rows = slice(top, top + _STRIP)
        part = tf.cast(features[:, rows], tf.float32)
        total = part
        for place, gain, offset in changes:
            change = part * gain + offset
            if place is not None and most is not None:
                change *= place[:, rows] / most[:, rows]
            total += change
        strips.append(tf.cast(total, features.dtype))
    return tf.concat(strips, axis=1)
