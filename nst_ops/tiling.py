"""Exact tiling: loss and gradient of pictures whose activations do not fit into memory.

A Gram loss sees the whole picture, so tiles cannot be optimised one by one. Two passes can (Galerne
et al. 2024): the first sums the tiles' Gram matrices up, which gives the loss and its gradient with
respect to the Gram matrices; the second pushes that gradient back through each tile. Picture,
optimiser and content features are held whole, activations only for one tile.

A tile is computed with a margin as wide as the network sees and begins at a multiple of its
stride, so its inner features are exactly those of the whole picture; only they are counted, and
what flows back into the margin is added to the neighbours.
"""

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from nst_ops import pyramid
from nst_ops.gram import gram_sum
from nst_ops.losses import (
    Features,
    LossWeights,
    Targets,
    style_loss,
    variation_sum,
    weighted_total,
)
from nst_ops.objective import Evaluation, Objective, extractor
from nst_ops.tiles import Tile, tiles
from nst_ops.weights import stride


def evaluate_tiled(
    objective: Objective,
    octave_weights: tuple[float, ...],
    images: tf.Tensor,
    targets: Targets,
    weights: LossWeights,
    side: int,
) -> Evaluation:
    """`objective.evaluate`, to float tolerance, in the memory of a tile of `side` px."""
    octaves = [octave.numpy() for octave in _octaves(objective, len(octave_weights))(images)]
    grams = [tiled_grams(objective, octave, side) for octave in octaves]
    style, pulls = _style_gradient(objective, octave_weights)(
        tuple(grams), targets.style, weights.style
    )
    shares = _content_shares(objective, targets.content)
    gradients = [np.zeros_like(octave) for octave in octaves]
    content, tv = 0.0, 0.0
    size = octaves[0].shape[1:3]
    for octave, gradient, pull in zip(octaves, gradients, pulls, strict=True):
        full = octave is octaves[0]
        positions = {layer: _positions(octave, layer) for layer in pull}
        pull = {layer: matrix / positions[layer] for layer, matrix in pull.items()}
        for tile in tiles(octave.shape[1:3], side):
            goals = {
                layer: features[:, *tile.features_of(layer)]
                for layer, features in targets.content.items()
            }
            part, content_part, tv_part = _tile_gradient(objective, full)(
                _cut(tile, octave),
                tf.constant(tile.inner),
                pull,
                goals if full else {},
                shares if full else {},
                weights,
                tf.constant(1.0 / ((size[0] - 1) * (size[1] - 1)), tf.float32),
            )
            gradient[:, tile.rows, tile.columns] += part.numpy()
            content, tv = content + content_part, tv + tv_part
    total, terms = weighted_total(
        weights, content=tf.constant(content), style=style, tv=tf.constant(tv)
    )
    whole, *coarser = gradients
    if coarser:
        # Added in place: at this point a large picture has the most in memory.
        whole += _octaves_gradient(objective)(images, tuple(map(tf.constant, coarser))).numpy()
    return total, terms, tf.constant(whole)


def tiled_grams(objective: Objective, images: np.ndarray, side: int) -> Features:
    """Gram matrices {layer: [B, C, C]} of the style layers of whole images."""
    sums: dict[str, tf.Tensor] = {}
    for tile in tiles(images.shape[1:3], side):
        patch = _tile_grams(objective)(_cut(tile, images), tf.constant(tile.inner))
        sums = {layer: gram + sums.get(layer, 0.0) for layer, gram in patch.items()}
    return {layer: gram / _positions(images, layer) for layer, gram in sums.items()}


def tiled_content(objective: Objective, images: np.ndarray, side: int) -> Features:
    """Features {layer: [B, h, w, C]} of the content layers of whole images."""
    whole: dict[str, np.ndarray] = {}
    for tile in tiles(images.shape[1:3], side):
        features = extractor(objective)(_cut(tile, images))
        for layer, _ in objective.content_layers:
            inner = _inner(features[layer], tile.inner, layer)
            if layer not in whole:
                height, width = (length // stride(layer) for length in images.shape[1:3])
                shape = (images.shape[0], height, width, inner.shape[-1])
                whole[layer] = np.empty(shape, inner.dtype.as_numpy_dtype)
            whole[layer][:, *tile.features_of(layer)] = inner.numpy()
    return {layer: tf.constant(features) for layer, features in whole.items()}


def _cut(tile: Tile, images: np.ndarray) -> tf.Tensor:
    return tf.constant(images[:, tile.rows, tile.columns])


def _positions(images: np.ndarray, layer: str) -> float:
    height, width = images.shape[1:3]
    return float((height // stride(layer)) * (width // stride(layer)))


def _inner(features: tf.Tensor, inner: tf.Tensor | tuple, layer: str) -> tf.Tensor:
    step = stride(layer)
    return features[:, inner[0] // step : inner[1] // step, inner[2] // step : inner[3] // step]


def _content_shares(objective: Objective, targets: Features) -> dict[str, tf.Tensor]:
    """What a squared difference at one position of a layer adds to the content loss, [B]."""
    total = sum(weight for _, weight in objective.content_layers)
    shares = {}
    for layer, weight in objective.content_layers:
        rows = range(0, targets[layer].shape[1], 64)  # not all in float32 at once
        parts = [tf.cast(targets[layer][:, row : row + 64], tf.float32) for row in rows]
        norm = tf.add_n([tf.reduce_sum(tf.square(part), axis=[1, 2, 3]) for part in parts])
        shares[layer] = tf.math.divide_no_nan(weight / total, norm)
    return shares


@functools.lru_cache(maxsize=16)
def _tile_grams(objective: Objective) -> Callable:
    def grams(patch: tf.Tensor, inner: tf.Tensor) -> Features:
        features = objective.model(patch)
        return {
            layer: gram_sum(_inner(features[layer], inner, layer))
            for layer, _ in objective.style_layers
        }

    return objective.compile(grams)


@functools.lru_cache(maxsize=16)
def _style_gradient(objective: Objective, octave_weights: tuple[float, ...]) -> Callable:
    """Style loss [B] of Gram matrices, and the gradient of its weighted value to them."""

    def style_gradient(
        grams: tuple[Features, ...], targets: tuple[Features, ...], weight: tf.Tensor
    ):
        with tf.GradientTape() as tape:
            tape.watch(grams)
            style = style_loss(grams, targets, dict(objective.style_layers), octave_weights)
            weighted = weight * style
        return style, tape.gradient(weighted, grams)

    return objective.compile(style_gradient)


@functools.lru_cache(maxsize=16)
def _tile_gradient(objective: Objective, full: bool) -> Callable:
    """A patch's share of the gradient, of the content loss and of the total variation.

    Only the picture itself (`full`) has content and total variation, its other octaves do not.
    """

    def tile_gradient(patch, inner, pulls, goals, shares, weights, per_pixel):
        zero = tf.zeros_like(patch[:, 0, 0, 0])
        with tf.GradientTape() as tape:
            tape.watch(patch)
            features = objective.model(patch)
            style, content, tv = zero, zero, zero
            for layer, pull in pulls.items():
                gram = gram_sum(_inner(features[layer], inner, layer))
                style += tf.reduce_sum(pull * gram, axis=[1, 2])
            for layer, goal in goals.items():
                found = _inner(features[layer], inner, layer)
                distance = tf.square(tf.cast(found, tf.float32) - tf.cast(goal, tf.float32))
                content += shares[layer] * tf.reduce_sum(distance, axis=[1, 2, 3])
            if full:
                # One more row and column, if there are any, to be neighbours.
                top, bottom, left, right = tf.unstack(inner, num=4)
                tv = per_pixel * variation_sum(patch[:, top : bottom + 1, left : right + 1])
            # The style weight is in the pulls already.
            once = weights._replace(style=tf.ones_like(weights.style))
            total, _ = weighted_total(once, content=content, style=style, tv=tv)
            amplified = total * objective.gradient_gain
        return tape.gradient(amplified, patch) / objective.gradient_gain, content, tv

    return objective.compile(tile_gradient)


@functools.lru_cache(maxsize=16)
def _octaves(objective: Objective, count: int) -> Callable:
    return objective.compile(lambda images: pyramid.octaves(images, count))


@functools.lru_cache(maxsize=16)
def _octaves_gradient(objective: Objective) -> Callable:
    """Gradients of all octaves but the picture itself, as one of the picture."""

    def octaves_gradient(images: tf.Tensor, gradients: tuple[tf.Tensor, ...]) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(images)
            _, *octaves = pyramid.octaves(images, 1 + len(gradients))
        return tape.gradient(octaves, images, output_gradients=list(gradients))

    return objective.compile(octaves_gradient)
