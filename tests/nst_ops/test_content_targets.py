"""What the content term holds on to: the photo's structure, in the paintings' statistics."""

import numpy as np
import pytest
import tensorflow as tf

from nst_ops.errors import InputError
from nst_ops.images.inputs import Style
from nst_ops.losses.moments import moments
from nst_ops.losses.objective import Objective
from nst_ops.losses.regions import regions_of
from nst_ops.losses.targets import content
from nst_ops.losses.targets.cache import TargetCache
from nst_ops.losses.targets.content import content_targets
from nst_ops.losses.targets.paintings import Sight
from nst_ops.settings import Settings
from nst_ops.vgg.geometry import LayerGeometry

SETTINGS = Settings(content_layers=["block1_conv1"], style_layers=["block1_conv1"])
GEOMETRY = (("block1_conv1", LayerGeometry(1, 16)),)
PLAIN = np.full((64, 96, 3), 0.5, np.float32)


class Colours:
    """Features of a picture are its own colours; counts how often it is asked."""

    def __init__(self):
        self.asked = 0

    def __call__(self, images):
        self.asked += 1
        return {"block1_conv1": images, "block3_conv1": images[:, 6::7, 6::7]}


def target(
    photo, blend, *, settings=SETTINGS, geometry=GEOMETRY, keep=None, cache=None, network=None
):
    layers = tuple(settings.content_layers.items()), tuple(settings.style_layers.items())
    objective = Objective(network or Colours(), *layers, (), geometry, "float32", eager=True)
    size = photo.shape[:2]
    regions = [regions_of(blend, keep, size)]
    sight = Sight(size, settings, objective, cache or TargetCache())
    found = content_targets(tf.constant(photo[None]), regions, sight)
    return next(iter(found.values())).numpy()


def mean_and_deviation(image):
    return image.mean(axis=(0, 1)), image.std(axis=(0, 1))


def assert_same_moments(image, wanted, atol=1e-3):
    for mine, theirs in zip(mean_and_deviation(image), mean_and_deviation(wanted), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=atol)


@pytest.fixture
def seen(load):
    """A painting as large as photos here, so that it is seen as it is."""
    return load("pere_tanguy", 96)


def test_it_has_the_paintings_moments_and_the_photos_structure(photo, seen):
    found = target(photo, [Style(seen)])[0]
    assert_same_moments(found, seen)
    for channel in range(3):
        assert np.corrcoef(found[..., channel].ravel(), photo[..., channel].ravel())[0, 1] > 0.9999


def test_a_photo_after_itself_is_to_stay_as_it_is(photo):
    np.testing.assert_allclose(target(photo, [Style(photo)])[0], photo, atol=1e-4)


def test_without_style_the_photo_is_to_stay_as_it_is(photo, seen):
    settings = SETTINGS.model_copy(update={"style_weight": 0.0})
    np.testing.assert_array_equal(target(photo, [Style(seen)], settings=settings)[0], photo)


def test_a_blend_is_seen_as_one_painting(photo, seen):
    other = np.ascontiguousarray(1.0 - seen)
    found = target(photo, [Style(seen, 3.0), Style(other, 1.0)])[0]
    both = np.concatenate([seen, seen, seen, other])
    assert_same_moments(found, both)


def test_each_region_has_its_own_painting_and_what_is_kept_none(photo, seen):
    height, width = photo.shape[:2]
    left, bottom = np.zeros((2, height, width), np.float32)
    left[:, : width // 2] = 1.0
    bottom[-height // 4 :] = 1.0
    other = np.ascontiguousarray(1.0 - seen)
    found = target(photo, [Style(seen, photo_mask=left), Style(other)], keep=bottom)[0]
    above = slice(0, height - height // 4)
    np.testing.assert_array_equal(found[above.stop :], photo[above.stop :])
    assert_same_moments(found[above, : width // 2], seen)
    assert_same_moments(found[above, width // 2 :], other)


def test_only_a_part_of_the_painting_counts(photo, seen):
    mask = np.zeros(seen.shape[:2], np.float32)
    mask[: len(mask) // 2] = 1.0
    found = target(photo, [Style(seen, painting_mask=mask)])[0]
    assert_same_moments(found, seen[: len(mask) // 2], atol=2e-3)


def test_a_plain_painting_leaves_the_photos_structure(photo):
    found = target(photo, [Style(PLAIN)])[0]
    mean, deviation = mean_and_deviation(found)
    np.testing.assert_allclose(mean, 0.5, atol=1e-4)
    np.testing.assert_allclose(deviation, photo.std(axis=(0, 1)) / 4.0, rtol=1e-3)


def test_a_plain_photo_is_given_no_structure(seen):
    found = target(PLAIN, [Style(seen)])[0]
    np.testing.assert_allclose(
        found, np.broadcast_to(seen.mean(axis=(0, 1)), found.shape), atol=1e-4
    )


def test_a_mask_that_no_position_sees_is_an_error(photo, seen):
    mask = np.zeros(seen.shape[:2], np.float32)
    mask[-1] = 1.0
    settings = SETTINGS.model_copy(update={"content_layers": {"block3_conv1": 1.0}})
    geometry = (("block1_conv1", LayerGeometry(1, 16)), ("block3_conv1", LayerGeometry(7, 64)))
    with pytest.raises(InputError, match="own mask is empty at block3_conv1"):
        target(photo, [Style(seen, painting_mask=mask)], settings=settings, geometry=geometry)


class RoundsUp(Colours):
    """A model of one's own, which cannot be computed in tiles and has ceil(side / 7) positions."""

    def __call__(self, images):
        return {"block3_conv1": images[:, ::7, ::7], "block1_conv1": images}

    def compute_output_shape(self, shape):
        batch, height, width, channels = shape
        return {"block3_conv1": (batch, -(-height // 7), -(-width // 7), channels)}


def test_a_model_that_rounds_up_takes_masks(photo, seen):
    mask = np.ones(seen.shape[:2], np.float32)
    settings = SETTINGS.model_copy(update={"content_layers": {"block3_conv1": 1.0}})
    geometry = (("block1_conv1", LayerGeometry(1, 16)), ("block3_conv1", LayerGeometry(7, None)))
    changes = {"settings": settings, "geometry": geometry, "network": RoundsUp()}
    masked = target(photo, [Style(seen, painting_mask=mask)], **changes)
    np.testing.assert_allclose(masked, target(photo, [Style(seen)], **changes), atol=1e-5)


def test_float16_does_not_overflow():
    features = np.float16(60000.0) * np.ones((4, 4, 2), np.float16)
    content._apply(features, [content._Change(np.float32([4, 1]), np.float32([0, 0]), None)])
    assert np.isfinite(features).all() and (features[..., 1] == np.float16(60000.0)).all()


def test_contrast_grows_only_so_far(seen):
    faint = 0.5 + 0.01 * np.sign(np.random.default_rng(0).standard_normal((64, 96, 3)))
    found = target(faint.astype(np.float32), [Style(seen)])[0]
    np.testing.assert_allclose(found.std(axis=(0, 1)), 4.0 * 0.01, rtol=1e-2)


def test_a_painting_is_looked_at_once(photo, seen):
    cache, network = TargetCache(), Colours()
    for _ in range(2):
        target(photo, [Style(seen.copy())], cache=cache, network=network)
    assert network.asked == 3  # the painting once, the photo twice


@pytest.mark.parametrize("weighted", [False, True])
def test_moments_of_many_strips(monkeypatch, weighted):
    monkeypatch.setattr("nst_ops.losses.moments._AT_ONCE", 200)
    random = np.random.default_rng(1)
    features = random.standard_normal((2, 33, 20, 5)).astype(np.float32)
    weights = random.random((2, 33, 20, 1)).astype(np.float32) if weighted else None
    found = moments(tf.constant(features), None if weights is None else tf.constant(weights))
    for row in range(2):
        places = None if weights is None else weights[row, ..., 0].ravel()
        values = features[row].reshape(-1, 5)
        mean = np.average(values, axis=0, weights=places)
        np.testing.assert_allclose(found.mean[row, 0, 0], mean, atol=1e-6)
        spread = np.average(np.square(values - mean), axis=0, weights=places)
        np.testing.assert_allclose(found.variance[row, 0, 0], spread, rtol=1e-5)
