"""What pictures are optimized towards: features of photos, and Gram matrices and features of
paintings, which are cached.
"""

import functools
import hashlib
import itertools
import json
import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from nst_ops import archives
from nst_ops.atomic import replacing
from nst_ops.errors import InputError
from nst_ops.images import resampling
from nst_ops.images.inputs import Style
from nst_ops.images.size import Size
from nst_ops.losses.attention import (
    Answers,
    Moments,
    answers,
    attend,
    moments,
    nearest,
    questions,
    thin,
)
from nst_ops.losses.gram import gram_matrix
from nst_ops.losses.objective import Objective, extractor
from nst_ops.losses.octaves import first_octave, octaves_in_use, style_size
from nst_ops.losses.regions import Region, at_layer, coverage, position_weights, resized
from nst_ops.losses.terms import Answered, View
from nst_ops.losses.tile_grid import PAINTING_TILE, side_for
from nst_ops.losses.tiled import tile_features, tiled_features, tiled_grams
from nst_ops.settings import Settings

Grams = dict[str, tf.Tensor]  # {layer: [1, C, C]}
Features = dict[str, tf.Tensor]  # {layer: [1, h, w, C]}

_COVERED = 0.999  # share of a place from which on it counts as painted: masks add up with rounding
# Of the files; raise it when the same painting would give other Gram matrices.
_FORMAT = 3


class StyleTarget(NamedTuple):
    """Holds the target of one picture at one octave: mean Gram matrices, and the octave's weight,
    which is 0 if no painting is large enough for it.
    """

    grams: Grams
    weight: float


class TargetCache:
    """Caches Gram matrices of paintings, in memory and, if wanted, on disk; and, in memory only,
    their features for attention.

    Threads may share it, and processes and users may share the folder: files are named by all that
    their content depends on, appear whole, and carry a checksum.

    Args:
      max_bytes: of all tensors kept in memory; the least recently used go first. The Gram
        matrices of one painting at one resolution take 2.4 MB an octave with default layers.
      folder: where Gram matrices are kept on disk as well; None: in memory only.
    """

    def __init__(self, max_bytes: int = 512 * 2**20, folder: str | None = None):
        self.max_bytes = max_bytes
        self.folder = folder
        self.bytes = 0
        self._entries: OrderedDict[Hashable, tuple[Grams | Features, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def get(
        self, key: Hashable, compute: Callable[[], tuple[Grams, ...]], name: str | None = None
    ) -> tuple[Grams, ...]:
        """Returns the entry of this key, and computes it if it is not cached.

        Args:
          key: identifies the entry in memory.
          compute: computes the entry, a dict for each octave.
          name: of its file, without the extension; None: it is not kept on disk.
        """
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key]
        # Outside the lock: this takes seconds, and does no harm if two threads do it.
        path = os.path.join(self.folder, f"{name}.npz") if self.folder and name else None
        octaves = _load(path) if path else None
        if octaves is None:
            octaves = compute()
            if path:
                _save(path, octaves)
        with self._lock:
            if key not in self._entries:
                self._entries[key] = octaves
                self.bytes += _bytes(octaves)
            while self.bytes > self.max_bytes and len(self._entries) > 1:
                self.bytes -= _bytes(self._entries.popitem(last=False)[1])
        return octaves


def _load(path: str) -> tuple[Grams, ...] | None:
    try:
        with open(path, "rb") as file, archives.opened(file, "targets", _FORMAT) as (facts, arrays):
            if facts["name"] != os.path.basename(path):
                raise InputError(f"it is {facts['name']}, under another name")
            octaves: list[Grams] = [{} for _ in range(facts["octaves"])]
            for name in arrays:
                if name != "header":
                    octave, layer = name.split("/", 1)
                    octaves[int(octave)][layer] = tf.constant(arrays[name])
            return tuple(octaves)
    except FileNotFoundError:
        return None
    except (OSError, InputError) as error:
        warnings.warn(f"{path}: ignored: {error}; it is made again", stacklevel=3)
        return None


def _save(path: str, octaves: tuple[Grams, ...]) -> None:
    arrays = {
        f"{octave}/{layer}": gram.numpy()
        for octave, grams in enumerate(octaves)
        for layer, gram in grams.items()
    }
    try:
        with replacing(path, sync=False) as file:
            facts = {"octaves": len(octaves), "name": os.path.basename(path)}
            archives.write(file, "targets", _FORMAT, facts, arrays)
    except OSError as error:
        # A cache that cannot be written costs time, not the picture.
        warnings.warn(f"{path}: target not cached: {error}", stacklevel=3)


def _bytes(octaves: tuple[Grams, ...]) -> int:
    tensors = [tensor for grams in octaves for tensor in grams.values()]
    return sum(tensor.dtype.size * tensor.shape.num_elements() for tensor in tensors)


def content_targets(
    photos: tf.Tensor, objective: Objective, side: int | None = None
) -> dict[str, tf.Tensor]:
    """Returns the content features of photos [B, H, W, 3] as {layer: [B, h, w, C]}. They are
    computed in tiles of `side` px; None: whole.
    """
    return _features(photos, objective, [layer for layer, _ in objective.content_layers], side)


def _features(
    images: tf.Tensor, objective: Objective, layers: Iterable[str], side: int | None
) -> dict[str, tf.Tensor]:
    chosen = tuple(sorted(layers))
    if side is not None:
        return dict(tiled_features(objective, chosen, images, side))
    return extractor(objective, chosen)(images)


def attention_targets(
    photos: tf.Tensor,
    pictures: tf.Tensor | None,
    regions: Sequence[Sequence[Region]],
    final: Size,
    settings: Settings,
    objective: Objective,
    cache: TargetCache,
    side: int | None = None,
) -> dict[str, tf.Tensor | Answered]:
    """Returns the features of paintings that each position of the pictures should take after; where
    no painting goes, those of the photos.

    Args:
      photos: [B, H, W, 3], at the size of the scale.
      pictures: the pictures so far, of the same shape; None: the photos alone are matched.
      regions: of each picture.
      final: size of the result, which `style_scales` in px refer to.
      side: of tiles, in px; None: photos and pictures are computed whole.

    Returns:
      {layer: features [B, h, w, C], or where to find them}; empty if the term is not in use.
    """
    layers = tuple(layer for layer, _ in objective.attention_layers)
    if not layers:
        return {}
    height, width = photos.shape.as_list()[1:3]
    asked = _questions(photos, pictures, objective, layers, side)
    covered = [coverage(each) for each in regions]
    # A mean of features, or a part of the photo's, is in no list of the painting's.
    bare = any(float(tf.reduce_min(each)) < _COVERED for each in covered)
    listed = not (bare or settings.attention_temperature)
    shown = _features(photos, objective, layers, side) if bare else {}
    found: dict[str, list] = {layer: [] for layer in layers}
    for row, each in enumerate(regions):
        given = [
            (region.where, painting)
            for region in each
            for painting in _seen_features(
                region.paintings, (height, width), final, settings, objective, cache
            )
        ]
        for layer in layers:
            sources = [_answers(objective, where, painting, layer) for where, painting in given]
            if listed:
                features = tf.concat([source.features for source in sources], axis=0)
                found[layer].append((features, nearest(asked[layer][row], sources)))
                continue
            answer = attend(asked[layer][row], sources, settings.attention_temperature)
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
    sums: list[dict[str, Moments]] = []
    for each in images:
        sums.append({})
        for _, features in tile_features(objective, layers, each, side):
            for layer, part in features.items():
                before = sums[-1].get(layer)
                sums[-1][layer] = before.join(moments(part)) if before else moments(part)
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
    features: Features
    weight: float


def _seen_features(
    blend: Sequence[Style],
    picture: Size,
    final: Size,
    settings: Settings,
    objective: Objective,
    cache: TargetCache,
) -> list[_SeenPainting]:
    """Returns a blend's paintings at each of the `style_scales`."""
    layers = sorted(layer for layer, _ in objective.attention_layers)
    found = []
    for style, size, share in _seen(blend, picture, final, settings, objective):

        def compute(image: np.ndarray = style.image, size: Size = size) -> tuple[Features, ...]:
            side = side_for(size, PAINTING_TILE) if objective.tileable else None
            features = _features(_resized(image, size), objective, layers, side)
            return ({layer: thin(values) for layer, values in features.items()},)

        key = ("attention", objective.identity, tuple(layers), style.pixels_digest, size)
        (features,) = cache.get(key, compute)
        found.append(_SeenPainting(style, size, features, share))
    return found


def _seen(
    blend: Sequence[Style], picture: Size, final: Size, settings: Settings, objective: Objective
) -> Iterator[tuple[Style, Size, float]]:
    """Yields a blend's paintings at each of the `style_scales`: the size there, and the weight."""
    least, first = objective.least_side, first_octave(settings.octaves)
    for style, scale in itertools.product(blend, settings.style_scales):
        size = style_size(style.image.shape[:2], scale, picture, final, first, least)
        yield style, size, style.weight * scale.weight


def style_views(
    regions: Sequence[Sequence[Region]],
    picture: Size,
    final: Size,
    settings: Settings,
    objective: Objective,
    cache: TargetCache,
) -> tuple[tuple[int, ...], tuple[View, ...]]:
    """Returns what the style of a batch is compared in: the number of the octave of each view, and
    the views.

    Args:
      regions: of each picture.
      picture: size of the pictures at this scale.
      final: size of the result, which `style_scales` in px refer to.

    Raises:
      InputError: a painting is too small for the network, or a region is not seen at a layer.
    """
    octaves = octaves_in_use(picture, settings.octaves, objective.least_side)
    numbers, views = [], []
    for each in itertools.zip_longest(*regions):  # the first regions of all pictures, the second...
        found = [
            style_targets(region.paintings, picture, final, settings, objective, cache)
            if region
            else None
            for region in each
        ]
        blank = next(targets for targets in found if targets)
        positions: dict[int, dict[str, tf.Tensor]] = {}
        if any(region is None or region.where is not None for region in each):
            places = tf.concat([_place(region, picture) for region in each], axis=0)
            names = [region.name if region else "" for region in each]
            positions = position_weights(objective, places, octaves, names)
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
    final: Size,
    settings: Settings,
    objective: Objective,
    cache: TargetCache,
) -> tuple[StyleTarget, ...]:
    """Returns the mean Gram matrices of a blend of paintings at several resolutions, for each
    octave of the picture.

    A Gram loss is quadratic, so the weighted sum of losses against several targets is the loss
    against their weighted mean plus a constant, which is left out. At an octave, only paintings
    whose own octave is large enough for the network count.

    Args:
      styles: the blend.
      picture: size of the picture at this scale.
      final: size of the result, which `style_scales` in px refer to.
      objective: the network; part of the cache's key.

    Returns:
      A target for each of `octaves_in_use` at this size, finest first.

    Raises:
      InputError: a painting is too small for the network.
    """
    least = objective.least_side
    octaves = octaves_in_use(picture, settings.octaves, least)
    sums: dict[int, Grams] = {octave: {} for octave in octaves}
    totals = dict.fromkeys(octaves, 0.0)
    for style, size, share in _seen(styles, picture, final, settings, objective):
        own = octaves_in_use(size, settings.octaves[: max(octaves) + 1], least)
        compute = functools.partial(_grams, style, size, own, objective)
        key = (objective.identity, style.digest, size, own)
        name = _file_name(objective, style.digest, size, own)
        for octave, grams in zip(own, cache.get(key, compute, name), strict=True):
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
    levels = resampling.octaves(_resized(style.image, size), max(octaves) + 1)
    positions: dict[int, dict[str, tf.Tensor]] = {}
    if style.painting_mask is not None:
        mask = resized(style.painting_mask, size)
        positions = position_weights(objective, mask, octaves, ["a painting's own mask"])
    return tuple(
        _level_grams(objective, levels[octave], positions.get(octave, {})) for octave in octaves
    )


def _resized(image: np.ndarray, size: Size) -> tf.Tensor:
    """Resizes a painting, and returns it as [1, *size, 3] in [0, 1]."""
    images = tf.convert_to_tensor(image)[None]
    return tf.clip_by_value(resampling.resize(images, size), 0.0, 1.0)


def _level_grams(objective: Objective, images: tf.Tensor, positions: Grams) -> Grams:
    height, width = images.shape.as_list()[1:3]
    side = side_for((height, width), PAINTING_TILE)
    if side is not None and objective.tileable:
        return dict(tiled_grams(objective, images, side, [positions])[0])
    layers = tuple(layer for layer, _ in objective.style_layers)
    features = extractor(objective, layers)(images)
    return {layer: gram_matrix(features[layer], positions.get(layer)) for layer in layers}


def _file_name(objective: Objective, digest: str, size: Size, octaves: Sequence[int]) -> str | None:
    """Returns the name of a cache file, a hash of all that its Gram matrices depend on; None for a
    network that has no name, and so cannot be told from others in another process.
    """
    if not objective.network:
        return None
    layers = sorted(layer for layer, _ in objective.style_layers)
    text = json.dumps([_FORMAT, objective.network, digest, size, list(octaves), layers])
    return hashlib.sha256(text.encode()).hexdigest()
