"""Which sizes a picture passes through: plain arithmetic, shared by planners that must not start
TensorFlow.

A size is `(height, width)` in pixels; a scale is the long side in pixels.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from nst_ops.errors import InputError
from nst_ops.settings import Settings, StyleScale
from nst_ops.vgg import geometry
from nst_ops.vgg.weights import LAYERS

Size = tuple[int, int]

# px; a scale at 64 costs structure that does not come back (cin .59 for .52 on average).
_COARSEST = 128
# A scale takes this many times the steps of the next finer one. Measured: 1 gives the most for the
# time in figures, 2 the broadest strokes; from 3 on both are lost.
_COARSE_STEPS = 1.5


class ScalePlan(NamedTuple):
    """One scale of a picture: its size in px, its budget of steps, and the factor on the style
    weight.
    """

    size: Size
    steps: int
    weight: float


def fit(size: Size, long_side: int, *, enlarge: bool = False) -> Size:
    """The size with that long side and the same aspect; never larger than `size` unless
    `enlarge`.
    """
    height, width = size
    longest = max(height, width)
    if longest <= long_side and not enlarge:
        return size
    return (
        max(1, round(height * long_side / longest)),
        max(1, round(width * long_side / longest)),
    )


def output_size(size: Size, settings: Settings) -> Size:
    """The result's size for a photo of `size`.

    Raises:
      InputError: a side is too short for VGG19's deepest layer in use, or for all octaves.
    """
    result = fit(size, settings.final_size, enlarge=settings.enlarge)
    check_side(result, settings, f"{size[0]}x{size[1]} px gives a picture of ")
    return result


def check_side(size: Size, settings: Settings, what: str, least: int | None = None) -> None:
    """Whether a picture of this size is large enough for the network and some octave.

    Args:
      what: the message's beginning.
      least: shortest side in px that the network takes; None: VGG19, as far as it is in use.

    Raises:
      InputError: it is not.
    """
    least = least_side(settings) if least is None else least
    if octaves_in_use(size, settings.octaves, least):
        return
    first = first_octave(settings.octaves)
    needed = _least_before_halving(least, first)
    why = f"{_deepest(settings)} with `octaves: {settings.octaves}`" if first else ""
    raise InputError(
        f"{what}{size[0]}x{size[1]} px, but {why or _deepest(settings)} needs sides of at least "
        f"{needed} px; use a larger image, `enlarge: true`, or drop that layer"
        + (" or those octaves" if first else "")
    )


def schedule(size: Size, settings: Settings, least: int | None = None) -> list[ScalePlan]:
    """The scales, coarse to fine, of a picture whose result has `size`; the last one is `size`
    itself.

    Listed scales larger than the picture are left out (a photo is not enlarged behind the user's
    back), but the picture always gets the last scale's steps at its own size. Scales at which no
    octave in use is large enough for the network are left out too.

    Args:
      least: shortest side in px that the network takes; None: VGG19, as far as it is in use.
    """
    longest = max(size)
    if settings.scales == "auto":
        sides = [longest]
        while sides[0] // 2 >= _COARSEST:
            sides.insert(0, round(sides[0] / 2))
        steps = [
            round(settings.steps * _COARSE_STEPS**halvings)
            for halvings in reversed(range(len(sides)))
        ]
        wanted = [(side, count, 1.0) for side, count in zip(sides, steps, strict=True)]
    else:
        wanted = [(s.size, s.steps, s.weight) for s in settings.scales[:-1] if s.size < longest]
        last = settings.scales[-1]
        wanted.append((longest, last.steps, last.weight))
    plans = [ScalePlan(fit(size, side), count, weight) for side, count, weight in wanted]
    least = least_side(settings) if least is None else least
    coarser = [p for p in plans[:-1] if octaves_in_use(p.size, settings.octaves, least)]
    return coarser + plans[-1:]


def pixel_steps(size: Size, settings: Settings) -> int:
    """What a picture costs at most: pixels times steps, over all scales."""
    return sum(plan.size[0] * plan.size[1] * plan.steps for plan in schedule(size, settings))


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
    needed = _least_before_halving(least, first)
    if min(size) >= needed:
        return size
    if min(own) < needed:
        raise InputError(
            f"a painting of {own[0]}x{own[1]} px, but the layers and octaves in use need sides of "
            f"at least {needed} px; use a larger painting, or drop the deepest layer"
        )
    return fit(own, math.ceil(needed * max(own) / min(own)))


def largest_style_side(own: Size, final: Size, settings: Settings) -> int:
    """Long side in px of the largest size at which VGG19 sees a painting for this picture.

    Raises:
      InputError: the painting is too small.
    """
    first, least = first_octave(settings.octaves), least_side(settings)
    plans = schedule(final, settings)
    return max(
        max(style_size(own, scale, plan.size, final, first, least))
        for scale in settings.style_scales
        for plan in (plans[0], plans[-1])
    )


def least_side(settings: Settings) -> int:
    """Shortest side in px that leaves VGG19's deepest layer in use two positions."""
    return geometry.least_side(map(geometry.vgg19_geometry, _layers(settings)))


def _least_before_halving(least: int, halvings: int) -> int:
    """Shortest side in px that still has `least` when it was halved, and rounded up, so often."""
    return (least - 1) * 2**halvings + 1


def _layers(settings: Settings) -> list[str]:
    return [*settings.content_layers, *settings.style_layers]


def _deepest(settings: Settings) -> str:
    """Of VGG19's layers in use; of another network's, all."""
    layers = _layers(settings)
    known = set(layers) <= set(LAYERS)
    return max(layers, key=LAYERS.index) if known else ", ".join(dict.fromkeys(layers))
