"""Content's targets: the photo's structure, told in the paintings' statistics.

Features of the photo itself would hold on to its palette and contrast, which the Gram matrices are
there to change: the two terms would work against each other. So each channel of the photo's
features is brought to the mean and the deviation that it has in the painting (adaptive instance
normalisation, Huang & Belongie 2017), and what remains to be kept is where things are.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from nst_ops.images.inputs import Style
from nst_ops.images.size import Size
from nst_ops.losses.moments import Moments, moments
from nst_ops.losses.objective import Objective
from nst_ops.losses.regions import OWN_MASK, Region, at_layer, position_weights, resized
from nst_ops.losses.targets.cache import Seen, file_name
from nst_ops.losses.targets.paintings import Sight, painting_tile, resized_painting
from nst_ops.losses.tiled import tiled_features, tiled_moments

# A channel's contrast is at most multiplied or divided by this: what hardly varies in a photo with
# much plain ground is no structure, and a plain painting must not take away the photo's.
_MOST_GAIN = 4.0
_STRIP = 64  # rows of positions; all in float32 would be large


def content_targets(
    photos: tf.Tensor,
    regions: Sequence[Sequence[Region]],
    sight: Sight,
    side: int | None = None,
) -> dict[str, tf.Tensor]:
    """Returns the features that each position of the pictures should keep to; where no painting
    goes, those of the photos.

    Args:
      photos: [B, H, W, 3], at the size of the scale.
      regions: of each picture.
      sight: by what paintings are seen.
      side: of tiles, in px; None: photos are computed whole.

    Returns:
      {layer: [B, h, w, C]}.
    """
    objective = sight.objective
    layers = tuple(dict(objective.content_layers))
    shown = dict(tiled_features(objective, layers, photos, side))
    if not sight.settings.style_weight:
        return shown
    height, width = photos.shape.as_list()[1:3]
    painted = [
        [_painted(region.paintings, (height, width), sight) for region in each] for each in regions
    ]
    found: dict[str, tf.Tensor] = {}
    for layer in layers:
        features = shown.pop(layer)
        changes = [
            [
                _change(objective, layer, features[row : row + 1], region, seen[layer])
                for region, seen in zip(each, painted[row], strict=True)
            ]
            for row, each in enumerate(regions)
        ]
        values = features.numpy()  # a copy; it is changed in place, as features may be gigabytes
        del features
        for row, each in enumerate(changes):
            _apply(values[row], each)
        found[layer] = tf.constant(values)
    return found


def _painted(
    blend: Sequence[Style],
    picture: Size,
    sight: Sight,
) -> dict[str, Moments]:
    """Returns the moments of a blend's paintings together, at all `style_scales`: by layer."""
    objective = sight.objective
    layers = tuple(sorted(dict(objective.content_layers)))
    sums: dict[str, Moments] = {}
    for style, size, share in sight.paintings(blend, picture):

        def compute(style: Style = style, size: Size = size) -> tuple[Seen, ...]:
            places: dict[str, tf.Tensor] = {}
            if style.painting_mask is not None:
                mask = resized(style.painting_mask, size)
                places = position_weights(objective, layers, mask, [0], [OWN_MASK])[0]
            image, side = resized_painting(style.image, size), painting_tile(size, objective)
            seen = tiled_moments(objective, layers, image, side, places)
            return ({layer: tf.stack([of.mean, of.variance]) for layer, of in seen.items()},)

        key = ("content", objective.identity, layers, style.digest, size)
        name = file_name(objective.network, "content", style.digest, size, layers)
        (found,) = sight.cache.get(key, compute, name)
        for layer, (mean, variance) in found.items():
            part = Moments(share, share * mean, share * (variance + tf.square(mean)))
            sums[layer] = sums[layer].join(part) if layer in sums else part
    return sums


class _Change(NamedTuple):
    """Says by what features are multiplied, and what is added: float32 [C] each."""

    gain: np.ndarray
    offset: np.ndarray
    where: np.ndarray | None  # [h, w, 1]; None: everywhere


def _change(
    objective: Objective, layer: str, features: tf.Tensor, region: Region, wanted: Moments
) -> _Change:
    """Returns what gives a photo's features [1, h, w, C] the moments of paintings in a region."""
    where = None if region.where is None else at_layer(objective, region.where, layer)
    own = moments(features, where)
    gain = tf.sqrt(tf.math.divide_no_nan(wanted.variance, own.variance))
    gain = tf.clip_by_value(gain, 1.0 / _MOST_GAIN, _MOST_GAIN)
    offset = wanted.mean - gain * own.mean
    return _Change(
        *(tf.cast(each, tf.float32).numpy().ravel() for each in (gain, offset)),
        None if where is None else where[0].numpy(),
    )


def _apply(features: np.ndarray, changes: Sequence[_Change]) -> None:
    """Changes a photo's features [h, w, C] in place."""
    masks = [change.where for change in changes if change.where is not None]
    most = np.maximum(1.0, sum(masks)) if masks else None  # where masks overlap
    # float16 ends where features of its gain may lie; bfloat16 has float32's range.
    limit = np.finfo(np.float16).max if features.dtype == np.float16 else np.inf
    for top in range(0, len(features), _STRIP):
        rows = slice(top, top + _STRIP)
        part = features[rows].astype(np.float32)
        total = part.copy()
        for gain, offset, where in changes:
            step = part * (gain - 1.0) + offset
            total += step if where is None or most is None else step * (where / most)[rows]
        features[rows] = np.clip(total, -limit, limit)
