"""Style statistics: the Gram matrix of a feature map. Its normalisation is decided here alone."""

from collections.abc import Callable

import tensorflow as tf


def gram_matrix(features: tf.Tensor) -> tf.Tensor:
    """Returns the channel correlations of a feature map, averaged over positions.

    This is eq. 3 of Gatys et al. 2016, but divided by H*W so that the value does not depend on the
    size of the image.

    Args:
      features: [B, H, W, C], any float type; accumulated in float32, since a sum over 1e5 positions
        in bfloat16 has been measured to change the loss by a factor of two.

    Returns:
      [B, C, C] float32, symmetric.
    """
    shape = tf.shape(features)
    return gram_sum(features) / tf.cast(shape[1] * shape[2], tf.float32)


def gram_sum(features: tf.Tensor) -> tf.Tensor:
    """Returns `gram_matrix` before the mean is taken: the sums of tiles add up to the whole's."""
    shape = tf.shape(features)
    channels = features.shape[-1]
    flat = tf.reshape(tf.cast(features, tf.float32), [shape[0], shape[1] * shape[2], channels])
    return tf.ensure_shape(_self_product(flat), [features.shape[0], channels, channels])


@tf.custom_gradient
def _self_product(flat: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """Returns F^T F for F [B, N, C]. Its gradient is one product, F (U + U^T); autodiff has two."""

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        return tf.matmul(flat, upstream + tf.linalg.matrix_transpose(upstream))

    return tf.matmul(flat, flat, transpose_a=True), gradient
