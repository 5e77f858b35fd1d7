"""What a model says of its own features, and what follows from it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from nst_ops.coarse_to_fine import loop
from nst_ops.errors import InputError
from nst_ops.settings import Settings
from nst_ops.vgg.geometry import LayerGeometry, least_side, margin, model_geometry, vgg19_geometry
from nst_ops.vgg.network import vgg19
from nst_ops.vgg.weights import LAYERS


def model(*layers, names=("fine", "coarse")):
    """A chain of layers; the last two that are not pooling are its outputs."""
    x = inputs = keras.Input((None, None, 3))
    features = []
    for layer in layers:
        x = layer(x)
        features.append(x)
    return keras.Model(inputs, dict(zip(names, features[-len(names) :], strict=True)))


def conv(channels=4, size=3, **options):
    seeded = keras.initializers.GlorotUniform(seed=channels + size)
    options = {"padding": "same", "activation": "relu", "kernel_initializer": seeded} | options
    return keras.layers.Conv2D(channels, size, **options)


def test_vgg19_by_arithmetic_and_by_its_layers():
    found = model_geometry(vgg19(LAYERS[:13]), LAYERS[:13])
    assert found == {layer: vgg19_geometry(layer) for layer in LAYERS[:13]}
    assert found["block5_conv1"] == LayerGeometry(16, 70)


@pytest.mark.parametrize(
    ("layers", "fine", "coarse"),
    [
        ([conv(), keras.layers.MaxPooling2D(3)], (1, 1), (3, 1)),
        ([conv(size=5), conv(dilation_rate=2)], (1, 2), (1, 4)),
        ([keras.layers.AveragePooling2D(4), conv(size=2)], (4, 0), (4, 4)),
        ([conv(strides=2), conv()], (2, None), (2, None)),
        ([conv(padding="valid"), conv()], (1, None, 2), (1, None, 2)),
        ([keras.layers.MaxPooling2D(3, 2), conv()], (2, None, 2), (2, None, 2)),
        ([conv(), keras.layers.GroupNormalization(2)], (1, 1), (1, None)),
        ([conv(), keras.layers.BatchNormalization()], (1, 1), (1, 1)),
    ],
)
def test_other_networks(layers, fine, coarse):
    found = model_geometry(model(*layers), ["fine", "coarse"])
    assert found == {"fine": LayerGeometry(*fine), "coarse": LayerGeometry(*coarse)}


def test_branches_meet_with_the_wider_view():
    inputs = keras.Input((None, None, 3))
    narrow, wide = conv(size=1)(inputs), conv(size=7)(inputs)
    together = keras.layers.Concatenate()([narrow, wide])
    found = model_geometry(keras.Model(inputs, {"both": together}), ["both"])
    assert found["both"] == LayerGeometry(1, 3)


def test_an_output_that_is_no_feature_map():
    flat = model(conv(), keras.layers.GlobalAveragePooling2D())
    with pytest.raises(InputError, match=r"'coarse' has shape \(1, 4\); expected a feature map"):
        model_geometry(flat, ["fine", "coarse"])


def test_what_follows():
    layers = [LayerGeometry(1, 3), LayerGeometry(24, 50)]
    assert least_side(layers) == 48
    assert margin(layers) == 96  # tiles begin at multiples of 48
    assert margin([LayerGeometry(1, 0)]) == 16  # total variation sees one pixel more
    assert least_side([LayerGeometry(1, None, 16)]) == 18
    with pytest.raises(InputError, match="cannot be computed in tiles"):
        margin([*layers, LayerGeometry(2, None)])


def own_settings(**changes):
    values = {
        "attention_weight": 0.0,
        "content_layers": ["coarse"],
        "style_layers": ["fine", "coarse"],
        "precision": "float32",
        "scales": [{"size": 96, "steps": 4}],
        "tolerance": 0.0,
    }
    return Settings.model_validate(values | changes)


@pytest.mark.parametrize("pool", [3, 2])
def test_tiles_of_another_network_give_the_whole_picture(load, pool):
    """Its layers have other names and strides than VGG19's."""
    network = model(conv(8), keras.layers.MaxPooling2D(pool), conv(6), names=("pooled", "coarse"))
    chosen = own_settings(style_layers=["pooled", "coarse"], octaves=[1.0, 1.0])
    pair = load("coffee", 96), [load("pere_tanguy", 96)]
    whole = loop.run(*pair, chosen, model=network)
    tiled = loop.run(*pair, chosen, model=network, tile=48)
    np.testing.assert_allclose(tiled.images, whole.images, atol=0.01)
    np.testing.assert_allclose(
        tiled.reports[0].losses["total"], whole.reports[0].losses["total"], rtol=1e-3
    )
    assert whole.reports[0].losses["total"] < whole.reports[0].curve[0][2]


def test_a_network_without_tiles_says_so(load):
    network = model(conv(strides=2), conv())
    pair = load("coffee", 96), [load("pere_tanguy", 96)]
    loop.run(*pair, own_settings(), model=network)
    with pytest.raises(InputError, match="tile: this model cannot be computed in tiles"):
        loop.run(*pair, own_settings(), model=network, tile=48)


def test_total_variation_across_tiles_of_a_network_that_sees_no_neighbours(load):
    network = model(conv(size=1), conv(size=1))
    pair = load("coffee", 96), [load("pere_tanguy", 96)]
    whole = loop.run(*pair, own_settings(tv_weight=1e4), model=network)
    tiled = loop.run(*pair, own_settings(tv_weight=1e4), model=network, tile=32)
    np.testing.assert_allclose(
        tiled.reports[0].curve[0][5], whole.reports[0].curve[0][5], rtol=1e-4
    )
    np.testing.assert_allclose(tiled.images, whole.images, atol=0.02)


def test_models_that_are_none(load):
    pair = load("coffee", 96), [load("pere_tanguy", 96)]
    fixed = keras.Input((64, 64, 3))
    for network in (
        keras.Sequential([conv()]),
        lambda images: {"fine": images},
        keras.Model(fixed, {"fine": conv()(fixed), "coarse": conv()(fixed)}),
    ):
        with pytest.raises(InputError, match="functional keras.Model|takes no images"):
            loop.run(*pair, own_settings(), model=network)


def test_vgg19_without_a_model_lacks_others_layers(load):
    with pytest.raises(InputError, match="no layer 'coarse' in VGG19"):
        loop.run(load("coffee", 96), [load("coffee", 96)], own_settings())


@pytest.mark.parametrize("layer", ["fine", "coarse"])
def test_features_of_a_tile_are_those_of_the_whole(load, layer):
    """The reach that the geometry tells is enough."""
    network = model(conv(size=5), keras.layers.MaxPooling2D(2), conv(6, dilation_rate=2))
    network = keras.Model(
        network.input, {"fine": network.layers[1].output, "coarse": network.layers[-1].output}
    )
    geometry = model_geometry(network, ["fine", "coarse"])[layer]
    image = tf.constant(load("coffee", 96)[None])
    whole = network(image)[layer]
    cut = margin([geometry])
    part = network(image[:, 32 - cut : 48 + cut, 32 - cut : 48 + cut])[layer]
    step, begin = geometry.stride, cut // geometry.stride
    inner = part[:, begin : begin + 16 // step, begin : begin + 16 // step]
    expected = whole[:, 32 // step : 48 // step, 32 // step : 48 // step]
    np.testing.assert_allclose(inner, expected, atol=1e-5)
