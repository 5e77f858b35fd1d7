"""The octaves and sizes at which the losses look at pictures and paintings: plain arithmetic,
without TensorFlow.
"""

import math
from collections.abc import Sequence

from nst_ops.errors import InputError
from nst_ops.images.size import Size, fit
from nst_ops.settings import Settings, StyleScale
from nst_ops.vgg import geometry
from nst_ops.vgg.weights import LAYERS

# To attention a painting answers with at most so many positions of a layer; if it has more, with
# every n-th row and column. More were not seen to help, and time grows with their number.
MOST_ANSWERS = 2**16


def octave_sizes(size: Size, count: int, least: int) -> list[Size]:
    """Returns the sizes of up to `count` octaves of a picture, full size first. They end before a
    side would be under `least` px, but the first is there in any case.
    """
    sizes = [size]
    while len(sizes) < count:
        height, width = sizes[-1]
        half = ((height + 1) // 2, (width + 1) // 2)
        if min(half) < least:
            break
        sizes.append(half)
    return sizes


def octaves_in_use(size: Size, weights: Sequence[float], least: int) -> tuple[int, ...]:
    """Returns the numbers of the octaves that have a weight and are large enough for the network;
    none if the picture itself is too small.
    """
    if min(size) < least:
        return ()
    sizes = octave_sizes(size, len(weights), least)
    return tuple(octave for octave in range(len(sizes)) if weights[octave] > 0.0)


def first_octave(weights: Sequence[float]) -> int:
    """Returns the number of the finest octave that has a weight."""
    return next(octave for octave, weight in enumerate(weights) if weight > 0.0)


def style_size(
    own: Size, scale: StyleScale, picture: Size, final: Size, first: int, least: int
) -> Size:
    """Returns the size at which a painting is seen at one scale of a picture. Its aspect is kept.

    It is never larger than the painting, which enlarged would show blur, not strokes. A narrow
    painting is seen larger than asked for if it would be too small for even the first octave.

    Args:
      own: size of the painting.
      scale: the resolution that is asked for.
      picture: size of the picture at this scale.
      final: size of the result, which a `StyleScale.size` refers to.
      first: the finest octave that has a weight.
      least: shortest side in px that the network takes.

    Raises:
      InputError: the painting itself is too small for the first octave.
    """
    ratio = scale.ratio if scale.ratio is not None else (scale.size or 0) / max(final)
    size = fit(own, max(1, round(max(picture) * ratio)))
    needed = least_before_halving(least, first)
    if min(size) >= needed:
        return size
    if min(own) < needed:
        raise InputError(
            f"a painting of {own[0]}x{own[1]} px, but the layers and octaves in use need sides of "
            f"at least {needed} px; use a larger painting, or drop the deepest layer",
            code="too_small",
        )
    return fit(own, math.ceil(needed * max(own) / min(own)))


def least_side(settings: Settings) -> int:
    """Returns the shortest side in px that leaves VGG19's deepest layer in use two positions."""
    return geometry.least_side(map(geometry.vgg19_geometry, layers_in_use(settings)))


def least_before_halving(least: int, halvings: int) -> int:
    """Returns the shortest side in px that still has `least` after so many halvings, each rounded
    up.
    """
    return (least - 1) * 2**halvings + 1


def layers_in_use(settings: Settings) -> list[str]:
    """Returns the layers of all terms of the loss. A layer of two terms is listed twice."""
    return [
        *settings.content_layers,
        *settings.style_layers,
        *settings.attention_layers_in_use,
    ]


def deepest_layer(settings: Settings) -> str:
    """Returns the deepest of VGG19's layers in use; for another network, whose order is not known,
    all of them, joined by commas.
    """
    layers = layers_in_use(settings)
    known = set(layers) <= set(LAYERS)
    return max(layers, key=LAYERS.index) if known else ", ".join(dict.fromkeys(layers))
