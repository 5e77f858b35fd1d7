"""How a picture is cut into tiles: plain arithmetic, shared by planners that must not start
TensorFlow.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from nst_ops.sizes import Size
from nst_ops.weights import LAYERS, stride

STRIDE = 16  # of block5: tiles begin at its multiples
_MARGIN = 80  # px; block5_conv1 sees 78 px to each side


class Tile(NamedTuple):
    """A part of an image: where its patch is cut, and which part of the patch counts."""

    rows: slice  # of the image, margins included
    columns: slice
    inner: tuple[int, int, int, int]  # top, bottom, left, right in the patch, px

    def features_of(self, layer: str) -> tuple[slice, slice]:
        """Where the inner part lies in a whole feature map of the layer."""
        step = stride(layer)
        top, bottom, left, right = self.inner
        y, x = self.rows.start, self.columns.start
        return slice((y + top) // step, (y + bottom) // step), slice(
            (x + left) // step, (x + right) // step
        )


def margin(layers: Iterable[str]) -> int:
    """Pixels that the deepest of the layers sees to each side, or a few more."""
    deepest = max(map(LAYERS.index, layers))
    return _MARGIN + STRIDE * max(0, deepest - LAYERS.index("block5_conv1"))


def tiles(size: Size, side: int, margin: int) -> Iterator[Tile]:
    """Cuts an image into tiles of at most `side` px, a multiple of 16, margins not counted."""
    if side < STRIDE or side % STRIDE:
        raise ValueError(f"tile side {side} must be a multiple of {STRIDE}")
    for top, bottom in _spans(size[0], side):
        for left, right in _spans(size[1], side):
            y, x = max(0, top - margin), max(0, left - margin)
            yield Tile(
                slice(y, min(size[0], bottom + margin)),
                slice(x, min(size[1], right + margin)),
                (top - y, bottom - y, left - x, right - x),
            )


def side_for(size: Size, tile: int | None) -> int | None:
    """The tile's side; None for an image that is no larger, which is computed whole."""
    return tile if tile is not None and max(size) > tile else None


def largest_patch(size: Size, side: int, margin: int) -> int:
    """Pixels of the largest tile, margins included."""
    patches = (
        (t.rows.stop - t.rows.start) * (t.columns.stop - t.columns.start)
        for t in tiles(size, side, margin)
    )
    return max(patches)


def _spans(length: int, side: int) -> list[tuple[int, int]]:
    """As few spans of at most `side` as there can be, about equally long."""
    count = -(-length // side)
    step = -(-length // (count * STRIDE)) * STRIDE
    starts = range(0, length, step)
    return list(zip(starts, [*starts[1:], length], strict=True))
