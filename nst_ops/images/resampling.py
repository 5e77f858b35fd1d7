"""Resampling of image batches: octaves of a picture, and resizing between scales."""

import tensorflow as tf

from nst_ops.images.size import Size

# Burt & Adelson 1983, the 5-tap binomial: its spectrum is near zero where subsampling would alias.
_BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


def resize(images: tf.Tensor, size: Size) -> tf.Tensor:
    """Resizes images with a bicubic (Catmull-Rom) filter, antialiased where it shrinks.

    Args:
      images: [B, H, W, C] float32, any range; the result may overshoot it a little.

    Returns:
      [B, *size, C] float32; `images` themselves if they have that size.
    """
    if tuple(images.shape[1:3]) == tuple(size):
        return images
    images = tf.cast(images, tf.float32)
    return tf.image.resize(images, size, method="bicubic", antialias=True)


def octaves(images: tf.Tensor, count: int) -> list[tf.Tensor]:
    """Returns a Gaussian pyramid (Burt & Adelson 1983): each octave is the one before, blurred and
    halved.

    It is differentiable, and made of convolutions only, so that it costs little beside the network.

    Args:
      images: [B, H, W, C] float32.

    Returns:
      `count` tensors, full size first; sides are halved and rounded up. Borders are mirrored, so
      that they do not darken.
    """
    levels = [images]
    for _ in range(count - 1):
        levels.append(_halve(levels[-1]))
    return levels


def _halve(images: tf.Tensor) -> tf.Tensor:
    channels = images.shape[-1]
    taps = tf.constant(_BINOMIAL, images.dtype)
    kernel = tf.tile(tf.reshape(tf.tensordot(taps, taps, 0), [5, 5, 1, 1]), [1, 1, channels, 1])
    padded = tf.pad(images, [[0, 0], [2, 2], [2, 2], [0, 0]], mode="REFLECT")
    return tf.nn.depthwise_conv2d(padded, kernel, strides=[1, 2, 2, 1], padding="VALID")
