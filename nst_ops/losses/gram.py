"""Style statistics: the Gram matrix of a feature map. Its normalisation is decided here alone."""

from collections.abc import Callable

import tensorflow as tf


def gram_matrix(features: tf.Tensor, weights: tf.Tensor | None = None) -> tf.Tensor:
    """Returns the channel correlations of a feature map, averaged over positions.

    This is eq. 3 of Gatys et al. 2016, but divided by H*W so that the value does not depend on the
    size of the image; with weights, the guided Gram matrix of Gatys et al. 2017.

    Args:
      features: [B, H, W, C], any float type; accumulated in float32, since a sum over 1e5 positions
        in bfloat16 has been measured to change the loss by a factor of two.
      weights: of each position in the mean, [B, H, W, 1] float32, whose sum is 1; None: all alike.

    Returns:
      [B, C, C] float32, symmetric.
    """
    if weights is not None:
        return gram_sum(features, weights)
    shape = tf.shape(features)
    return gram_sum(features) / tf.cast(shape[1] * shape[2], tf.float32)


def gram_sum(features: tf.Tensor, weights: tf.Tensor | None = None) -> tf.Tensor:
    """Returns the (weighted) sum over positions. The sums of tiles add up to the whole's."""
    shape = tf.shape(features)
    channels = features.shape[-1]
    flat = tf.reshape(tf.cast(features, tf.float32), [shape[0], shape[1] * shape[2], channels])
    if weights is None:
        product = _self_product(flat)
    else:
        product = _weighted_product(flat, tf.reshape(weights, [shape[0], -1, 1]))
    return tf.ensure_shape(product, [features.shape[0], channels, channels])


@tf.custom_gradient
def _self_product(flat: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """Returns F^T F for F [B, N, C]. Its gradient is one product, F (U + U^T); autodiff has two."""

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        return tf.matmul(flat, upstream + tf.linalg.matrix_transpose(upstream))

    return tf.matmul(flat, flat, transpose_a=True), gradient


@tf.custom_gradient
def _weighted_product(
    flat: tf.Tensor, weights: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, None]]]:
    """Returns F^T W F for F [B, N, C] and the diagonal W [B, N, 1], which is constant. No weighted
    copy of F is kept for the gradient, W F (U + U^T).
    """

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
        return weights * tf.matmul(flat, upstream + tf.linalg.matrix_transpose(upstream)), None

    return tf.matmul(weights * flat, flat, transpose_a=True), gradient
