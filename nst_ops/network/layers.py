"""The layers of a painting network, and the order in which they are applied.

The shape is that of Johnson et al. 2016, with conditional instance normalisation (Dumoulin et al.
2017), so that one network holds many styles and blends them. It departs from the papers where
phones ask for it: borders are padded with zeros inside, since each mirrored border would be an
operation of its own there (the picture is mirrored outside, see `paint`); the normalisation is
written in plain arithmetic; enlarging is a `depth_to_space`, which works at any size; and the first
and the last convolution see 5 x 5 px, not 9 x 9, which takes a third less time.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

_OUTER = 5  # px, sides of the first and last convolution
_EPSILON = 1e-5


class Moments(NamedTuple):
    """Holds the mean and the variance of a feature map's channels, [B, 1, 1, C] each."""

    mean: tf.Tensor
    variance: tf.Tensor


@keras.saving.register_keras_serializable("nst")
class ConditionalInstanceNorm(keras.layers.Layer):
    """Brings the channels of each picture to a mean and a spread that the style decides.

    Args:
      styles: how many styles there are.
    """

    def __init__(self, styles: int, **options: Any):
        super().__init__(**options)
        self.styles = styles

    def build(self, input_shape: Any) -> None:
        """Makes a spread and a mean for each style and channel."""
        shape = (self.styles, input_shape[-1])
        self.gamma = self.add_weight(name="gamma", shape=shape, initializer="ones")
        self.beta = self.add_weight(name="beta", shape=shape, initializer="zeros")

    def call(
        self, features: tf.Tensor, style: tf.Tensor, moments: Sequence[tf.Tensor] = ()
    ) -> tf.Tensor:
        """Returns the features normalised.

        Args:
          features: [B, H, W, C].
          style: the weight of each style, [B, styles], with sum 1.
          moments: mean and variance [B, 1, 1, C] to normalise by; empty: those of the features.
        """
        mean, variance = moments or channel_moments(features)
        gamma = tf.matmul(style, self.gamma)[:, None, None]
        beta = tf.matmul(style, self.beta)[:, None, None]
        return (features - mean) * (tf.math.rsqrt(variance + _EPSILON) * gamma) + beta

    def get_config(self) -> dict[str, Any]:
        """Returns what `__init__` takes."""
        return {**super().get_config(), "styles": self.styles}


def channel_moments(features: tf.Tensor) -> Moments:
    """Returns the moments of each picture's channels."""
    mean = tf.reduce_mean(features, axis=[1, 2], keepdims=True)
    deviation = features - mean
    return Moments(mean, tf.reduce_mean(deviation * deviation, axis=[1, 2], keepdims=True))


@keras.saving.register_keras_serializable("nst")
class Enlarge(keras.layers.Layer):
    """Doubles height and width: each position becomes 2 x 2 equal ones."""

    def call(self, features: tf.Tensor) -> tf.Tensor:
        """Returns [B, 2 H, 2 W, C]."""
        return tf.nn.depth_to_space(tf.concat([features] * 4, axis=-1), 2)


Layers = Callable[[str], Any]  # a layer, by its name
Normalize = Callable[[str, tf.Tensor], tf.Tensor]  # (name of the layer, features) -> features


def make_layers(styles: int, width: int, blocks: int, seed: int) -> Iterator[keras.layers.Layer]:
    """Yields all layers of a new network, by the names under which `apply` looks for them.

    Args:
      styles: how many styles it will hold.
      width: channels at full size; twice as many at half size, four times at a quarter.
      blocks: residual blocks.
      seed: of the weights. Each layer has its own, so that no global state is touched.
    """
    seeds = itertools.count(1000 * seed)

    def convolution(name: str, channels: int, side: int, stride: int = 1) -> keras.layers.Layer:
        # What a bias adds, the normalisation would take away again.
        return keras.layers.Conv2D(
            channels,
            side,
            stride,
            padding="same",
            use_bias=name == "paint",
            kernel_initializer=keras.initializers.GlorotUniform(next(seeds)),
            name=name,
        )

    yield convolution("look", width, _OUTER)
    yield convolution("shrink_1", 2 * width, 3, 2)
    yield convolution("shrink_2", 4 * width, 3, 2)
    for block in range(1, blocks + 1):
        yield convolution(f"block_{block}_a", 4 * width, 3)
        yield convolution(f"block_{block}_b", 4 * width, 3)
    yield Enlarge(name="enlarge")
    yield convolution("enlarge_1", 2 * width, 3)
    yield convolution("enlarge_2", width, 3)
    yield convolution("paint", 3, _OUTER)
    for name in normalized(blocks):
        yield ConditionalInstanceNorm(styles, name=f"{name}_norm")


def count_blocks(model: keras.Model) -> int:
    """Returns how many residual blocks a network has."""
    return sum(re.fullmatch(r"block_\d+_a", layer.name) is not None for layer in model.layers)


def normalized(blocks: int) -> list[str]:
    """Returns the names of the convolutions that a normalisation follows, in their order."""
    inner = [f"block_{block}_{half}" for block in range(1, blocks + 1) for half in "ab"]
    return ["look", "shrink_1", "shrink_2", *inner, "enlarge_1", "enlarge_2"]


def apply(layers: Layers, blocks: int, normalize: Normalize, images: tf.Tensor) -> tf.Tensor:
    """Paints images in one pass.

    Args:
      layers: the network's layers.
      blocks: how many residual blocks it has.
      normalize: applies the normalisation that follows the convolution of this name.
      images: [B, H, W, 3], sRGB in [0, 1], sides multiples of `STRIDE`.

    Returns:
      [B, H, W, 3] in (0, 1).
    """

    def convolve(name: str, features: tf.Tensor) -> tf.Tensor:
        return normalize(name, layers(name)(features))

    x: Any = 2.0 * images - 1.0  # Keras says of its operations that they return nothing
    for name in ("look", "shrink_1", "shrink_2"):
        x = keras.ops.relu(convolve(name, x))
    for block in range(1, blocks + 1):
        inner = keras.ops.relu(convolve(f"block_{block}_a", x))
        x = x + convolve(f"block_{block}_b", inner)
    for name in ("enlarge_1", "enlarge_2"):
        x = keras.ops.relu(convolve(name, layers("enlarge")(x)))
    return keras.ops.sigmoid(layers("paint")(x))
