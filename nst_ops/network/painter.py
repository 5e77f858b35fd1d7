"""Paints photos of any size with a network.

A large photo is painted in tiles. A network's normalisation looks at the whole picture, so all
tiles are normalised by the moments of a smaller version of it (Chen et al. 2022, URST), and no seam
shows: beyond `REACH` px a pixel does not depend on anything else. Whether that is done is decided
by the picture's size alone, so that the picture does not depend on the memory that there is.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from nst_ops.compiled import Compiled
from nst_ops.images.codec import Picture, shrink
from nst_ops.images.size import Size
from nst_ops.losses.tile_grid import tiles
from nst_ops.network.layers import apply, channel_moments, count_blocks, normalized
from nst_ops.network.layout import BORDER, LARGEST_WHOLE, REACH, STRIDE, TILE, is_whole, padding


class Passes(NamedTuple):
    """Holds the ways in which a network is run, whatever runs it. Images are mirrored at their
    border already, [B, H, W, 3], and styles [B, styles].

    Attributes:
      whole: (images, style) -> pictures, each normalised by its own moments.
      observe: (images, style) -> the moments that the normalisations see.
      part: (images, style, moments) -> pictures, normalised by these moments.
    """

    whole: Callable[[tf.Tensor, tf.Tensor], Any]
    observe: Callable[[tf.Tensor, tf.Tensor], Any]
    part: Callable[[tf.Tensor, tf.Tensor, Any], Any]


class Painter:
    """Paints with one network.

    Args:
      model: as `load_network` gives it.
    """

    def __init__(self, model: keras.Model):
        self.model, self._blocks = model, count_blocks(model)
        self._names = normalized(self._blocks)
        self._whole = Compiled(lambda images, style: self._apply(images, style))
        self._passes = Passes(self._whole, Compiled(self._observed), Compiled(self._apply))

    @property
    def traces(self) -> int:
        """Returns how often the network was traced, of whole pictures."""
        return self._whole.traces

    def paint(self, photos: np.ndarray, style: Sequence[Sequence[float]]) -> np.ndarray:
        """Returns the pictures of photos of one size.

        Args:
          photos: [B, H, W, 3] float32, sRGB in [0, 1].
          style: for each photo the weight of each of the network's styles, with sum 1, as
            `NetworkFacts.weights_of` gives them.

        Returns:
          [B, H, W, 3] float32 in [0, 1].
        """
        return paint(self._passes, photos, style)

    def paint_in_parts(
        self, photos: np.ndarray, style: Sequence[Sequence[float]]
    ) -> Iterator[tuple[np.ndarray, float]]:
        """Paints part by part, and yields after each the pictures, of which the rest is empty yet,
        and the share that is done, in [0, 1].
        """
        return paint_in_parts(self._passes, photos, style)

    def _apply(self, images: tf.Tensor, style: tf.Tensor, moments=None) -> tf.Tensor:
        def normalize(name: str, features: tf.Tensor) -> tf.Tensor:
            given = moments[self._names.index(name)] if moments else ()
            return self.model.get_layer(f"{name}_norm")(features, style, given)

        return apply(self.model.get_layer, self._blocks, normalize, images)

    def _observed(self, images: tf.Tensor, style: tf.Tensor) -> list[tuple[tf.Tensor, tf.Tensor]]:
        """Returns the moments that each normalisation sees, in their order."""
        found = []

        def normalize(name: str, features: tf.Tensor) -> tf.Tensor:
            found.append(tuple(channel_moments(features)))
            return self.model.get_layer(f"{name}_norm")(features, style, found[-1])

        apply(self.model.get_layer, self._blocks, normalize, images)
        return found


def paint(passes: Passes, photos: np.ndarray, style: Sequence[Sequence[float]]) -> np.ndarray:
    """Returns the pictures of photos of one size, as `Painter.paint` does."""
    *_, (pictures, _) = paint_in_parts(passes, photos, style)
    return pictures


def paint_in_parts(
    passes: Passes, photos: np.ndarray, style: Sequence[Sequence[float]]
) -> Iterator[tuple[np.ndarray, float]]:
    """Paints as `Painter.paint_in_parts` does, whatever runs the network.

    Args:
      passes: of the network.
      photos: as for `Painter.paint`.
      style: as for `Painter.paint`.
    """
    weights = tf.constant(style, tf.float32)
    size: Size = photos.shape[1:3]
    if is_whole(size):
        whole = slice(0, size[0]), slice(0, size[1])
        yield _cut(passes.whole(_mirrored(photos, *whole), weights), size), 1.0
        return
    small = np.stack([shrink(Picture(photo), LARGEST_WHOLE).pixels for photo in photos])
    whole = slice(0, small.shape[1]), slice(0, small.shape[2])
    moments = passes.observe(_mirrored(small, *whole), weights)
    pictures = np.empty_like(photos)
    parts = list(tiles(size, TILE, REACH, STRIDE))
    for number, part in enumerate(parts, start=1):
        painted = passes.part(_mirrored(photos, part.rows, part.columns), weights, moments)
        rows, columns = part.rows, part.columns
        tile = _cut(painted, (rows.stop - rows.start, columns.stop - columns.start))
        top, bottom, left, right = part.inner
        into = pictures[:, rows, columns]  # a view
        into[:, top:bottom, left:right] = tile[:, top:bottom, left:right]
        yield pictures, number / len(parts)


def _mirrored(photos: np.ndarray, rows: slice, columns: slice) -> tf.Tensor:
    """Returns a part of photos with its mirror image around it, sides multiples of `STRIDE`."""
    part = photos[:, rows, columns]
    around = [(0, 0), *map(padding, part.shape[1:3]), (0, 0)]
    return tf.constant(np.pad(part, around, "symmetric"))


def _cut(pictures: tf.Tensor | np.ndarray, size: Size) -> np.ndarray:
    """Returns pictures of this size, without the mirror image around them."""
    inner = slice(BORDER, BORDER + size[0]), slice(BORDER, BORDER + size[1])
    # A copy: TensorFlow's own memory is not ours.
    return np.array(pictures[:, inner[0], inner[1]])
