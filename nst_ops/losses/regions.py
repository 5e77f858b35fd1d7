"""Regions: where in a picture the strokes of each painting go, and from where they come.

Masks say so. A mask is taken down to each layer's size, and every term of the loss but smoothness
looks at each region by itself (for Gram matrices: guided ones, Gatys et al. 2017). Edges may be
soft: a position counts in a region as much as the mask is white there.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from nst_ops.errors import InputError
from nst_ops.images import resampling
from nst_ops.images.inputs import Style
from nst_ops.images.size import Size
from nst_ops.losses.objective import Objective

_BLACK = 1 / 255  # a mask that is nowhere brighter says nothing
OWN_MASK = "a painting's own mask"  # its name in errors


class Region(NamedTuple):
    """Holds the paintings whose strokes go to the same part of one picture."""

    paintings: list[Style]
    where: tf.Tensor | None  # [1, H, W, 1] in [0, 1] at the picture's size; None: everywhere
    share: float  # of the picture's style, by area and by the paintings' weights
    name: str  # for errors: whose mask it is


def regions_of(blend: Sequence[Style], keep: np.ndarray | None, size: Size) -> list[Region]:
    """Returns the regions of one picture.

    Paintings with the same mask share a region, in which they are blended. Those without one get
    the rest: what the masks of the others, and `keep`, leave.

    Args:
      blend: the paintings.
      keep: where the photo stays as it is, [h, w] in [0, 1]; None: nowhere.
      size: of the picture at this scale, in px.

    Returns:
      The regions; their shares add up to the share of the picture that has a painting.

    Raises:
      InputError: a region is empty.
    """
    groups: dict[str, list[Style]] = {}
    for style in blend:
        groups.setdefault(style.photo_digest, []).append(style)
    if keep is None and list(groups) == [""]:
        return [Region(groups[""], None, 1.0, "")]
    free = tf.ones([1, *size, 1]) if keep is None else 1.0 - resized(keep, size)
    masks = {
        digest: resized(styles[0].photo_mask, size)
        for digest, styles in groups.items()
        if styles[0].photo_mask is not None
    }
    rest = free
    for mask in masks.values():
        rest = tf.minimum(rest, 1.0 - mask)
    regions = []
    for digest, styles in groups.items():
        number = 1 + next(n for n, style in enumerate(blend) if style is styles[0])
        name = f"the photo mask of painting {number}" if digest else f"painting {number}, with none"
        where = tf.minimum(free, masks[digest]) if digest else rest
        if float(tf.reduce_max(where)) < _BLACK:
            raise InputError(
                f"{name}: there is no place for its strokes, as its mask is black or `keep` takes "
                "it all; make it white where they are to go"
                if digest
                else f"{name}, gets what the other masks leave, but they take all of the photo; "
                "leave some of it black, or give this painting a mask of its own"
                if masks
                else "keep takes all of the photo; leave some of it black, where strokes are to go"
            )
        weight = sum(style.weight for style in styles)
        regions.append(Region(styles, where, float(tf.reduce_mean(where)) * weight, name))
    covered = float(tf.reduce_mean(coverage(regions)))
    total = sum(region.share for region in regions)
    return [region._replace(share=covered * region.share / total) for region in regions]


def coverage(regions: Iterable[Region]) -> tf.Tensor:
    """Returns how much of each place of a picture has any painting, [1, H, W, 1] in [0, 1]; a
    scalar 1 where there are no masks.
    """
    places = [region.where for region in regions if region.where is not None]
    return tf.minimum(1.0, tf.add_n(places)) if places else tf.constant(1.0)


def resized(mask: np.ndarray, size: Size) -> tf.Tensor:
    """Returns a mask [h, w] in another size, as [1, H, W, 1] in [0, 1]."""
    images = tf.constant(mask)[None, :, :, None]
    return tf.clip_by_value(resampling.resize(images, size), 0.0, 1.0)


def at_layer(objective: Objective, mask: tf.Tensor, layer: str) -> tf.Tensor:
    """Returns a mask [B, H, W, 1] at the positions of a layer: its mean over each one's cell, as
    [B, h, w, 1].
    """
    height, width = objective.positions((mask.shape[1], mask.shape[2]), layer)
    stride = objective.stride(layer)
    cells = mask[:, : height * stride, : width * stride]
    return tf.image.resize(cells, (height, width), method="area")


def position_weights(
    objective: Objective,
    layers: Collection[str],
    mask: tf.Tensor,
    octaves: Sequence[int],
    names: Sequence[str],
) -> dict[int, dict[str, tf.Tensor]]:
    """Returns how much each position of some layers counts in a region.

    Args:
      mask: [B, H, W, 1] in [0, 1]; black for images that have no such region.
      octaves: the numbers of the octaves that are wanted.
      names: of the region in each image, for errors; "" for those that have none.

    Returns:
      {octave: {layer: [B, h, w, 1]}}, each of sum 1 per image, or of 0 if the mask is black.

    Raises:
      InputError: a region is not seen at a layer.
    """
    levels = resampling.octaves(mask, max(octaves) + 1)
    found: dict[int, dict[str, tf.Tensor]] = {}
    for octave in octaves:
        found[octave] = {}
        for layer in layers:
            cells = at_layer(objective, levels[octave], layer)
            sums = tf.reduce_sum(cells, axis=[1, 2, 3], keepdims=True)
            for name, total in zip(names, sums.numpy().ravel(), strict=True):
                if name and total <= 0.0:
                    height, width = mask.shape[1:3]
                    raise InputError(
                        f"{name} is empty at {layer}, octave {octave}, of a picture of "
                        f"{height}x{width} px: too small or too near the border; make its white "
                        "area larger, use fewer octaves, or drop that layer"
                    )
            found[octave][layer] = tf.math.divide_no_nan(cells, sums)
    return found
