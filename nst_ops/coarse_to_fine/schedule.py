"""The schedule of sizes that a picture passes through: plain arithmetic, also for planners that
must not start TensorFlow.

A size is `(height, width)` in pixels; a scale is the long side in pixels.
"""

from typing import NamedTuple

from nst_ops.errors import InputError
from nst_ops.images.size import Size, fit
from nst_ops.losses.octaves import (
    deepest_layer,
    first_octave,
    least_before_halving,
    least_side,
    octaves_in_use,
    style_size,
)
from nst_ops.settings import Settings

# px; a scale at 64 loses structure for good (cin was .59 with it, .52 without, on average).
_COARSEST = 128
# A scale takes this many times the steps of the next finer one. Measured: 1 gives the most for the
# time in figures, 2 the broadest strokes; from 3 on both are lost.
_COARSE_STEPS = 1.5


class ScalePlan(NamedTuple):
    """Describes one scale of a picture: its size in px, its budget of steps, and the factor by
    which it multiplies the style weight.
    """

    size: Size
    steps: int
    weight: float


def output_size(size: Size, settings: Settings) -> Size:
    """Returns the size of the result for a photo of `size`.

    Raises:
      InputError: a side is too short for VGG19's deepest layer in use, or for all octaves.
    """
    result = fit(size, settings.final_size, enlarge=settings.enlarge)
    check_side(result, settings, f"{size[0]}x{size[1]} px gives a picture of ")
    return result


def check_side(size: Size, settings: Settings, what: str, least: int | None = None) -> None:
    """Checks that a picture of this size is large enough for the network at some octave.

    Args:
      what: the beginning of the error's message.
      least: shortest side in px that the network takes; None: that of VGG19's layers in use.

    Raises:
      InputError: it is too small.
    """
    least = least_side(settings) if least is None else least
    if octaves_in_use(size, settings.octaves, least):
        return
    first = first_octave(settings.octaves)
    needed = least_before_halving(least, first)
    why = f"{deepest_layer(settings)} with `octaves: {settings.octaves}`" if first else ""
    raise InputError(
        f"{what}{size[0]}x{size[1]} px, but {why or deepest_layer(settings)} needs sides of at "
        f"least {needed} px; use a larger image, `enlarge: true`, or drop that layer"
        + (" or those octaves" if first else ""),
        code="too_small",
    )


def schedule(size: Size, settings: Settings, least: int | None = None) -> list[ScalePlan]:
    """Returns the scales, coarse to fine, of a picture whose result has `size`; the last one has
    that size.

    Listed scales larger than the picture are left out (a photo is not enlarged behind the user's
    back), but the picture always gets the last scale's steps at its own size. Scales at which no
    octave in use is large enough for the network are left out too.

    Args:
      least: shortest side in px that the network takes; None: that of VGG19's layers in use.
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
    """Returns what a picture costs at most: the sum of pixels times steps over all scales."""
    return sum(plan.size[0] * plan.size[1] * plan.steps for plan in schedule(size, settings))


def largest_style_side(own: Size, final: Size, settings: Settings) -> int:
    """Returns the long side in px of the largest size at which VGG19 sees a painting for this
    picture.

    Args:
      own: size of the painting.
      final: size of the result.

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
