"""The geometry of a painting network: plain arithmetic, also for planners that must not start
TensorFlow.
"""

import math

from nst_ops.images.size import Size
from nst_ops.losses.tile_grid import largest_patch

STRIDE = 4  # px: both sides of what the network is given must be multiples of it
MOST_BLOCKS = 7  # residual blocks
# px that the value of a pixel depends on at each side, but for the moments of normalisation: 8 for
# each residual block, and what is before and behind, rounded up to a multiple of `STRIDE`.
REACH = 80
BORDER = 16  # px of mirror image at each side of a picture, so that the zeros beyond do not show
LARGEST_WHOLE = 1024  # px, of the long side: larger pictures are normalised by a version so small
TILE = 768  # px, of a side, margins not counted


def is_whole(size: Size) -> bool:
    """Tells whether a picture is painted in one part."""
    return max(size) <= LARGEST_WHOLE


def padding(length: int) -> tuple[int, int]:
    """Returns how many px of mirror image a side of this length gets at its two ends."""
    return BORDER, BORDER + -length % STRIDE


def largest_part(size: Size) -> int:
    """Returns how many px of a picture are painted at once, their mirror image included."""
    if is_whole(size):
        return math.prod(length + sum(padding(length)) for length in size)
    return max(
        LARGEST_WHOLE * min(size) * LARGEST_WHOLE // max(size), largest_patch(size, TILE, REACH)
    )
