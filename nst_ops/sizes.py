"""Which sizes a picture passes through: plain arithmetic, shared by planners that must not start
TensorFlow.

A size is `(height, width)` in pixels; a scale is the long side in pixels.
"""

from typing import NamedTuple

from nst_ops.errors import InputError
from nst_ops.settings import Settings
from nst_ops.weights import LAYERS, stride

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
      InputError: a side is too short for the deepest layer in use.
    """
    result = fit(size, settings.final_size, enlarge=settings.enlarge)
    least = least_side(settings)
    if min(result) < least:
        raise InputError(
            f"{size[0]}x{size[1]} px gives a picture of {result[0]}x{result[1]} px, but "
            f"{_deepest(settings)} needs "
            f"sides of at least {least} px; use a larger image, `enlarge: true`, or drop that layer"
        )
    return result


def schedule(size: Size, settings: Settings) -> list[ScalePlan]:
    """The scales, coarse to fine, of a picture whose result has `size`; the last one is `size`
    itself.

    Listed scales larger than the picture are left out (a photo is not enlarged behind the user's
    back), but the picture always gets the last scale's steps at its own size. Scales whose short
    side would be too short for the deepest layer are left out too.
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
    least = least_side(settings)
    return [plan for plan in plans[:-1] if min(plan.size) >= least] + plans[-1:]


def pixel_steps(size: Size, settings: Settings) -> int:
    """What a picture costs at most: pixels times steps, over all scales."""
    return sum(plan.size[0] * plan.size[1] * plan.steps for plan in schedule(size, settings))


def octave_sizes(size: Size, count: int, least: int) -> list[Size]:
    """Sizes of up to `count` octaves of a picture, full size first, as long as sides have at least
    `least` px.
    """
    sizes = [size]
    while len(sizes) < count:
        height, width = sizes[-1]
        half = ((height + 1) // 2, (width + 1) // 2)
        if min(half) < least:
            break
        sizes.append(half)
    return sizes


def least_side(settings: Settings) -> int:
    """Shortest side in px that leaves the deepest layer in use two positions, the least that has a
    texture.
    """
    return 2 * stride(_deepest(settings))


def _deepest(settings: Settings) -> str:
    return max([*settings.content_layers, *settings.style_layers], key=LAYERS.index)
