"""What pictures are optimised towards, computed once: features of photos, and Gram matrices of
paintings, cached.
"""

import functools
import hashlib
import io
import itertools
import json
import os
import tempfile
import threading
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from nst_ops import pyramid
from nst_ops.gram import gram_matrix
from nst_ops.losses import Features
from nst_ops.objective import Objective, extractor
from nst_ops.settings import Settings, StyleScale
from nst_ops.sizes import Size, fit, least_side, octave_sizes
from nst_ops.tiles import STRIDE
from nst_ops.tiling import tiled_content, tiled_grams

Grams = dict[str, tf.Tensor]  # {layer: [1, C, C]}

_LEAST_TILE = 256  # px, of a painting: smaller ones are mostly margin


class Style(NamedTuple):
    """One painting of a blend: [h, w, 3] float32 sRGB in [0, 1], and its weight."""

    image: np.ndarray
    weight: float = 1.0

    def digest(self) -> str:
        """Of the pixels."""
        return hashlib.sha256(np.ascontiguousarray(self.image)).hexdigest()


class TargetCache:
    """Gram matrices of paintings, in memory and, if wanted, on disk.

    Safe between threads, and between processes that share the folder: files are named by all that
    their content depends on, and appear whole.

    Args:
      max_bytes: of all tensors kept in memory, least recently used out first. One painting at one
        resolution takes 2.4 MB an octave with default layers.
      folder: where to keep them too; None: in memory only.
    """

    def __init__(self, max_bytes: int = 512 * 2**20, folder: str | None = None):
        self.max_bytes = max_bytes
        self.folder = folder
        self.bytes = 0
        self._entries: OrderedDict[Hashable, tuple[Grams, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def get(
        self, key: Hashable, compute: Callable[[], tuple[Grams, ...]], name: str | None = None
    ) -> tuple[Grams, ...]:
        """The entry, computed if it is not there.

        Args:
          key: in memory.
          name: of its file; None: it is not kept on disk.
        """
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key]
        # Outside the lock: it takes seconds, and doing it twice does no harm.
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
        data = io.BytesIO(Path(path).read_bytes())
        with np.load(data, allow_pickle=False) as arrays:
            octaves: list[Grams] = [{} for _ in {name.split("/")[0] for name in arrays.files}]
            for name in arrays.files:
                octave, layer = name.split("/")
                octaves[int(octave)][layer] = tf.constant(arrays[name])
            return tuple(octaves)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None  # not there, or damaged: it is computed and written again


def _save(path: str, octaves: tuple[Grams, ...]) -> None:
    arrays = {
        f"{octave}/{layer}": gram.numpy()
        for octave, grams in enumerate(octaves)
        for layer, gram in grams.items()
    }
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path), suffix=".tmp")
        with os.fdopen(descriptor, "wb") as file:
            np.savez(file, **arrays)
        os.replace(temporary, path)
    except OSError as error:
        # A cache that cannot be written costs time, not the picture.
        warnings.warn(f"{path}: target not cached: {error}", stacklevel=2)


def _bytes(octaves: tuple[Grams, ...]) -> int:
    return sum(4 * gram.shape.num_elements() for grams in octaves for gram in grams.values())


def content_targets(photos: tf.Tensor, objective: Objective, side: int | None = None) -> Features:
    """Content features of photos [B, H, W, 3]: {layer: [B, h, w, C]}, in tiles of `side` px if
    given.
    """
    if side is not None:
        return tiled_content(objective, photos, side)
    features = extractor(objective)(photos)
    return {layer: features[layer] for layer, _ in objective.content_layers}


def style_targets(
    styles: Sequence[Style],
    picture: Size,
    final: Size,
    settings: Settings,
    objective: Objective,
    cache: TargetCache,
    side: int | None = None,
) -> tuple[Grams, ...]:
    """The mean Gram matrices of a blend of paintings at several resolutions, per octave of the
    picture.

    A Gram loss is quadratic, so the weighted sum of losses against several targets is the loss
    against their weighted mean plus a constant, which is left out.

    Args:
      picture: size of the picture at this scale.
      final: size of the result, which `style_scales` in px refer to.
      objective: the network; part of the cache's key.
      side: of tiles in px, if the painting is to be computed in tiles.

    Returns:
      Per octave, full size first: {layer: [1, C, C]}.
    """
    count = len(octave_sizes(picture, len(settings.octaves), least_side(settings)))
    # The painting's smallest octave, too, must be large enough for the network.
    least = least_side(settings) * 2 ** (count - 1)
    total = sum(s.weight for s in styles) * sum(r.weight for r in settings.style_scales)
    mean: list[Grams] = [{} for _ in range(count)]
    for style, scale in itertools.product(styles, settings.style_scales):
        size = _style_size(style.image.shape[:2], scale, picture, final, least)
        cut = side
        if side is None and max(size) > max(picture):
            # Memory was planned for the picture, so the painting is seen in parts of that size.
            cut = max(_LEAST_TILE, -(-max(picture) // STRIDE) * STRIDE)
        compute = functools.partial(_grams, style.image, size, count, objective, cut)
        key = (objective, style.digest(), size, count)
        octaves = cache.get(key, compute, _file_name(*key))
        share = style.weight * scale.weight / total
        for sums, grams in zip(mean, octaves, strict=True):
            for layer, gram in grams.items():
                sums[layer] = sums.get(layer, 0.0) + share * gram
    return tuple(mean)


def _grams(
    image: np.ndarray, size: Size, count: int, objective: Objective, side: int | None
) -> tuple[Grams, ...]:
    """Of a painting resized to `size`, per octave."""
    resized = tf.clip_by_value(pyramid.resize(tf.convert_to_tensor(image)[None], size), 0.0, 1.0)
    octaves = pyramid.octaves(resized, count)
    if side is not None:
        return tuple(tiled_grams(objective, octave, side) for octave in octaves)
    return tuple(_whole_grams(objective, octave) for octave in octaves)


def _whole_grams(objective: Objective, images: tf.Tensor) -> Grams:
    features = extractor(objective)(images)
    return {layer: gram_matrix(features[layer]) for layer, _ in objective.style_layers}


def _file_name(objective: Objective, digest: str, size: Size, count: int) -> str | None:
    """Of all that Gram matrices depend on; None for a network that is not known by name."""
    if not objective.network:
        return None
    layers = sorted(layer for layer, _ in objective.style_layers)
    text = json.dumps([objective.network, digest, size, count, layers])
    return hashlib.sha256(text.encode()).hexdigest()


def _style_size(own: Size, scale: StyleScale, picture: Size, final: Size, least: int) -> Size:
    """Never larger than the painting: beyond its own pixels it has no strokes, only blur."""
    ratio = scale.ratio if scale.size is None else scale.size / max(final)
    height, width = fit(own, max(1, round(max(picture) * (ratio or 1.0))))
    # Not smaller than the network needs, however narrow the painting.
    return max(height, least), max(width, least)
