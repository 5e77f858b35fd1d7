"""Attention's targets: the features of paintings that each position is to take after."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from nst_ops.images.inputs import Style
from nst_ops.images.size import Size
from nst_ops.losses.attention import Answers, answers, attend, nearest, questions, thin
from nst_ops.losses.moments import moments
from nst_ops.losses.objective import Objective, extractor
from nst_ops.losses.regions import Region, at_layer, coverage, resized
from nst_ops.losses.targets.cache import Seen
from nst_ops.losses.targets.paintings import Sight, painting_tile, resized_painting
from nst_ops.losses.terms import Answered
from nst_ops.losses.tiled import tile_features, tiled_features, tiled_moments

_COVERED = 0.999  # share of a place from which on it counts as painted: masks add up with rounding


def attention_targets(
    photos: tf.Tensor,
    regions: Sequence[Sequence[Region]],
    sight: Sight,
    side: int | None = None,
    pictures: tf.Tensor | None = None,
) -> dict[str, tf.Tensor | Answered]:
    """Returns the features of paintings that each position of the pictures should take after; where
    no painting goes, those of the photos.

    Args:
      photos: [B, H, W, 3], at the size of the scale.
      regions: of each picture.
      sight: by what paintings are seen.
      side: of tiles, in px; None: photos and pictures are computed whole.
      pictures: the pictures so far, of the same shape; None: the photos alone are matched.

    Returns:
      {layer: features [B, h, w, C], or where to find them}; empty if the term is not in use.
    """
    objective, temperature = sight.objective, sight.settings.attention_temperature
    layers = tuple(layer for layer, _ in objective.attention_layers)
    if not layers:
        return {}
    height, width = photos.shape.as_list()[1:3]
    asked = _questions(photos, pictures, objective, layers, side)
    covered = [coverage(each) for each in regions]
    # A mean of features, or a part of the photo's, is in no list of the painting's.
    bare = any(float(tf.reduce_min(each)) < _COVERED for each in covered)
    listed = not (bare or temperature)
    shown = tiled_features(objective, layers, photos, side) if bare else {}
    found: dict[str, list] = {layer: [] for layer in layers}
    for row, each in enumerate(regions):
        given = [
            (region.where, painting)
            for region in each
            for painting in _seen_features(region.paintings, (height, width), sight)
        ]
        for layer in layers:
            sources = [_answers(objective, where, painting, layer) for where, painting in given]
            if listed:
                features = tf.concat([source.features for source in sources], axis=0)
                found[layer].append((features, nearest(asked[layer][row], sources)))
                continue
            answer = attend(asked[layer][row], sources, temperature)
            if bare:
                share = tf.broadcast_to(covered[row], [1, height, width, 1])
                share = tf.cast(at_layer(objective, share, layer)[0], answer.dtype)
                answer = share * answer + (1.0 - share) * shown[layer][row]
            found[layer].append(answer)
    return {layer: _answered(rows) if listed else tf.stack(rows) for layer, rows in found.items()}


def _questions(
    photos: tf.Tensor,
    pictures: tf.Tensor | None,
    objective: Objective,
    layers: tuple[str, ...],
    side: int | None,
) -> dict[str, tf.Tensor]:
    """Returns what each position asks for, {layer: [B, h, w, C]}."""
    images = [photos] if pictures is None else [photos, pictures]
    if side is None:
        seen = [extractor(objective, layers)(each) for each in images]
        return {
            layer: questions([(each[layer], moments(each[layer])) for each in seen])
            for layer in layers
        }
    # In tiles all is computed twice, first for the moments, as no features are kept.
    sums = [tiled_moments(objective, layers, each, side) for each in images]
    asked: dict[str, np.ndarray] = {}
    streams = [tile_features(objective, layers, each, side) for each in images]
    for tiles in zip(*streams, strict=True):
        for layer in layers:
            part = questions(
                [(seen[layer], of[layer]) for (_, seen), of in zip(tiles, sums, strict=True)]
            )
            if layer not in asked:
                size = objective.positions((photos.shape[1], photos.shape[2]), layer)
                asked[layer] = np.empty((len(photos), *size, part.shape[-1]), np.float16)
            asked[layer][:, *tiles[0][0].positions(objective.stride(layer))] = part.numpy()
    return {layer: tf.constant(values) for layer, values in asked.items()}


def _answered(rows: Sequence[tuple[tf.Tensor, tf.Tensor]]) -> Answered:
    """Returns the target of a batch from each image's list of features and places in it."""
    most = max(features.shape[0] for features, _ in rows)
    lists = [tf.pad(features, [[0, most - features.shape[0]], [0, 0]]) for features, _ in rows]
    return Answered(tf.stack(lists)[:, :, None], tf.stack([index for _, index in rows])[..., None])


def _answers(
    objective: Objective,
    where: tf.Tensor | None,
    painting: "_SeenPainting",
    layer: str,
) -> Answers:
    """Returns the answers of a painting at a layer, to questions from where its strokes go."""
    style, size, features, weight = painting
    seen, part = features[layer], style.painting_mask
    if part is not None:
        part = resized(part, (seen.shape[1], seen.shape[2]))
    places = weight if where is None else weight * at_layer(objective, where, layer)
    whole = objective.positions(size, layer) == (seen.shape[1], seen.shape[2])
    return answers(seen, places, part, thinned=not whole)


class _SeenPainting(NamedTuple):
    """Holds a painting's features at one of the `style_scales`, thinned to those that answer."""

    style: Style
    size: Size  # at which it is seen
    features: Seen
    weight: float


def _seen_features(
    blend: Sequence[Style],
    picture: Size,
    sight: Sight,
) -> list[_SeenPainting]:
    """Returns a blend's paintings at each of the `style_scales`."""
    objective = sight.objective
    layers = tuple(sorted(layer for layer, _ in objective.attention_layers))
    found = []
    for style, size, share in sight.paintings(blend, picture):

        def compute(image: np.ndarray = style.image, size: Size = size) -> tuple[Seen, ...]:
            side = painting_tile(size, objective)
            features = tiled_features(objective, layers, resized_painting(image, size), side)
            return ({layer: thin(values) for layer, values in features.items()},)

        key = ("attention", objective.identity, layers, style.pixels_digest, size)
        (features,) = sight.cache.get(key, compute)
        found.append(_SeenPainting(style, size, features, share))
    return found
