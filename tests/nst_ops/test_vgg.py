import numpy as np
import pytest

from nst_ops.coarse_to_fine.schedule import output_size, schedule
from nst_ops.errors import InputError
from nst_ops.settings import Settings
from nst_ops.vgg import weights
from nst_ops.vgg.network import vgg19


def test_features(photo):
    features = vgg19(["block5_conv1", "block1_conv2"])(photo[None])
    assert features["block1_conv2"].shape == (1, *photo.shape[:2], 64)
    assert features["block5_conv1"].shape == (1, photo.shape[0] // 16, photo.shape[1] // 16, 512)
    assert features["block5_conv1"].numpy().min() == 0.0 < features["block5_conv1"].numpy().max()


def test_first_layer_is_vggs_own_arithmetic(photo):
    """Against the network's convention: 0-255, BGR, Caffe means, zeros around."""
    kernel, bias = weights.load_weights().layers["block1_conv1"]
    caffe = photo[..., ::-1] * 255.0 - [103.939, 116.779, 123.68]
    y, x = 20, 30
    patch = caffe[y - 1 : y + 2, x - 1 : x + 2]
    expected = np.maximum(np.einsum("ijc,ijco->o", patch, kernel) + bias, 0.0)
    found = vgg19(["block1_conv1"])(photo[None])["block1_conv1"][0, y, x]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-2)


def test_cut_at_the_deepest_layer():
    assert vgg19(["block2_conv1"]).layers[-1].name == "block2_conv1"


def test_missing_and_unknown_layers():
    with pytest.raises(InputError, match="lack block5_conv2.*imagenet"):
        vgg19(["block5_conv2"])
    with pytest.raises(InputError, match="no layer 'conv1'"):
        vgg19(["conv1"])


@pytest.mark.parametrize("suffix", [".h5", ".weights.h5", ".npz"])
def test_files_of_weights(tmp_path, suffix, photo):
    path = str(tmp_path / f"mine{suffix}")
    original = vgg19(["block3_conv1"])
    if suffix == ".npz":
        layers = weights.load_weights().layers
        np.savez(
            path,
            **{
                f"{n}/{k}": a
                for n, ab in layers.items()
                for k, a in zip(("kernel", "bias"), ab, strict=True)
            },
        )
    elif suffix == ".weights.h5":
        _bgr(original).save_weights(path)
    else:
        _bgr(original).save(path)
    again = vgg19(["block3_conv1"], weights=path)
    np.testing.assert_allclose(
        again(photo[None])["block3_conv1"], original(photo[None])["block3_conv1"], rtol=1e-5
    )


def _bgr(model):
    """A model with the kernels in the files' channel order."""
    import keras

    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    layer = copy.get_layer("block1_conv1")
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel[:, :, ::-1], bias])
    return copy


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.npz", None, "cannot read"),
        ("html.h5", b"<html>", "not readable as network weights"),
        ("cut.npz", weights.EMBEDDED.read_bytes()[:5000], "not readable"),
    ],
)
def test_damaged_weights(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=f"{name}.*{message}"):
        weights.load_weights(str(path))


def test_foreign_weights(tmp_path):
    path = tmp_path / "other.npz"
    np.savez(
        path, **{"block1_conv1/kernel": np.zeros((5, 5, 3, 8)), "block1_conv1/bias": np.zeros(8)}
    )
    with pytest.raises(InputError, match="another network's"):
        weights.load_weights(str(path))


def test_embedded_weights_are_verified(monkeypatch, tmp_path):
    changed = tmp_path / "vgg.npz"
    changed.write_bytes(weights.EMBEDDED.read_bytes() + b"x")
    monkeypatch.setattr(weights, "EMBEDDED", changed)
    with pytest.raises(InputError, match="SHA-256.*reinstall"):
        weights.load_weights.__wrapped__("embedded")


def test_schedule_is_coarse_to_fine_and_exact():
    plans = schedule((341, 512), Settings(size=512))
    assert [p.size for p in plans] == [(85, 128), (170, 256), (341, 512)]
    assert [p.steps for p in plans] == sorted((p.steps for p in plans), reverse=True)
    assert output_size((2000, 3001), Settings(size=512)) == (341, 512)
    assert output_size((200, 300), Settings(size=512)) == (200, 300)
    assert output_size((200, 300), Settings(size=600, enlarge=True)) == (400, 600)
    with pytest.raises(InputError, match="at least 32 px"):
        output_size((20, 400), Settings())
