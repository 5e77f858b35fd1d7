"""Files of weights: layouts made by older Keras, and what is wrong with files."""

import hashlib

import h5py
import numpy as np
import pytest

from nst_ops.errors import InputError
from nst_ops.vgg import weights
from nst_ops.vgg.network import vgg19

FIRST = ("block1_conv1", "block1_conv2")


def layers(seed=0, names=FIRST):
    rng = np.random.default_rng(seed)
    return {
        name: (
            rng.normal(size=(3, 3, *weights.CHANNELS[name])).astype(np.float32),
            rng.normal(size=weights.CHANNELS[name][1]).astype(np.float32),
        )
        for name in names
    }


def write_npz(path, found):
    flat = {
        f"{n}/{k}": a
        for n, ab in found.items()
        for k, a in zip(("kernel", "bias"), ab, strict=True)
    }
    np.savez(path, **flat)


@pytest.mark.parametrize(
    "layout",
    [
        "{name}/{name}/{part}:0",  # Keras 2, save_weights
        "model_weights/{name}/{name}/{part}:0",  # Keras 2, save
        "{name}/{name}_{letter}_1:0",  # keras.applications' download
        "layers/{name}/vars/{index}",  # Keras 3
        "layers/functional/layers/conv2d{number}/vars/{index}",  # Keras 3, layers renamed
    ],
)
def test_layouts_of_h5(tmp_path, layout):
    expected = layers()
    path = tmp_path / "vgg.h5"
    with h5py.File(path, "w") as file:
        for number, (name, arrays) in enumerate(expected.items()):
            for index, array in enumerate(arrays):
                file[
                    layout.format(
                        name=name,
                        part=("kernel", "bias")[index],
                        letter="Wb"[index],
                        index=index,
                        number=f"_{number}" if number else "",
                    )
                ] = array
        # What `model.save` adds of a network that was trained, and is no weight.
        for name, (kernel, _) in expected.items():
            file[f"optimizer_weights/training/Adam/{name}/kernel/m:0"] = np.ones_like(kernel)
    found = weights.load_weights(str(path))
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert list(found.layers) == list(expected)
    for name, arrays in expected.items():
        for a, b in zip(found.layers[name], arrays, strict=True):
            np.testing.assert_array_equal(a, b)


def test_npz_with_doubles_becomes_float32(tmp_path):
    path = tmp_path / "mine.npz"
    write_npz(path, {n: tuple(a.astype(np.float64) for a in ab) for n, ab in layers().items()})
    kernel, bias = weights.load_weights(str(path)).layers["block1_conv2"]
    assert kernel.dtype == bias.dtype == np.float32
    np.testing.assert_array_equal(kernel, layers()["block1_conv2"][0])


def test_embedded_reach_block5_conv1():
    loaded = weights.load_weights()
    assert loaded.sha256 == weights.EMBEDDED_SHA256
    assert tuple(loaded.layers) == weights.LAYERS[: weights.LAYERS.index("block5_conv1") + 1]
    assert all(np.isfinite(a).all() for ab in loaded.layers.values() for a in ab)


def test_features_of_own_weights_differ(tmp_path, load):
    path, photo = tmp_path / "mine.npz", load("cat", 64)[None]
    write_npz(path, layers(7))
    own, usual = (
        vgg19(["block1_conv2"], weights=w)(photo)["block1_conv2"] for w in (str(path), "embedded")
    )
    assert own.shape == usual.shape and own.numpy().min() >= 0.0
    assert np.abs(own - usual).max() > 1.0


def test_a_file_that_stops_short_of_a_layer(tmp_path):
    path = tmp_path / "short.npz"
    write_npz(path, layers())
    with pytest.raises(InputError, match="end at block1_conv2 and lack block2_conv1"):
        vgg19(["block2_conv1"], weights=str(path))


def test_average_pooling_is_another_network(load):
    photo = load("cat", 64)[None]
    one, two = (
        vgg19(["block2_conv1"], pooling=p)(photo)["block2_conv1"] for p in ("max", "average")
    )
    assert one.shape == two.shape and np.abs(one - two).max() > 1.0


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_features_come_in_the_precision_asked_for(load, precision):
    photo = load("cat", 64)[None]
    exact = vgg19(["block1_conv2"])(photo)["block1_conv2"].numpy()
    features = vgg19(["block1_conv2"], precision=precision)(photo)["block1_conv2"]
    assert features.dtype == precision
    error = np.abs(np.asarray(features, np.float32) - exact)
    assert error.mean() < 0.02 * exact.mean() and error.max() > 0.0


def test_frozen_and_made_once():
    model = vgg19(["block1_conv1"])
    assert not model.trainable_weights and model.weights
    assert vgg19(("block1_conv1", "block1_conv1")) is model


def test_bad_arguments():
    with pytest.raises(InputError, match="'median' is unknown; use max or average"):
        vgg19(["block1_conv1"], pooling="median")
    with pytest.raises(InputError, match="no layer was asked for"):
        vgg19([])


def test_values_that_are_not_finite(tmp_path):
    path, found = tmp_path / "nan.npz", layers()
    found["block1_conv2"][1][3] = np.nan
    write_npz(path, found)
    with pytest.raises(InputError, match="nan.npz: block1_conv2 holds values that are not finite"):
        weights.load_weights(str(path))


@pytest.mark.parametrize("suffix", ["npz", "h5"])
def test_a_file_of_something_else(tmp_path, suffix):
    path = tmp_path / f"other.{suffix}"
    if suffix == "npz":
        np.savez(path, dense=np.zeros(3))
    else:
        with h5py.File(path, "w") as file:
            file["dense/kernel:0"] = np.zeros((3, 4))
    with pytest.raises(InputError, match=f"other.{suffix}: holds no layer of VGG19"):
        weights.load_weights(str(path))


def test_no_pickles(tmp_path):
    """An .npz of objects would run code on loading."""
    path = tmp_path / "pickle.npz"
    np.savez(path, **{"block1_conv1/bias": np.array([{}]), "block1_conv1/kernel": np.array([{}])})
    with pytest.raises(InputError, match="not readable as network weights"):
        weights.load_weights(str(path))


def test_a_truncated_h5(tmp_path):
    path = tmp_path / "cut.h5"
    with h5py.File(path, "w") as file:
        for name, arrays in layers().items():
            for part, array in zip(("kernel", "bias"), arrays, strict=True):
                file[f"{name}/{part}:0"] = array
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputError, match="cut.h5: not readable"):
        weights.load_weights(str(path))


def test_a_gradient_reaches_the_picture(load):
    import tensorflow as tf

    photo = tf.constant(load("cat", 64)[None])
    with tf.GradientTape() as tape:
        tape.watch(photo)
        value = tf.reduce_sum(vgg19(["block2_conv1"])(photo)["block2_conv1"])
    gradient = tape.gradient(value, photo).numpy()
    assert gradient.shape == photo.shape and np.mean(gradient != 0.0) > 0.9
