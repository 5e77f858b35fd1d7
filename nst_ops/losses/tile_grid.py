"""How a picture is cut into tiles: plain arithmetic, also for planners that must not start
TensorFlow.
"""

from collections.abc import Iterator
from typing import NamedTuple

from nst_ops.images.size import Size

# px. A larger painting is computed in tiles of this side, however much memory there is: how it is
# cut changes the last digits, and a picture must not depend on which run filled the cache.
PAINTING_TILE = 512


class Tile(NamedTuple):
    """Describes a part of an image: where its patch is cut, and which part of the patch counts."""

    rows: slice  # of the image, margins included
    columns: slice
    inner: tuple[int, int, int, int]  # top, bottom, left, right in the patch, px

    def positions(self, stride: int) -> tuple[slice, slice]:
        """Returns where the inner part lies in the feature map of the whole image, which has a
        position for every `stride` px.
        """
        top, bottom, left, right = self.inner
        y, x = self.rows.start, self.columns.start
        return slice((y + top) // stride, (y + bottom) // stride), slice(
            (x + left) // stride, (x + right) // stride
        )


def tiles(size: Size, side: int, margin: int, alignment: int = 16) -> Iterator[Tile]:
    """Cuts an image into tiles of at most `side` px, margins not counted.

    Args:
      size: of the image.
      side: in px, a multiple of `alignment`.
      margin: px added around each tile, a multiple of `alignment`.
      alignment: tiles begin at multiples of this many px.
    """
    if side < alignment or side % alignment:
        raise ValueError(f"tile side {side} must be a multiple of {alignment}")
    for top, bottom in _spans(size[0], side, alignment):
        for left, right in _spans(size[1], side, alignment):
            y, x = max(0, top - margin), max(0, left - margin)
            yield Tile(
                slice(y, min(size[0], bottom + margin)),
                slice(x, min(size[1], right + margin)),
                (top - y, bottom - y, left - x, right - x),
            )


def side_for(size: Size, tile: int | None) -> int | None:
    """Returns the side of tiles; None for an image that is no larger, which is computed whole."""
    return tile if tile is not None and max(size) > tile else None


def largest_patch(size: Size, side: int, margin: int) -> int:
    """Returns how many px the largest tile has, margins included."""
    patches = (
        (t.rows.stop - t.rows.start) * (t.columns.stop - t.columns.start)
        for t in tiles(size, side, margin)
    )
    return max(patches)


def _spans(length: int, side: int, alignment: int) -> list[tuple[int, int]]:
    """Cuts a length into as few spans of at most `side` as possible, about equally long."""
    count = -(-length // side)
    step = -(-length // (count * alignment)) * alignment
    starts = range(0, length, step)
    return list(zip(starts, [*starts[1:], length], strict=True))
