"""What pictures are optimised towards, computed once: features of photos, and Gram matrices of
paintings, cached.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from nst_ops import pyramid
from nst_ops.gram import gram_matrix
from nst_ops.settings import Settings, StyleScale
from nst_ops.sizes import Size, fit, least_side, octave_sizes

Grams = dict[str, tf.Tensor]  # {layer: [1, C, C]}
Extractor = Callable[[tf.Tensor], dict[str, tf.Tensor]]


class Style(NamedTuple):
    """One painting of a blend: [h, w, 3] float32 sRGB in [0, 1], and its weight."""

    image: np.ndarray
    weight: float = 1.0

    def digest(self) -> str:
        """Of the pixels."""
        return hashlib.sha256(np.ascontiguousarray(self.image)).hexdigest()


class TargetCache:
    """Gram matrices of paintings, least recently used out first; safe between threads.

    Args:
      max_bytes: of all tensors kept. One painting at one resolution and octave takes 2.4 MB with
        default layers.
    """

    def __init__(self, max_bytes: int = 512 * 2**20):
        self.max_bytes = max_bytes
        self.bytes = 0
        self._entries: OrderedDict[Hashable, tuple[Grams, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, compute: Callable[[], Grams]) -> Grams:
        """The entry, computed if it is not there."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key][0]
        grams = compute()  # outside the lock: it takes seconds, and doing it twice does no harm
        size = sum(gram.shape.num_elements() * 4 for gram in grams.values())
        with self._lock:
            if key not in self._entries:
                self._entries[key] = (grams, size)
                self.bytes += size
            while self.bytes > self.max_bytes and len(self._entries) > 1:
                self.bytes -= self._entries.popitem(last=False)[1][1]
        return grams


def style_targets(
    styles: Sequence[Style],
    picture: Size,
    final: Size,
    settings: Settings,
    extractor: Extractor,
    cache: TargetCache,
) -> tuple[Grams, ...]:
    """The mean Gram matrices of a blend of paintings at several resolutions, per octave of the
    picture.

    A Gram loss is quadratic, so the weighted sum of losses against several targets is the loss
    against their weighted mean plus a constant, which is left out.

    Args:
      picture: size of the picture at this scale.
      final: size of the result, which `style_scales` in px refer to.
      extractor: compiled network; its identity is part of the cache's key.

    Returns:
      Per octave, full size first: {layer: [1, C, C]}.
    """
    count = len(octave_sizes(picture, len(settings.octaves), least_side(settings)))
    total = sum(s.weight for s in styles) * sum(r.weight for r in settings.style_scales)
    sums: list[dict[str, tf.Tensor]] = [{} for _ in range(count)]
    for style in styles:
        digest = style.digest()
        for scale in settings.style_scales:
            size = _style_size(style.image.shape[:2], scale, picture, final, least_side(settings))
            image: list[tf.Tensor] = []  # octaves of the resized painting, made at most once

            def grams(
                octave: int, size: Size = size, style: Style = style, image: list = image
            ) -> Grams:
                if not image:
                    image.extend(_octaves(style.image, size, count))
                features = extractor(image[octave])
                return {layer: gram_matrix(features[layer]) for layer in settings.style_layers}

            for octave in range(count):
                key = (extractor, digest, size, octave, tuple(settings.style_layers))
                share = style.weight * scale.weight / total
                for layer, gram in cache.get(
                    key, lambda octave=octave, grams=grams: grams(octave)
                ).items():
                    sums[octave][layer] = sums[octave].get(layer, 0.0) + share * gram
    return tuple(sums)


def _octaves(image: np.ndarray, size: Size, count: int) -> list[tf.Tensor]:
    resized = tf.clip_by_value(pyramid.resize(tf.convert_to_tensor(image)[None], size), 0.0, 1.0)
    return pyramid.octaves(resized, count)


def _style_size(own: Size, scale: StyleScale, picture: Size, final: Size, least: int) -> Size:
    """A painting is not enlarged: it has no strokes finer than its pixels, and blur is no
    stroke.
    """
    ratio = scale.ratio if scale.ratio is not None else scale.size / max(final)  # type: ignore[operator]
    size = fit(own, max(1, round(max(picture) * ratio)))
    # Not smaller than the network needs, however narrow the painting.
    return size if min(size) >= least else (max(size[0], least), max(size[1], least))
