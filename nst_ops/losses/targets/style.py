"""The style's targets: Gram matrices of paintings, by region and octave."""

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from nst_ops.images import resampling
from nst_ops.images.inputs import Style
from nst_ops.images.size import Size
from nst_ops.losses.gram import gram_matrix
from nst_ops.losses.objective import Objective, extractor
from nst_ops.losses.octaves import octaves_in_use
from nst_ops.losses.regions import OWN_MASK, Region, position_weights, resized
from nst_ops.losses.targets.cache import file_name
from nst_ops.losses.targets.paintings import Sight, painting_tile, resized_painting
from nst_ops.losses.terms import View
from nst_ops.losses.tiled import tiled_grams

Grams = dict[str, tf.Tensor]  # {layer: [1, C, C]}


class StyleTarget(NamedTuple):
    """Holds the target of one picture at one octave: mean Gram matrices, and the octave's weight,
    which is 0 if no painting is large enough for it.
    """

    grams: Grams
    weight: float


def style_views(
    regions: Sequence[Sequence[Region]],
    picture: Size,
    sight: Sight,
) -> tuple[tuple[int, ...], tuple[View, ...]]:
    """Returns what the style of a batch is compared in: the number of the octave of each view, and
    the views.

    Args:
      regions: of each picture.
      picture: size of the pictures at this scale.
      sight: by what paintings are seen.

    Raises:
      InputError: a painting is too small for the network, or a region is not seen at a layer.
    """
    objective = sight.objective
    octaves = octaves_in_use(picture, sight.settings.octaves, objective.least_side)
    layers = dict(objective.style_layers)
    numbers, views = [], []
    for each in itertools.zip_longest(*regions):  # the first regions of all pictures, the second...
        found = [
            style_targets(region.paintings, picture, sight) if region else None for region in each
        ]
        blank = next(targets for targets in found if targets)
        positions: dict[int, dict[str, tf.Tensor]] = {}
        if any(region is None or region.where is not None for region in each):
            places = tf.concat([_place(region, picture) for region in each], axis=0)
            names = [region.name if region else "" for region in each]
            positions = position_weights(objective, layers, places, octaves, names)
        for index, octave in enumerate(octaves):
            weights = [
                region.share * targets[index].weight / sum(target.weight for target in targets)
                if region and targets
                else 0.0
                for region, targets in zip(each, found, strict=True)
            ]
            if any(weights):
                grams = [(targets or blank)[index].grams for targets in found]
                merged = {k: tf.concat([gram[k] for gram in grams], axis=0) for k in grams[0]}
                numbers.append(octave)
                views.append(View(merged, tf.constant(weights), positions.get(octave, {})))
    return tuple(numbers), tuple(views)


def _place(region: Region | None, picture: Size) -> tf.Tensor:
    """Returns where a region is, [1, H, W, 1]; black for a picture that has none."""
    if region is None:
        return tf.zeros([1, *picture, 1])
    return tf.ones([1, *picture, 1]) if region.where is None else region.where


def style_targets(
    styles: Sequence[Style],
    picture: Size,
    sight: Sight,
) -> tuple[StyleTarget, ...]:
    """Returns the mean Gram matrices of a blend of paintings at several resolutions, for each
    octave of the picture.

    A Gram loss is quadratic, so the weighted sum of losses against several targets is the loss
    against their weighted mean plus a constant, which is left out. At an octave, only paintings
    whose own octave is large enough for the network count.

    Args:
      styles: the blend.
      picture: size of the picture at this scale.
      sight: by what paintings are seen.

    Returns:
      A target for each of `octaves_in_use` at this size, finest first.

    Raises:
      InputError: a painting is too small for the network.
    """
    objective, settings = sight.objective, sight.settings
    least = objective.least_side
    octaves = octaves_in_use(picture, settings.octaves, least)
    sums: dict[int, Grams] = {octave: {} for octave in octaves}
    totals = dict.fromkeys(octaves, 0.0)
    for style, size, share in sight.paintings(styles, picture):
        own = octaves_in_use(size, settings.octaves[: max(octaves) + 1], least)
        compute = functools.partial(_grams, style, size, own, objective)
        key = (objective.identity, style.digest, size, own)
        layers = sorted(layer for layer, _ in objective.style_layers)
        name = file_name(objective.network, style.digest, size, list(own), layers)
        for octave, grams in zip(own, sight.cache.get(key, compute, name), strict=True):
            totals[octave] += share
            for layer, gram in grams.items():
                sums[octave][layer] = sums[octave].get(layer, 0.0) + share * gram
    # Octaves for which no painting is large enough get zeros, in the shapes of the first octave,
    # which every painting has.
    blank = {layer: tf.zeros_like(gram) for layer, gram in sums[octaves[0]].items()}
    return tuple(
        StyleTarget(
            {layer: gram / totals[octave] for layer, gram in sums[octave].items()} or blank,
            settings.octaves[octave] if totals[octave] else 0.0,
        )
        for octave in octaves
    )


def _grams(
    style: Style, size: Size, octaves: Sequence[int], objective: Objective
) -> tuple[Grams, ...]:
    """Returns the Gram matrices of a painting that is resized to `size`, for each octave."""
    levels = resampling.octaves(resized_painting(style.image, size), max(octaves) + 1)
    positions: dict[int, dict[str, tf.Tensor]] = {}
    if style.painting_mask is not None:
        mask = resized(style.painting_mask, size)
        layers = dict(objective.style_layers)
        positions = position_weights(objective, layers, mask, octaves, [OWN_MASK])
    return tuple(
        _level_grams(objective, levels[octave], positions.get(octave, {})) for octave in octaves
    )


def _level_grams(objective: Objective, images: tf.Tensor, positions: Grams) -> Grams:
    height, width = images.shape.as_list()[1:3]
    side = painting_tile((height, width), objective)
    if side is not None:
        return dict(tiled_grams(objective, images, side, [positions])[0])
    layers = tuple(layer for layer, _ in objective.style_layers)
    features = extractor(objective, layers)(images)
    return {layer: gram_matrix(features[layer], positions.get(layer)) for layer in layers}
