"""VGG19 as a feature extractor: images in, `{layer: [B, h, w, C]}` out.

The only place that knows the network's own input convention (0-255, BGR, Caffe means). Any other
Keras model from images to a dict of feature maps may stand in its place.
"""

import weakref
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nst_ops.errors import InputError
from nst_ops.vgg.weights import LAYERS, layer_weights, load_weights

_MEAN_RGB = (123.68, 116.779, 103.939)  # ImageNet's, as in keras.applications (mode "caffe")
_POOLS = {"max": keras.layers.MaxPooling2D, "average": keras.layers.AveragePooling2D}


def vgg19(
    layers: Iterable[str],
    *,
    weights: str = "embedded",
    pooling: str = "max",
    precision: str = "float32",
) -> keras.Model:
    """Returns VGG19 (Simonyan & Zisserman 2014) up to the deepest of `layers`. The same arguments
    give the same model, as long as a caller still holds it.

    Args:
      layers: Keras's layer names, `block1_conv1` ... `block5_conv4`; features are taken after the
        ReLU.
      weights: see `nst_ops.vgg.weights.load_weights`.
      pooling: `max` as trained, or `average` (Gatys et al. 2016: smoother gradients).
      precision: `float32`, `bfloat16` or `float16`, of the convolutions and of the features.

    Returns:
      A frozen `keras.Model`: float32 `[B, H, W, 3]` images, sRGB in [0, 1], any size of at least 16
      px, to `{layer: [B, h, w, C]}` in `precision`.

    Raises:
      InputError: a layer or the pooling is unknown, or the weights lack a layer.
    """
    key = tuple(sorted(set(layers))), weights, pooling, precision
    model = _models.get(key)
    if model is None:
        model = _models[key] = _vgg19(*key)
    return model


_models: weakref.WeakValueDictionary[Any, keras.Model] = weakref.WeakValueDictionary()


def _vgg19(layers: tuple[str, ...], weights: str, pooling: str, precision: str) -> keras.Model:
    if pooling not in _POOLS:
        raise InputError(f"pooling: {pooling!r} is unknown; use {' or '.join(_POOLS)}")
    if not layers:
        raise InputError("no layer was asked for; name at least one, such as block1_conv1")
    loaded = load_weights(weights)
    for layer in layers:
        layer_weights(loaded, layer)  # raises for a layer that is not there
    deepest = max(LAYERS.index(layer) for layer in layers)

    x = inputs = keras.Input((None, None, 3), dtype="float32")
    # The means are subtracted in float32: at 0-255, bfloat16's 8 bits of mantissa would round each
    # pixel.
    x = keras.layers.Rescaling(255.0, offset=[-mean for mean in _MEAN_RGB], dtype="float32")(x)
    outputs = {}
    for name in LAYERS[: deepest + 1]:
        if name.endswith("_conv1") and name != LAYERS[0]:
            x = _POOLS[pooling](2, dtype=precision)(x)
        kernel, bias = layer_weights(loaded, name)
        if name == LAYERS[0]:
            kernel = np.ascontiguousarray(kernel[:, :, ::-1])  # BGR weights, RGB images
        convolution = MirroredConv2D(
            kernel.shape[-1], 3, padding="same", activation="relu", dtype=precision, name=name
        )
        x = convolution(x)
        convolution.set_weights([kernel, bias])
        if name in layers:
            outputs[name] = x
    model = keras.Model(inputs, outputs, name="vgg19")
    model.trainable = False
    return model


class MirroredConv2D(keras.layers.Conv2D):
    """Convolves as with `same` padding, but mirrors its input at the border.

    Zeros there look to the network like something that no painting has; an optimizer makes up for
    it by a rim of greyed pixels.
    """

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        mirrored = tf.pad(inputs, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
        return tf.nn.conv2d(mirrored, kernel, 1, "VALID")
