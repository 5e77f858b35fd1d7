"""Paintings as they are seen for a picture: by what, and at which sizes."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from nst_ops.images import resampling
from nst_ops.images.inputs import Style
from nst_ops.images.size import Size
from nst_ops.losses.objective import Objective
from nst_ops.losses.octaves import first_octave, style_size
from nst_ops.losses.targets.cache import TargetCache
from nst_ops.losses.tile_grid import PAINTING_TILE, side_for
from nst_ops.settings import Settings


class Sight(NamedTuple):
    """Holds by what paintings are seen, which is the same for all targets of a batch."""

    final: Size  # of the result, which `style_scales` in px refer to
    settings: Settings
    objective: Objective  # whose network sees; part of the cache's keys
    cache: TargetCache  # of what was seen before

    def paintings(
        self, blend: Sequence[Style], picture: Size
    ) -> Iterator[tuple[Style, Size, float]]:
        """Yields a blend's paintings at each of the `style_scales`: the size at which each is seen
        for a picture of this size at the present scale, and its weight.
        """
        least, first = self.objective.least_side, first_octave(self.settings.octaves)
        for style, scale in itertools.product(blend, self.settings.style_scales):
            size = style_size(style.image.shape[:2], scale, picture, self.final, first, least)
            yield style, size, style.weight * scale.weight


def resized_painting(image: np.ndarray, size: Size) -> tf.Tensor:
    """Resizes a painting, and returns it as [1, *size, 3] in [0, 1]."""
    images = tf.convert_to_tensor(image)[None]
    return tf.clip_by_value(resampling.resize(images, size), 0.0, 1.0)


def painting_tile(size: Size, objective: Objective) -> int | None:
    """Returns the side of the tiles in which a painting of this size is computed, in px; None: it
    is computed whole. It is the same whatever the picture.
    """
    return side_for(size, PAINTING_TILE) if objective.tileable else None
