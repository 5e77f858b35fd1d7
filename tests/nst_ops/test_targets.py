import os
import stat

import numpy as np
import pytest
import tensorflow as tf

from nst_ops.coarse_to_fine import loop
from nst_ops.errors import InputError
from nst_ops.images import inputs, resampling
from nst_ops.images.inputs import Style
from nst_ops.images.size import fit
from nst_ops.losses.gram import gram_matrix
from nst_ops.losses.objective import Objective
from nst_ops.losses.targets import cache as cache_module
from nst_ops.losses.targets.cache import TargetCache
from nst_ops.losses.targets.paintings import Sight
from nst_ops.losses.targets.style import style_targets
from nst_ops.settings import Settings, StyleScale
from nst_ops.vgg.geometry import LayerGeometry

SETTINGS = Settings(
    octaves=[1.0, 1.0], style_layers=["block1_conv1"], content_layers=["block1_conv1"]
)


class Extractor:
    """Features of a picture are its own colours; counts how often it is asked."""

    geometry = (("block1_conv1", LayerGeometry(1, 16)), ("block1_conv2", LayerGeometry(1, 16)))

    def __init__(self):
        self.sizes = []

    def __call__(self, images):
        self.sizes.append(tuple(images.shape[1:3]))
        return {"block1_conv1": images, "block1_conv2": images}


def targets(styles, settings=SETTINGS, *, extractor=None, cache=None, picture=(64, 96)):
    layers = tuple(settings.content_layers.items()), tuple(settings.style_layers.items())
    objective = Objective(
        extractor or Extractor(), *layers, (), Extractor.geometry, "float32", eager=True
    )
    return style_targets(
        styles, picture, Sight((64, 96), settings, objective, cache or TargetCache())
    )


def entry(kilobytes):
    return ({"x": tf.zeros([1, 16, 16 * kilobytes])},)


def test_second_call_computes_nothing(load):
    extractor, cache, style = Extractor(), TargetCache(), [Style(load("pere_tanguy", 96))]
    first = targets(style, extractor=extractor, cache=cache)
    assert len(extractor.sizes) == len(first) == 2
    second = targets([Style(style[0].image.copy())], extractor=extractor, cache=cache)
    assert len(extractor.sizes) == 2
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.grams["block1_conv1"], b.grams["block1_conv1"])


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
        found[0].grams["block1_conv1"], gram_matrix(tf.constant(painting)[None]), rtol=1e-4
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


def test_a_large_painting_is_seen_in_parts(load, monkeypatch):
    """And always in the same ones, whatever the picture."""
    monkeypatch.setattr("nst_ops.losses.targets.paintings.PAINTING_TILE", 96)
    extractor, image = Extractor(), load("pere_tanguy", 300)
    settings = SETTINGS.model_copy(update={"style_scales": [StyleScale(ratio=3.0)]})
    found = targets([Style(image)], settings, extractor=extractor)
    assert max(map(max, extractor.sizes)) <= 96 + 2 * 16 < max(image.shape)
    size = fit(image.shape[:2], 288)
    whole = resampling.octaves(resampling.resize(tf.constant(image[None]), size), 2)
    for octave, expected in zip(found, whole, strict=True):
        expected = gram_matrix(tf.clip_by_value(expected, 0.0, 1.0))
        np.testing.assert_allclose(octave.grams["block1_conv1"], expected, rtol=1e-3)


def test_blend_is_the_weighted_mean(load):
    one, two = load("pere_tanguy", 96), load("langlois_bridge", 96)
    apart = [targets([Style(image)])[0].grams["block1_conv1"] for image in (one, two)]
    blend = targets([Style(one, 3.0), Style(two, 1.0)])[0].grams["block1_conv1"]
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
    loop.run(photo, [painting], settings, cache=TargetCache(folder=str(tmp_path)))
    files = sorted(tmp_path.glob("*.npz"))  # Gram matrices, and moments for the content
    written = [file.stat().st_mtime_ns for file in files]
    second = TargetCache(folder=str(tmp_path))  # as in a process that starts with nothing
    again = loop.run(photo, [painting], settings, cache=second)
    assert [file.stat().st_mtime_ns for file in files] == written
    for file in files:
        sound = file.read_bytes()
        file.write_bytes(sound[:1000])  # damaged: computed and written again
        third = TargetCache(folder=str(tmp_path))
        with pytest.warns(UserWarning, match="npz: ignored: damaged.*made again"):
            repaired = loop.run(photo, [painting], settings, cache=third)
        np.testing.assert_array_equal(again.images, repaired.images)
        assert len(file.read_bytes()) == len(sound)
    assert len(files) == 2


def test_an_entry_larger_than_the_cache_is_served():
    cache = TargetCache(max_bytes=100)
    cache.get("a", lambda: entry(1))
    assert cache.get("b", lambda: entry(2))[0]["x"].shape == (1, 16, 32)
    assert cache.bytes == 2 * 1024  # the newest alone is kept, whatever it takes


VGG_LIKE = (("block1_conv1", LayerGeometry(1, 16)), ("block1_conv2", LayerGeometry(16, 70)))


def vgg_targets(styles, extractor, picture=(85, 128), **changes):
    """As with VGG19's geometry: sides of at least 32 px."""
    settings = Settings(style_layers=["block1_conv1"], content_layers=["block1_conv2"], **changes)
    layers = tuple(settings.content_layers.items()), tuple(settings.style_layers.items())
    objective = Objective(extractor, *layers, (), VGG_LIKE, "float32", eager=True)
    return style_targets(styles, picture, Sight((341, 512), settings, objective, TargetCache()))


@pytest.mark.parametrize(
    ("own", "seen"),
    [
        ((300, 200), [(128, 85), (64, 43)]),  # its third octave would have 22 px
        ((600, 200), [(128, 43)]),
        ((200, 600), [(43, 128)]),
        ((90, 120), [(90, 120), (45, 60)]),
        ((500, 60), [(267, 32)]),  # larger than asked for: at 128 px it would be 15 px wide
    ],
)
def test_paintings_keep_their_aspect_and_are_never_enlarged(own, seen):
    extractor = Extractor()
    found = vgg_targets([Style(np.zeros((*own, 3), np.float32))], extractor, picture=(128, 128))
    assert extractor.sizes == seen
    assert [target.weight for target in found] == [1.0] * len(seen) + [0.0] * (3 - len(seen))
    assert all(set(target.grams) == {"block1_conv1"} for target in found)


def test_style_scales_differ_at_small_scales_too():
    extractor, image = Extractor(), np.zeros((400, 400, 3), np.float32)
    scales = [{"ratio": 1.0}, {"ratio": 0.5}, {"ratio": 0.25}]
    vgg_targets([Style(image)], extractor, style_scales=scales, octaves=[1.0])
    assert extractor.sizes == [(128, 128), (64, 64), (32, 32)]


def test_an_octave_is_the_mean_of_the_paintings_that_have_it(load):
    wide, narrow = load("langlois_bridge", 300), load("pere_tanguy", 300)[:, :60]
    alone = vgg_targets([Style(wide)], Extractor())
    both = vgg_targets([Style(wide), Style(narrow, 5.0)], Extractor())
    np.testing.assert_allclose(both[1].grams["block1_conv1"], alone[1].grams["block1_conv1"])
    assert not np.allclose(both[0].grams["block1_conv1"], alone[0].grams["block1_conv1"])
    assert both[1].weight == alone[1].weight == 1.0


def test_only_octaves_that_count_are_computed(load):
    extractor = Extractor()
    found = vgg_targets([Style(load("pere_tanguy", 300))], extractor, octaves=[0.0, 2.0, 0.0])
    assert extractor.sizes == [(64, 51)] and [target.weight for target in found] == [2.0]


def test_a_painting_that_is_too_small():
    tiny = Style(np.zeros((31, 400, 3), np.float32))
    with pytest.raises(InputError, match="31x400 px.*at least 32 px; use a larger painting"):
        vgg_targets([tiny], Extractor())


def test_a_digest_is_taken_once(load, monkeypatch):
    style, taken = Style(load("pere_tanguy", 96)), []
    sha256 = inputs.hashlib.sha256
    monkeypatch.setattr(inputs.hashlib, "sha256", lambda data: taken.append(data) or sha256(data))
    for picture in ((64, 96), (32, 48), (64, 96)):
        targets([style], picture=picture)
    assert taken == [b"(96, 76, 3)"]


def test_the_result_does_not_depend_on_what_filled_the_cache(load, photo):
    """A tiled picture before, and a small one, of the same painting."""
    painting = load("pere_tanguy", 160)
    settings = Settings(precision="float32", steps=2, octaves=[1.0])
    fresh = loop.run(photo, [painting], settings, cache=TargetCache())
    used = TargetCache()
    loop.run(photo, [painting], settings, cache=used, tile=64)
    again = loop.run(photo, [painting], settings, cache=used)
    np.testing.assert_array_equal(again.images, fresh.images)


@pytest.mark.parametrize("offset", range(0, 6500, 321))
def test_every_damaged_byte_is_noticed(tmp_path, offset):
    path = tmp_path / "name.npz"
    TargetCache(folder=str(tmp_path)).get("a", lambda: entry(1), "name")
    data = bytearray(path.read_bytes())
    data[offset % len(data)] ^= 0x10
    path.write_bytes(data)
    computed = []
    with pytest.warns(UserWarning, match="damaged"):
        TargetCache(folder=str(tmp_path)).get("b", lambda: computed.append(1) or entry(1), "name")
    assert computed
    TargetCache(folder=str(tmp_path)).get("c", lambda: pytest.fail("not written again"), "name")


def test_others_may_read_a_shared_cache(tmp_path, monkeypatch):
    before = os.umask(0o022)
    try:
        TargetCache(folder=str(tmp_path)).get("a", lambda: entry(1), "name")
    finally:
        os.umask(before)
    (path,) = tmp_path.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_cache_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_module.archives, "write", full)
    with pytest.warns(UserWarning, match="not cached.*No space"):
        TargetCache(folder=str(tmp_path)).get("a", lambda: entry(1), "name")
    assert not list(tmp_path.iterdir())
