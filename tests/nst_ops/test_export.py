"""Exported networks: run in their targets' own runtimes, they paint what Keras paints."""

import json

import numpy as np
import pytest

from nst_ops.errors import InputError
from nst_ops.export import formats
from nst_ops.export.onnx import onnx_passes, to_onnx
from nst_ops.export.tflite import tflite_passes, to_tflite
from nst_ops.export.verification import (
    FLOAT,
    INT8,
    Comparison,
    check,
    compare,
    sample_photos,
)
from nst_ops.network.facts import EMBEDDED, LearnedStyle, NetworkFacts
from nst_ops.network.layout import LARGEST_WHOLE
from nst_ops.network.model import load_network
from nst_ops.network.painter import Painter

from .test_network import random_network

SIZES = [(64, 96), (61, 95), (33, 34), (1, 7), (40, 2000)]  # the last in tiles


def facts_of(styles: int, width: int, blocks: int) -> NetworkFacts:
    named = tuple(LearnedStyle(f"style_{number}", f"{number}") for number in range(styles))
    return NetworkFacts(named, width, blocks)


@pytest.fixture(scope="module", params=[(1, 8, 1), (8, 4, 2)], ids=["one style", "eight styles"])
def network(request):
    """A network whose weights are random: float conversions must not care."""
    return random_network(*request.param), facts_of(*request.param)


@pytest.fixture(scope="module")
def embedded():
    return load_network(EMBEDDED)


@pytest.mark.parametrize("format", ["onnx", "tflite", "web"])
def test_every_format_paints_what_keras_paints_at_any_size(network, format):
    model, facts = network
    painter = Painter(model)
    random = np.random.default_rng(0)
    for file in formats.exported(format, "mine", model, facts, ["float16"]):
        passes = file.load(file.data, 2)
        for size in SIZES if file.tiles else SIZES[:-1]:
            photo = random.random((*size, 3), np.float32)
            found = compare(passes, painter, photo, len(facts.styles))
            assert found.size == size
            # Random weights need more digits than 16 bits have; trained ones are stored in them.
            assert found.error < (1e-2 if format == "tflite" else 1e-4)


def test_a_saved_network_loses_nothing_in_16_bits(embedded):
    model, facts = embedded
    painter = Painter(model)
    onnx = to_onnx(model, facts)
    assert len(onnx) < 1_000_000
    photo = sample_photos()[0]
    for passes in (onnx_passes(onnx, 1), tflite_passes(to_tflite(model, int8=False), 1)):
        assert compare(passes, painter, photo, 4).error < 1e-4


def test_eight_bits_are_near_enough_and_small(embedded):
    model, facts = embedded
    data = to_tflite(model, int8=True)
    assert len(data) < 600_000
    found = compare(tflite_passes(data, 2), Painter(model), sample_photos()[0], 4)
    check("mine", [found], INT8)
    assert found.psnr < 80.0  # it is another file


def test_tiles_of_a_photo_meet_without_a_seam_in_8_bits(embedded):
    model, facts = embedded
    large = sample_photos()[-1]
    assert max(large.shape) > LARGEST_WHOLE
    found = compare(tflite_passes(to_tflite(model, int8=True), 2), Painter(model), large, 4)
    check("mine", [found], INT8)


def test_a_tile_is_painted_by_the_moments_of_another_picture(embedded, load):
    import onnxruntime

    model, facts = embedded
    session = onnxruntime.InferenceSession(to_onnx(model, facts, tiles=True))
    style = np.eye(4, dtype=np.float32)[:1]
    image = load("rocket", 192)[None, :64]
    width = image.shape[2]

    def run(image, moments, used):
        given = {"given_moments": moments, "given_used": np.array(used, np.float32)}
        return session.run(["picture", "moments"], {"image": image, "style": style, **given})

    none = np.zeros(session.get_inputs()[2].shape, np.float32)
    whole, moments = run(image, none, 0.0)
    own, _ = run(image, moments, 1.0)
    np.testing.assert_allclose(own, whole, atol=1e-5)
    # Beyond what the network sees from where it was cut, a part is as in the whole, since it is
    # normalised alike.
    part, _ = run(image[:, :, : width // 2], moments, 1.0)
    assert np.abs(part - whole[:, :, : width // 2])[:, :, :8].max() < 1e-4
    apart, _ = run(image[:, :, : width // 2], none, 0.0)
    assert np.abs(apart - whole[:, :, : width // 2])[:, :, :8].max() > 1e-2


def test_a_file_says_what_it_is(embedded):
    import onnx

    model, facts = embedded
    made = onnx.load_model_from_string(to_onnx(model, facts))
    onnx.checker.check_model(made, full_check=True)
    told = {entry.key: entry.value for entry in made.metadata_props}
    assert [style["name"] for style in json.loads(told["nst"])["styles"]] == facts.names


def test_what_differs_is_not_let_through(embedded):
    model, facts = embedded
    passes = onnx_passes(to_onnx(model, facts), 1)
    wrong = passes._replace(whole=lambda image, style: np.full_like(image, np.nan))
    with pytest.raises(InputError, match="mine differs from the network at 169x255 px"):
        check("mine", [compare(wrong, Painter(model), sample_photos()[0], 4)], FLOAT)


@pytest.mark.parametrize("error, psnr", [(2e-3, 60.0), (float("nan"), float("nan"))])
def test_the_tolerance_of_floats_is_of_each_pixel(error, psnr):
    with pytest.raises(InputError, match="allowed is an error of 0.001"):
        check("mine", [Comparison((8, 8), error, psnr, 1.0, 1.0)], FLOAT)


def test_the_tolerance_of_int8_is_of_the_whole_picture():
    check("mine", [Comparison((8, 8), 0.2, 40.1, 1.0, 1.0)], INT8)
    with pytest.raises(InputError, match="39.9 dB; allowed is 40 dB"):
        check("mine", [Comparison((8, 8), 0.01, 39.9, 1.0, 1.0)], INT8)


def test_what_is_not_installed_is_said(monkeypatch):
    monkeypatch.setitem(formats.NEEDED, "onnx", ("no_such_package", "numpy"))
    with pytest.raises(InputError, match=r"needs no_such_package,.*install 'nst\[export\]'"):
        formats.check_installed("onnx")
