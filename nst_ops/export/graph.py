"""A network as plain functions of one image, which converters can take.

The image comes mirrored at its border already, sides multiples of `STRIDE`: whoever uses the file
does what `network/painter.py` does around the network, since phones are slow at it inside.
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from nst_ops.network.layers import apply, channel_moments, count_blocks, normalized
from nst_ops.network.layout import BORDER, LARGEST_WHOLE, REACH, STRIDE, TILE

IMAGE, STYLE, PICTURE = "image", "style", "picture"
GIVEN, USED, MOMENTS = "given_moments", "given_used", "moments"


def whole_picture(model: keras.Model) -> Any:
    """Returns the network as a function that paints a picture in one part.

    Returns:
      A `tf.function` from an image [1, H, W, 3], sRGB in [0, 1], sides multiples of 4, and weights
      of styles [1, styles], with sum 1; to {"picture": [1, H, W, 3]} in (0, 1).
    """

    @tf.function(input_signature=_inputs(model))
    def paint(image: tf.Tensor, style: tf.Tensor) -> dict[str, tf.Tensor]:
        return {PICTURE: model({IMAGE: image, STYLE: style})}

    return paint


def tile_by_tile(model: keras.Model) -> Any:
    """Returns the network as a function that can also paint a tile of a larger picture.

    Returns:
      A `tf.function` as that of `whole_picture`, with two inputs more: moments [2, channels] of all
      normalisations, in their order, means first and variances second; and a scalar, 1 to normalise
      by them, 0 to normalise by the image's own. Its second result, "moments", are the image's own.
    """
    blocks = count_blocks(model)
    names, widths = normalized(blocks), _widths(model)
    inputs = [
        *_inputs(model),
        tf.TensorSpec([2, sum(widths)], name=GIVEN),
        tf.TensorSpec([], name=USED),
    ]

    @tf.function(input_signature=inputs)
    def paint(
        image: tf.Tensor, style: tf.Tensor, given_moments: tf.Tensor, given_used: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        given = dict(zip(names, tf.split(given_moments, widths, axis=1), strict=True))
        seen = {}

        def normalize(name: str, features: tf.Tensor) -> tf.Tensor:
            own = channel_moments(features)
            seen[name] = tf.stack([moment[0, 0, 0] for moment in own])
            pairs = zip(own, tf.unstack(given[name]), strict=True)
            moments = [mine + given_used * (theirs - mine) for mine, theirs in pairs]
            return model.get_layer(f"{name}_norm")(features, style, moments)

        picture = apply(model.get_layer, blocks, normalize, image)
        return {PICTURE: picture, MOMENTS: tf.concat([seen[name] for name in names], axis=1)}

    return paint


def geometry(model: keras.Model) -> dict[str, int]:
    """Returns the numbers that a program needs which does around the network what `painter` does.

    `border` px of mirror image at each side, then more at the right and at the bottom until sides
    are `multiple_of`. Pictures with a side above `largest_whole` px are painted in tiles of `tile`
    px that see `reach` px more at each side, normalised by the moments, of `channels` channels, of
    a version of the picture whose long side is `largest_whole`.
    """
    return {
        "border": BORDER,
        "multiple_of": STRIDE,
        "largest_whole": LARGEST_WHOLE,
        "tile": TILE,
        "reach": REACH,
        "channels": sum(_widths(model)),
    }


def _widths(model: keras.Model) -> list[int]:
    """Returns how many channels each normalisation has, in their order."""
    names = normalized(count_blocks(model))
    return [model.get_layer(f"{name}_norm").gamma.shape[-1] for name in names]


def _inputs(model: keras.Model) -> Sequence[tf.TensorSpec]:
    styles = model.input[STYLE].shape[-1]
    return (
        tf.TensorSpec([1, None, None, 3], name=IMAGE),
        tf.TensorSpec([1, styles], name=STYLE),
    )
