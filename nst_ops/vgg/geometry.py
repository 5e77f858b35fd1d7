"""How the positions of a feature map lie on the image. Tiles, octaves and smallest sizes follow
from it. For VGG19 it is arithmetic, without TensorFlow; for any other model it is read from the
layers.
"""

import functools
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from nst_ops.errors import InputError
from nst_ops.vgg.weights import LAYERS

if TYPE_CHECKING:
    import keras

_TILE_ALIGNMENT = 16  # px, at least


class LayerGeometry(NamedTuple):
    """Describes a layer's feature map, with a position for each cell of `stride` x `stride` px."""

    stride: int
    # Pixels that a position sees beyond its own cell, to each side. None: a part of the image does
    # not give the same features as the whole, so that the layer cannot be computed in tiles.
    reach: int | None
    cut: int = 0  # px lost to convolutions without padding, at both borders together


@functools.cache
def vgg19_geometry(layer: str) -> LayerGeometry:
    """Returns the geometry of a VGG19 layer, such as `block4_conv2`. All convolutions are 3 x 3,
    and each block but the first begins with 2 x 2 pooling.
    """
    reach = sum(_vgg19_stride(name) for name in LAYERS[: LAYERS.index(layer) + 1])
    return LayerGeometry(_vgg19_stride(layer), reach)


def _vgg19_stride(layer: str) -> int:
    return 2 ** (int(layer[5]) - 1)


def least_side(layers: Iterable[LayerGeometry]) -> int:
    """Returns the shortest side in px that leaves the coarsest layer two positions, the fewest that
    can show a texture.
    """
    return max(2 * layer.stride + layer.cut for layer in layers)


def margin(layers: Iterable[LayerGeometry]) -> int:
    """Returns how many px around a tile must be computed with it, a multiple of `alignment`.

    Raises:
      InputError: a layer cannot be computed in tiles.
    """
    layers = list(layers)
    reaches = [layer.reach for layer in layers if layer.reach is not None]
    if len(reaches) < len(layers):
        raise InputError(
            "tile: this model cannot be computed in tiles, since parts of an image do not give the "
            "features of the whole; only unpadded pooling, and convolutions of stride 1 with "
            "`same` padding, do"
        )
    step = alignment(layers)
    return -(-max(1, *reaches) // step) * step  # at least 1: total variation sees the next pixel


def alignment(layers: Iterable[LayerGeometry]) -> int:
    """Returns the number of px at whose multiples tiles must begin, so that their positions
    coincide with those of the whole.
    """
    return math.lcm(_TILE_ALIGNMENT, *(layer.stride for layer in layers))


def model_geometry(model: "keras.Model", layers: Iterable[str]) -> dict[str, LayerGeometry]:
    """Returns the geometry of these outputs of a Keras model, from its layers' configuration.

    Raises:
      InputError: an output is no feature map.
    """
    known = _traced(model)
    found = {}
    side = 20_160  # px; has many divisors, so that strides divide it without remainder
    try:
        shapes = model.compute_output_shape((1, side, side, 3))
    except Exception as error:  # Keras raises many kinds
        raise InputError(
            f"the model takes no images [B, H, W, 3] of any size ({error}); use one of shape "
            "(None, None, 3)"
        ) from error
    for layer in layers:
        shape = shapes[layer]
        if len(shape) != 4 or not shape[1]:
            raise InputError(
                f"the model's output {layer!r} has shape {tuple(shape)}; expected a feature map "
                "[B, h, w, C]"
            )
        stride = max(1, round(side / shape[1]))
        traced = known.get(id(model.output[layer]))
        found[layer] = traced or LayerGeometry(stride, None, max(0, side - stride * shape[1]))
    return found


def _traced(model: "keras.Model") -> dict[int, LayerGeometry]:
    """Returns geometries by the `id` of the model's symbolic tensors. Those behind layers that do
    not allow tiles are left out.
    """
    import keras

    known = {id(tensor): LayerGeometry(1, 0) for tensor in keras.tree.flatten(model.inputs)}
    for layer in model.layers:
        try:
            inputs = keras.tree.flatten(layer.input)
            outputs = keras.tree.flatten(layer.output)
        except (AttributeError, ValueError):  # the layer is used twice, or never
            continue
        before = [known.get(id(tensor)) for tensor in inputs]
        geometries = [geometry for geometry in before if geometry is not None]
        strides = {geometry.stride for geometry in geometries}
        if len(geometries) < len(before) or len(strides) != 1 or len(outputs) != 1:
            continue
        after = _after(layer, strides.pop(), max(g.reach or 0 for g in geometries))
        if after is not None:
            known.setdefault(id(outputs[0]), after)
    return known


def _after(layer: Any, stride: int, reach: int) -> LayerGeometry | None:
    """Returns the geometry of a layer's output from that of its inputs; None if the layer does not
    allow tiles.
    """
    from keras import layers

    if isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D | layers.SeparableConv2D):
        same = layer.padding == "same" and set(layer.strides) == {1}
        sizes = zip(layer.kernel_size, layer.dilation_rate, strict=True)
        seen = max((size - 1) * dilation for size, dilation in sizes)
        # An even kernel sees one position more to the right.
        return LayerGeometry(stride, reach + stride * -(-seen // 2)) if same else None
    if isinstance(layer, layers.MaxPooling2D | layers.AveragePooling2D):
        factors = {*layer.pool_size, *layer.strides}
        apart = layer.padding == "valid" and len(factors) == 1
        return LayerGeometry(stride * factors.pop(), reach) if apart else None
    pointwise = (
        layers.InputLayer,
        layers.Activation,
        layers.ReLU,
        layers.LeakyReLU,
        layers.ELU,
        layers.Rescaling,
        layers.Normalization,
        layers.BatchNormalization,
        layers.Dropout,
        layers.Identity,
        layers.Add,
        layers.Subtract,
        layers.Multiply,
        layers.Average,
        layers.Maximum,
        layers.Concatenate,
    )
    return LayerGeometry(stride, reach) if isinstance(layer, pointwise) else None
