"""At which octaves and sizes the losses look at pictures and paintings: plain arithmetic, without
TensorFlow."""

import math
from collections.abc import Sequence

from nst_ops.errors import InputError
from nst_ops.images.size import Size, fit
from nst_ops.settings import Settings, StyleScale
from nst_ops.vgg import geometry
from nst_ops.vgg.weights import LAYERS


def octave_sizes(size: Size, count: int, least: int) -> list[Size]:
    """Sizes of up to `count` octaves of a picture, full size first, as long as sides have at least
    `least` px; the first is there in any case.
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
    """Which octaves count and are large enough; none, if the picture itself is not."""
    if min(size) < least:
        return ()
    sizes = octave_sizes(size, len(weights), least)
    return tuple(octave for octave in range(len(sizes)) if weights[octave] > 0.0)


def first_octave(weights: Sequence[float]) -> int:
    """The finest octave that counts."""
    return next(octave for octave, weight in enumerate(weights) if weight > 0.0)


def style_size(
    own: Size, scale: StyleScale, picture: Size, final: Size, first: int, least: int
) -> Size:
    """The size at which a painting is seen at one scale of a picture. Its aspect is kept.

    Never larger than the painting: beyond its own pixels it has no strokes, only blur. A narrow
    painting is seen larger than asked for where else not even the first octave would fit.

    Args:
      own: the painting's.
      picture: the picture's at this scale.
      final: the picture's in the end, to which a `StyleScale.size` refers.
      first: the finest octave that counts.
      least: shortest side in px that the network takes.

    Raises:
      InputError: the painting is too small for that.
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
    """Shortest side in px that leaves VGG19's deepest layer in use two positions."""
    return geometry.least_side(map(geometry.vgg19_geometry, layers_in_use(settings)))


def least_before_halving(least: int, halvings: int) -> int:
    """Shortest side in px that still has `least` when it was halved, and rounded up, so often."""
    return (least - 1) * 2**halvings + 1


def layers_in_use(settings: Settings) -> list[str]:
    """Of all terms of the loss; some may stand twice."""
    return [
        *settings.content_layers,
        *settings.style_layers,
        *settings.attention_layers_in_use,
    ]


def deepest_layer(settings: Settings) -> str:
    """Of VGG19's layers in use; of another network's, all."""
    layers = layers_in_use(settings)
    known = set(layers) <= set(LAYERS)
    return max(layers, key=LAYERS.index) if known else ", ".join(dict.fromkeys(layers))
