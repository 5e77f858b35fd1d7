"""Exact tiling: loss and gradient of pictures whose activations do not fit into memory.

A Gram loss sees the whole picture, so tiles cannot be optimized one by one. Two passes solve that
(Galerne et al. 2024): the first adds up the tiles' Gram matrices, which gives the loss and its
gradient with respect to the Gram matrices; the second propagates that gradient back through each
tile. Picture, optimizer and content features are held whole, activations for one tile only.

A tile is computed with a margin as wide as the network sees and begins at a multiple of its
strides, so its inner features are exactly those of the whole picture; only they are counted, and
what flows back into the margin is added to the neighbours.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from nst_ops.images import resampling
from nst_ops.images.size import Size
from nst_ops.losses.gram import gram_sum
from nst_ops.losses.moments import Moments, moments
from nst_ops.losses.objective import Objective, extractor
from nst_ops.losses.terms import (
    Answered,
    Features,
    LossWeights,
    Targets,
    View,
    cut_target,
    style_loss,
    target_features,
    variation_sum,
    weighted_total,
)
from nst_ops.losses.tile_grid import Tile

_STRIP = 256  # rows of an octave whose gradient flows back at once


def evaluate_tiled(
    objective: Objective,
    octaves: Sequence[int],
    images: tf.Tensor,
    targets: Targets,
    weights: LossWeights,
    side: int,
) -> tuple[tf.Tensor, dict[str, tf.Tensor], np.ndarray]:
    """Returns what `objective.evaluate` returns, to float tolerance, with activations in memory for
    only one tile of `side` px.

    The gradient is a NumPy array, which can be added to in place: this is where a large picture
    takes the most memory.
    """
    levels = [images, *_coarser_octaves(objective, max(octaves) + 1)(images)]
    # By octave, since all views of an octave need one computation of the network only.
    views = {
        octave: [view for of, view in zip(octaves, targets.views, strict=True) if of == octave]
        for octave in dict.fromkeys(octaves)
    }
    positions = {octave: [view.positions for view in each] for octave, each in views.items()}
    grams = {
        octave: tiled_grams(objective, levels[octave], side, each)
        for octave, each in positions.items()
    }
    style, gram_gradients = _style_gradient(objective)(
        tuple(itertools.chain(*grams.values())),
        tuple(itertools.chain(*views.values())),
        weights.style,
    )
    gradients_left = iter(gram_gradients)
    gram_gradients_of = {
        octave: list(itertools.islice(gradients_left, len(each))) for octave, each in views.items()
    }
    goals = {"content": targets.content, "attention": targets.attention}
    shares = {
        "content": _shares(objective.content_layers, targets.content),
        "attention": _shares(objective.attention_layers, targets.attention),
    }
    gradients = [np.zeros(level.shape, np.float32) for level in levels]
    sums = {"content": 0.0, "attention": 0.0, "tv": 0.0}
    height, width = _size(images)
    per_pixel = tf.constant(1.0 / ((height - 1) * (width - 1)), tf.float32)
    for octave in sorted({0, *octaves}):
        full, level = octave == 0, levels[octave]
        regions = positions.get(octave, [])
        of_grams = _per_sum(objective, level, gram_gradients_of.get(octave, []), regions)
        for tile in objective.tiles(_size(level), side):
            part, terms = _tile_gradient(objective, full)(
                _cut(tile, level),
                tf.constant(tile.inner),
                of_grams,
                [_cut_map(objective, tile, each) for each in regions],
                {term: _cut_map(objective, tile, each) for term, each in goals.items()}
                if full
                else {},
                shares if full else {},
                weights,
                per_pixel,
            )
            gradients[octave][:, tile.rows, tile.columns] += part.numpy()
            sums = {term: value + terms[term] for term, value in sums.items()}
    for finer, coarser in reversed(list(itertools.pairwise(gradients))):
        _flow_back(objective, coarser, finer)
    total, terms = weighted_total(
        weights, style=style, **{term: tf.constant(value) for term, value in sums.items()}
    )
    # A sum, since a mask of all values would take a quarter of the gradient's memory.
    finite = np.isfinite(gradients[0].sum(axis=(1, 2, 3), dtype=np.float64))
    return tf.where(finite, total, float("nan")), terms, gradients[0]


def tiled_grams(
    objective: Objective, images: tf.Tensor, side: int, regions: Sequence[Features]
) -> list[Features]:
    """Returns the Gram matrices of the style layers in each region of images, {layer: [B, C, C]}.

    Args:
      images: [B, H, W, 3].
      side: of the tiles, in px.
      regions: {layer: [B, h, w, 1]} each, how much each position counts; empty: all alike.
    """
    sums: list[dict[str, tf.Tensor]] = [{} for _ in regions]
    for tile in objective.tiles(_size(images), side):
        parts = _tile_grams(objective)(
            _cut(tile, images),
            tf.constant(tile.inner),
            [_cut_map(objective, tile, each) for each in regions],
        )
        sums = [
            {layer: gram + before.get(layer, 0.0) for layer, gram in part.items()}
            for part, before in zip(parts, sums, strict=True)
        ]
    return _per_sum(objective, images, sums, regions)


def _per_sum(
    objective: Objective,
    images: tf.Tensor,
    matrices: Sequence[Features],
    regions: Sequence[Features],
) -> list[Features]:
    """Returns the matrices over the number of positions, unless these have weights of sum 1."""
    return [
        matrix
        if region
        else {layer: gram / _positions(objective, images, layer) for layer, gram in matrix.items()}
        for matrix, region in zip(matrices, regions, strict=True)
    ]


def tiled_features(
    objective: Objective, layers: tuple[str, ...], images: tf.Tensor, side: int | None
) -> Features:
    """Returns the features of these layers for whole images, {layer: [B, h, w, C]}.

    Args:
      side: of the tiles, in px; None: the whole image is one.
    """
    if side is None:
        return extractor(objective, layers)(images)
    whole: dict[str, np.ndarray] = {}
    for tile, features in tile_features(objective, layers, images, side):
        for layer, inner in features.items():
            stride = objective.stride(layer)
            if layer not in whole:
                height, width = (length // stride for length in _size(images))
                shape = (images.shape[0], height, width, inner.shape[-1])
                whole[layer] = np.empty(shape, inner.dtype.as_numpy_dtype)
            whole[layer][:, *tile.positions(stride)] = inner.numpy()
    return {layer: tf.constant(features) for layer, features in whole.items()}


def tiled_moments(
    objective: Objective,
    layers: tuple[str, ...],
    images: tf.Tensor,
    side: int | None,
    places: Features | None = None,
) -> dict[str, Moments]:
    """Returns the moments of these layers for whole images, without holding all their features.

    Args:
      side: of the tiles, in px; None: the whole image is one.
      places: {layer: [B, h, w, 1]}, how much each position counts; None or empty: all alike.
    """
    sums: dict[str, Moments] = {}
    for tile, features in tile_features(objective, layers, images, side):
        weights = places or {}
        if side is not None:
            weights = _cut_map(objective, tile, weights)
        for layer, part in features.items():
            found = moments(part, weights.get(layer))
            sums[layer] = sums[layer].join(found) if layer in sums else found
    return sums


def tile_features(
    objective: Objective, layers: tuple[str, ...], images: tf.Tensor, side: int | None
) -> Iterator[tuple[Tile, Features]]:
    """Yields the features of these layers tile by tile, without margins: {layer: [B, h, w, C]}.

    Args:
      side: of the tiles, in px; None: the whole image is one.
    """
    if side is None:
        height, width = _size(images)
        whole = Tile(slice(0, height), slice(0, width), (0, height, 0, width))
        yield whole, extractor(objective, layers)(images)
        return
    for tile in objective.tiles(_size(images), side):
        features = extractor(objective, layers)(_cut(tile, images))
        yield (
            tile,
            {
                layer: _inner(features[layer], tile.inner, objective.stride(layer))
                for layer in layers
            },
        )


def _cut(tile: Tile, images: tf.Tensor) -> tf.Tensor:
    return images[:, tile.rows, tile.columns]


def _size(images: tf.Tensor) -> Size:
    height, width = images.shape.as_list()[1:3]
    return height, width


def _positions(objective: Objective, images: tf.Tensor, layer: str) -> float:
    height, width = (length // objective.stride(layer) for length in _size(images))
    return float(height * width)


def _inner(features: tf.Tensor, inner: tf.Tensor | tuple, stride: int) -> tf.Tensor:
    top, bottom, left, right = (inner[side] // stride for side in range(4))
    return features[:, top:bottom, left:right]


def _cut_map(
    objective: Objective, tile: Tile, whole: Mapping[str, tf.Tensor | Answered]
) -> dict[str, tf.Tensor | Answered]:
    """Returns the part of {layer: [B, h, w, C]} that belongs to a tile."""
    return {
        layer: cut_target(values, *tile.positions(objective.stride(layer)))
        for layer, values in whole.items()
    }


def _shares(
    layers: Sequence[tuple[str, float]], targets: Mapping[str, tf.Tensor | Answered]
) -> dict[str, tf.Tensor]:
    """Returns by layer what a squared difference of 1 in a feature adds to `feature_loss`, [B]."""
    if not targets:
        return {}
    total = sum(weight for _, weight in layers)
    shares = {}
    for layer, weight in layers:
        target = targets[layer]
        norm = tf.zeros([])
        height = (target.index if isinstance(target, Answered) else target).shape[1]
        for row in range(0, height, 64):  # strips: all in float32 would be large
            part = cut_target(target, slice(row, row + 64))
            norm += tf.reduce_sum(tf.square(target_features(part)), axis=[1, 2, 3])
        shares[layer] = tf.math.divide_no_nan(weight / total, norm)
    return shares


def _tile_grams(objective: Objective) -> Callable:
    def grams(patch: tf.Tensor, inner: tf.Tensor, regions: Sequence[Features]) -> list[Features]:
        features = objective.model(patch)
        return [
            {
                layer: gram_sum(
                    _inner(features[layer], inner, objective.stride(layer)), region.get(layer)
                )
                for layer, _ in objective.style_layers
            }
            for region in regions
        ]

    return objective.compiled("tile_grams", lambda: objective.compile(grams))


def _style_gradient(objective: Objective) -> Callable:
    """Returns a function from Gram matrices to the style loss [B], and to the gradient of the
    weighted loss with respect to them.
    """

    def style_gradient(grams: tuple[Features, ...], views: tuple[View, ...], weight: tf.Tensor):
        with tf.GradientTape() as tape:
            tape.watch(grams)
            style = style_loss(grams, views, dict(objective.style_layers))
            weighted = weight * style
        return style, tape.gradient(weighted, grams)

    return objective.compiled("style_gradient", lambda: objective.compile(style_gradient))


def _tile_gradient(objective: Objective, full: bool) -> Callable:
    """Returns a function from a patch to its share of the gradient, and of all terms of the loss
    but style's. Only the picture itself (`full`) has these terms; its coarser octaves do not.
    """

    def tile_gradient(patch, inner, gram_gradients, regions, goals, shares, weights, per_pixel):
        zero = tf.zeros_like(patch[:, 0, 0, 0])
        terms = {"content": zero, "attention": zero, "tv": zero}
        with tf.GradientTape() as tape:
            tape.watch(patch)
            features = objective.model(patch)
            style = zero
            for gradients, region in zip(gram_gradients, regions, strict=True):
                for layer, gradient in gradients.items():
                    found = _inner(features[layer], inner, objective.stride(layer))
                    gram = gram_sum(found, region.get(layer))
                    style += tf.reduce_sum(gradient * gram, axis=[1, 2])
            for term, targets in goals.items():
                for layer, goal in targets.items():
                    found = _inner(features[layer], inner, objective.stride(layer))
                    distance = tf.square(tf.cast(found, tf.float32) - target_features(goal))
                    terms[term] += shares[term][layer] * tf.reduce_sum(distance, axis=[1, 2, 3])
            if full:
                # With one more row and column, if there are any, as neighbours.
                top, bottom, left, right = tf.unstack(inner, num=4)
                whole = patch[:, top : bottom + 1, left : right + 1]
                terms["tv"] = per_pixel * variation_sum(whole)
            # The style weight is in the gradients of the Gram matrices already.
            once = weights._replace(style=tf.ones_like(weights.style))
            total, _ = weighted_total(once, style=style, **terms)
            amplified = total * objective.gradient_gain
        return tape.gradient(amplified, patch) / objective.gradient_gain, terms

    return objective.compiled(("tile_gradient", full), lambda: objective.compile(tile_gradient))


def _flow_back(objective: Objective, coarser: np.ndarray, finer: np.ndarray) -> None:
    """Propagates an octave's gradient back to the next finer octave, and adds it to that one's
    gradient in place, a strip of rows at a time.
    """
    height, width = finer.shape[1:3]
    for top in range(0, coarser.shape[1], _STRIP):
        bottom = min(top + _STRIP, coarser.shape[1])
        # Row i of an octave is made of the rows 2i - 2 to 2i + 2 of the finer one. Rows of `flow`
        # beyond the strip are zero: they count with their own strips.
        rows = slice(max(0, 2 * top - 2), min(height, 2 * bottom + 1))
        above = top - rows.start // 2
        below = (rows.stop - rows.start + 1) // 2 - above - (bottom - top)
        flow = tf.pad(coarser[:, top:bottom], [[0, 0], [above, below], [0, 0], [0, 0]])
        strip = tf.zeros([len(finer), rows.stop - rows.start, width, finer.shape[-1]])
        finer[:, rows] += _halving_gradient(objective)(strip, flow).numpy()


def _coarser_octaves(objective: Objective, count: int) -> Callable:
    """Returns a function from images to their octaves 1 to `count` - 1."""

    def coarser_octaves(images: tf.Tensor) -> list[tf.Tensor]:
        return resampling.octaves(images, count)[1:]

    key = "coarser_octaves", count
    return objective.compiled(key, lambda: objective.compile(coarser_octaves))


def _halving_gradient(objective: Objective) -> Callable:
    """Returns a function that propagates a gradient from the next octave back to images. Halving is
    linear, so the values of the images do not matter.
    """

    def halving_gradient(images: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(images)
            _, halved = resampling.octaves(images, 2)
        return tape.gradient(halved, images, output_gradients=gradient)

    return objective.compiled("halving_gradient", lambda: objective.compile(halving_gradient))
