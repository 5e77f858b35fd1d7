"""Figures of a stylized picture's quality. Lower is better for all. `swd`, `patch` and `recall`
are at layers that no loss here uses; `gram` and `cin` are near kin of terms of the loss.

* `swd`: how far the picture's textures are from the painting's. Sliced Wasserstein distance of
  feature distributions at layers that no loss here uses, over 256 fixed random directions and 256
  quantiles, over the painting's own spread along these directions; mean over the layers and over
  the picture at full, half and quarter size.
* `gram`: relative Gram distance |G - A| / |A| at the five usual style layers, mean over the same
  sizes.
* `cin`: how much of the photo's structure is gone. Mean squared distance at block4_conv2 between
  instance-normalised features of picture and photo (so that a change of palette or contrast is none
  of structure). 0 is the photo, 2 is an unrelated picture.
* `patch3`, `recall3`, `patch4`, `recall4`: whether strokes hang together as in the painting. At
  block3_conv3 and block4_conv3, features minus the painting's mean, of unit length: `patch` is the
  mean over the picture's positions of 1 - cosine to the most similar position of the painting
  (precision: nothing looks as the painting never does), `recall` the same from the painting to the
  picture (every part of the painting is used).
* `speckle`: mean amplitude of the finest Laplacian band of the luma, relative to the larger of the
  photo's and the painting's: above 1 there is noise that neither has.
"""

import numpy as np
import tensorflow as tf

from nst_ops.images import resampling
from nst_ops.images.size import fit
from nst_ops.losses.gram import gram_matrix
from nst_ops.vgg.network import vgg19

JUDGES = ("block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3")
STYLE = tuple(f"block{block}_conv1" for block in range(1, 6))
CONTENT = "block4_conv2"
_DIRECTIONS = _QUANTILES = 256
LEAST_SIDE = 128  # px, of a picture whose quarter size still says something at block4


def measure(picture: np.ndarray, photo: np.ndarray, painting: np.ndarray) -> dict[str, float]:
    """The figures of a picture `[H, W, 3]` in [0, 1].

    The photo is resized to the picture's size; the painting to its long side, as the default
    settings do.
    """
    size = picture.shape[:2]
    tensors = [tf.constant(image[None], tf.float32) for image in (picture, photo, painting)]
    mine, content, style = (
        tf.clip_by_value(resampling.resize(tensor, wanted), 0.0, 1.0)
        for tensor, wanted in zip(
            tensors, (size, size, fit(painting.shape[:2], max(size))), strict=True
        )
    )
    network = tf.function(vgg19((*JUDGES, *STYLE, CONTENT)), reduce_retracing=True)
    swd, gram = [], []
    for picture_octave, style_octave in zip(
        resampling.octaves(mine, 3), resampling.octaves(style, 3), strict=True
    ):
        found, wanted = network(picture_octave), network(style_octave)
        swd.append(np.mean([_sliced_wasserstein(found[layer], wanted[layer]) for layer in JUDGES]))
        gram.append(np.mean([gram_distance(found[layer], wanted[layer]) for layer in STYLE]))
    found, wanted = network(mine), network(style)
    patches = {}
    for block in (3, 4):
        precision, recall = _patch_distances(*(f[f"block{block}_conv3"] for f in (found, wanted)))
        patches |= {f"patch{block}": precision, f"recall{block}": recall}
    difference = _normalised(found[CONTENT]) - _normalised(network(content)[CONTENT])
    return {
        "swd": float(np.mean(swd)),
        "gram": float(np.mean(gram)),
        "cin": float(tf.reduce_mean(tf.square(difference))),
        **patches,
        "speckle": _finest_band(mine) / max(_finest_band(content), _finest_band(style)),
    }


def _sliced_wasserstein(found: tf.Tensor, wanted: tf.Tensor) -> float:
    channels = found.shape[-1]
    directions = np.random.default_rng(channels).standard_normal((channels, _DIRECTIONS))
    directions /= np.linalg.norm(directions, axis=0)
    levels = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    mine, goal = (
        np.quantile(features.numpy().reshape(-1, channels) @ directions, levels, axis=0)
        for features in (found, wanted)
    )
    return float(np.mean(np.abs(mine - goal)) / np.mean(goal.std(axis=0)))


def _patch_distances(found: tf.Tensor, wanted: tf.Tensor) -> tuple[float, float]:
    """Precision and recall, as 1 - cosine."""
    mean = tf.reduce_mean(wanted, axis=[1, 2], keepdims=True)
    mine, goal = (
        tf.math.l2_normalize(tf.reshape(features - mean, [-1, features.shape[-1]]), axis=-1)
        for features in (found, wanted)
    )
    return _mean_distance(mine, goal), _mean_distance(goal, mine)


def _mean_distance(ours: tf.Tensor, theirs: tf.Tensor) -> float:
    """Of each of ours to the nearest of theirs."""
    nearest = [
        tf.reduce_max(tf.matmul(ours[start : start + 2048], theirs, transpose_b=True), axis=1)
        for start in range(0, ours.shape[0], 2048)
    ]
    return float(1.0 - tf.reduce_mean(tf.concat(nearest, axis=0)))


def gram_distance(found: tf.Tensor, wanted: tf.Tensor) -> float:
    """Relative distance |G - A| / |A| of the Gram matrices of two feature maps [1, h, w, C]."""
    goal = gram_matrix(wanted)
    return float(tf.norm(gram_matrix(found) - goal) / tf.norm(goal))


def _normalised(features: tf.Tensor) -> tf.Tensor:
    mean, variance = tf.nn.moments(features, axes=[1, 2], keepdims=True)
    return (features - mean) / tf.sqrt(variance + 1e-6)


def _finest_band(image: tf.Tensor) -> float:
    luma = tf.reduce_sum(image * [0.299, 0.587, 0.114], axis=-1, keepdims=True)
    coarse = resampling.resize(resampling.octaves(luma, 2)[1], luma.shape[1:3])
    return float(tf.reduce_mean(tf.abs(luma - coarse)))
