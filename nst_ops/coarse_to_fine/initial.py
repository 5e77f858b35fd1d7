"""The pictures that an optimization starts from."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from nst_ops.errors import InputError
from nst_ops.images import colors, resampling
from nst_ops.images.size import Size


def initial_pictures(
    init: str, photos: tf.Tensor, paintings: Sequence[np.ndarray], seeds: Sequence[int]
) -> tf.Tensor:
    """Returns a first picture for each photo.

    Args:
      init: as in `Settings`: `content` (the photo), `noise`, or `style` (noise in the painting's
        colours).
      photos: [B, H, W, 3], at the coarsest scale.
      paintings: one per photo, [h, w, 3].
      seeds: of the noise, one per photo.

    Returns:
      [B, H, W, 3] in [0, 1].

    Raises:
      InputError: `init` is none of the three.
    """
    if init == "content":
        return tf.clip_by_value(photos, 0.0, 1.0)
    if init not in ("noise", "style"):
        raise InputError(f"init: {init!r} is a file; read it and pass its pixels as `initial`")
    noise = [_pink_noise(tuple(photos.shape[1:3]), seed) for seed in seeds]
    if init == "style":
        noise = [colors.match_colors(n, p) for n, p in zip(noise, paintings, strict=True)]
    return tf.constant(np.stack(noise))


def resize_initial(initial: np.ndarray, size: Size) -> tf.Tensor:
    """Resizes given first pictures, [B, h, w, 3] in [0, 1], to the size of the coarsest scale."""
    return tf.clip_by_value(resampling.resize(tf.constant(initial), size), 0.0, 1.0)


def _pink_noise(size: Size, seed: int) -> np.ndarray:
    """Returns noise [H, W, 3] around .5 whose spectrum falls like 1/f, as pictures' do."""
    white = np.random.default_rng(seed).standard_normal((*size, 3))
    rows, columns = np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1])[None, :]
    gain = 1.0 / np.maximum(np.hypot(rows, columns), 1.0 / max(size))
    gain[0, 0] = 0.0
    noise = np.fft.irfft2(np.fft.rfft2(white, axes=(0, 1)) * gain[..., None], s=size, axes=(0, 1))
    return np.clip(0.5 + 0.15 * noise / noise.std(), 0.0, 1.0).astype(np.float32)
