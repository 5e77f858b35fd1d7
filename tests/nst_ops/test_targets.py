import numpy as np
import pytest
import tensorflow as tf

from nst_ops import coarse_to_fine, pyramid
from nst_ops.gram import gram_matrix
from nst_ops.objective import Objective
from nst_ops.settings import Settings, StyleScale
from nst_ops.sizes import fit
from nst_ops.targets import Style, TargetCache, style_targets

SETTINGS = Settings(
    octaves=[1.0, 1.0], style_layers=["block1_conv1"], content_layers=["block1_conv1"]
)


class Extractor:
    """Features of a picture are its own colours; counts how often it is asked."""

    def __init__(self):
        self.sizes = []

    def __call__(self, images):
        self.sizes.append(tuple(images.shape[1:3]))
        return {"block1_conv1": images, "block1_conv2": images}


def targets(styles, settings=SETTINGS, *, extractor=None, cache=None, picture=(64, 96)):
    layers = tuple(settings.content_layers.items()), tuple(settings.style_layers.items())
    objective = Objective(extractor or Extractor(), *layers, "float32", eager=True)
    return style_targets(styles, picture, (64, 96), settings, objective, cache or TargetCache())


def entry(kilobytes):
    return ({"x": tf.zeros([1, 16, 16 * kilobytes])},)


def test_second_call_computes_nothing(load):
    extractor, cache, style = Extractor(), TargetCache(), [Style(load("pere_tanguy", 96))]
    first = targets(style, extractor=extractor, cache=cache)
    assert len(extractor.sizes) == len(first) == 2
    second = targets([Style(style[0].image.copy())], extractor=extractor, cache=cache)
    assert len(extractor.sizes) == 2
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a["block1_conv1"], b["block1_conv1"])


@pytest.mark.parametrize("changed", ["image", "size", "layers", "extractor"])
def test_whatever_matters_is_computed_anew(load, changed):
    extractor, cache, image = Extractor(), TargetCache(), load("pere_tanguy", 96)
    targets([Style(image)], extractor=extractor, cache=cache)
    settings, picture, other = SETTINGS, (64, 96), extractor
    if changed == "image":
        image = image.copy()
        image[0, 0, 0] = 1.0 - image[0, 0, 0]
    elif changed == "size":
        picture = (32, 48)
    elif changed == "layers":
        settings = settings.model_copy(
            update={"style_layers": {"block1_conv1": 1.0, "block1_conv2": 1.0}}
        )
    else:
        other = Extractor()
    before = len(extractor.sizes)
    targets([Style(image)], settings, extractor=other, cache=cache, picture=picture)
    assert len(other.sizes) - (before if other is extractor else 0) == 2


def test_gram_of_the_painting_at_the_pictures_scale(load):
    extractor, painting = Extractor(), load("pere_tanguy", 96)
    found = targets([Style(painting)], extractor=extractor)
    assert extractor.sizes[0] == painting.shape[:2]
    np.testing.assert_allclose(
        found[0]["block1_conv1"], gram_matrix(tf.constant(painting)[None]), rtol=1e-4
    )


def test_paintings_are_shrunk_but_not_enlarged(load):
    painting = load("pere_tanguy", 96)
    for ratio, expected in ((0.5, 48), (4.0, 96)):
        extractor = Extractor()
        settings = SETTINGS.model_copy(update={"style_scales": [StyleScale(ratio=ratio)]})
        targets([Style(painting)], settings, extractor=extractor)
        assert max(extractor.sizes[0]) == expected


def test_a_size_in_px_is_of_the_result(load):
    extractor = Extractor()
    settings = SETTINGS.model_copy(update={"style_scales": [StyleScale(size=72)]})
    targets([Style(load("pere_tanguy", 96))], settings, extractor=extractor, picture=(32, 48))
    assert max(extractor.sizes[0]) == 36  # the picture has half its final size here


def test_a_painting_larger_than_the_picture_is_seen_in_parts(load, monkeypatch):
    """Memory was planned for the picture."""
    monkeypatch.setattr("nst_ops.targets._LEAST_TILE", 96)
    extractor, image = Extractor(), load("pere_tanguy", 300)
    settings = SETTINGS.model_copy(update={"style_scales": [StyleScale(ratio=3.0)]})
    found = targets([Style(image)], settings, extractor=extractor)
    assert max(map(max, extractor.sizes)) <= 96 + 2 * 80 < max(image.shape)
    size = fit(image.shape[:2], 288)
    whole = pyramid.octaves(pyramid.resize(tf.constant(image[None]), size), 2)
    for octave, expected in zip(found, whole, strict=True):
        expected = gram_matrix(tf.clip_by_value(expected, 0.0, 1.0))
        np.testing.assert_allclose(octave["block1_conv1"], expected, rtol=1e-3)


def test_blend_is_the_weighted_mean(load):
    one, two = load("pere_tanguy", 96), load("langlois_bridge", 96)
    apart = [targets([Style(image)])[0]["block1_conv1"] for image in (one, two)]
    blend = targets([Style(one, 3.0), Style(two, 1.0)])[0]["block1_conv1"]
    np.testing.assert_allclose(blend, 0.75 * apart[0] + 0.25 * apart[1], rtol=1e-4)


def test_bytes_are_counted_and_the_oldest_goes_first():
    cache, computed = TargetCache(max_bytes=3 * 1024), []

    def get(key):
        return cache.get(key, lambda: computed.append(key) or entry(1))

    for key in "abc":
        get(key)
    assert cache.bytes == 3 * 1024
    get("a")  # used again, so that b is the oldest
    get("d")
    assert cache.bytes == 3 * 1024 and computed == list("abcd")
    get("a")
    assert computed == list("abcd")
    get("b")
    assert computed == list("abcdb")


def test_targets_on_disk_serve_another_process(tmp_path, load, photo):
    settings = Settings(precision="float32", steps=1, octaves=[1.0, 1.0])
    painting = load("pere_tanguy", 96)
    coarse_to_fine.run(photo, [painting], settings, cache=TargetCache(folder=str(tmp_path)))
    (file,) = tmp_path.glob("*.npz")
    written = file.stat().st_mtime_ns
    second = TargetCache(folder=str(tmp_path))  # as in a process that starts with nothing
    again = coarse_to_fine.run(photo, [painting], settings, cache=second)
    assert file.stat().st_mtime_ns == written
    file.write_bytes(file.read_bytes()[:1000])  # damaged: computed and written again
    third = TargetCache(folder=str(tmp_path))
    repaired = coarse_to_fine.run(photo, [painting], settings, cache=third)
    np.testing.assert_array_equal(again.images, repaired.images)
    assert file.stat().st_size > 1000


def test_an_entry_larger_than_the_cache_is_served():
    cache = TargetCache(max_bytes=100)
    cache.get("a", lambda: entry(1))
    assert cache.get("b", lambda: entry(2))[0]["x"].shape == (1, 16, 32)
    assert cache.bytes == 2 * 1024  # the newest alone is kept, whatever it takes
