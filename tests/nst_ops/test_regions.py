"""Regions: masks say where strokes go and from where they come, and what stays as in the photo."""

import numpy as np
import pytest
import tensorflow as tf

from nst_ops.coarse_to_fine import loop
from nst_ops.errors import InputError
from nst_ops.images.inputs import Style
from nst_ops.losses.gram import gram_matrix
from nst_ops.losses.regions import coverage, regions_of
from nst_ops.losses.targets.cache import TargetCache
from nst_ops.settings import Settings
from nst_ops.vgg.network import vgg19

IMAGE = np.full((40, 60, 3), 0.5, np.float32)
LEFT = np.zeros((40, 60), np.float32)
LEFT[:, :30] = 1.0
QUICK = {"precision": "float32", "scales": [{"size": 128, "steps": 6}], "tolerance": 0.0}


def style(mask=None, weight=1.0):
    return Style(IMAGE, weight, mask)


def places(regions):
    return [
        None if region.where is None else region.where.numpy()[0, :, :, 0] for region in regions
    ]


def test_without_masks_a_blend_is_one_region():
    (region,) = regions_of([style(), style(weight=3.0)], None, (40, 60))
    assert region.where is None and region.share == 1.0 and len(region.paintings) == 2


def test_paintings_share_a_region_by_their_mask_and_the_others_get_the_rest():
    blend = [style(LEFT), style(), style(LEFT.copy()), style()]
    first, second = regions_of(blend, None, (40, 60))
    assert first.paintings == [blend[0], blend[2]] and second.paintings == [blend[1], blend[3]]
    np.testing.assert_array_equal(places([first])[0], LEFT)
    np.testing.assert_array_equal(places([second])[0], 1.0 - LEFT)
    assert first.share == pytest.approx(0.5) and second.share == pytest.approx(0.5)


def test_shares_follow_area_and_weight_and_add_up_to_what_is_covered():
    quarter = LEFT.copy()
    quarter[20:] = 0.0
    (only,) = regions_of([style(quarter)], None, (40, 60))
    assert only.share == pytest.approx(0.25)
    heavy, rest = regions_of([style(quarter, 6.0), style()], None, (40, 60))
    assert heavy.share == pytest.approx(2 / 3) and rest.share == pytest.approx(1 / 3)


def test_what_is_kept_belongs_to_no_region():
    (region,) = regions_of([style()], LEFT, (40, 60))
    np.testing.assert_array_equal(places([region])[0], 1.0 - LEFT)
    assert region.share == pytest.approx(0.5)
    assert float(tf.reduce_mean(coverage([region]))) == pytest.approx(0.5)


def test_masks_of_any_size_are_scaled_to_the_picture():
    small = np.zeros((4, 6), np.float32)
    small[:, :3] = 1.0
    where = places(regions_of([style(small)], None, (40, 60)))[0]
    assert where.shape == (40, 60)
    assert where[:, :25].min() > 0.95 and where[:, 35:].max() < 0.05


@pytest.mark.parametrize(
    ("blend", "keep", "message"),
    [
        ([style(), style(np.zeros((40, 60), np.float32))], None, "photo mask of painting 2"),
        ([style(LEFT), style(1.0 - LEFT), style()], None, "painting 3, with none, gets what"),
        ([style(LEFT)], LEFT, "photo mask of painting 1"),
        ([style()], np.ones((40, 60), np.float32), "keep takes all"),
    ],
)
def test_a_painting_without_a_place_is_an_error(blend, keep, message):
    with pytest.raises(InputError, match=message):
        regions_of(blend, keep, (40, 60))


def test_a_region_that_a_layer_does_not_see_is_named(load):
    """The last column of 127 px is in no position of block5_conv1, which has one for 16 px."""
    mask = np.zeros((127, 127), np.float32)
    mask[:, -1] = 1.0
    photo, painting = load("cat", 127)[:127, :127], load("church_at_auvers", 128)
    photo = np.resize(photo, (127, 127, 3))
    settings = Settings(**{**QUICK, "scales": [{"size": 127, "steps": 1}]})
    with pytest.raises(InputError, match="photo mask of painting 1 is empty at block"):
        loop.run(photo, Style(painting, 1.0, mask), settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"photo_mask": np.ones((40, 20))}, "photo_mask has 40x20 px, another aspect"),
        ({"painting_mask": np.ones((40, 20))}, "painting_mask has 40x20 px, another aspect"),
        ({"painting_mask": np.zeros((40, 60))}, "painting_mask is black"),
        ({"photo_mask": np.ones((40, 60, 3))}, r"photo_mask has shape \(40, 60, 3\)"),
        ({"photo_mask": np.full((40, 60), 255)}, "values from 255 to 255"),
        ({"photo_mask": np.full((40, 60), np.nan)}, "values from nan"),
        ({"photo_mask": "mask.png"}, "no array of numbers"),
    ],
)
def test_what_is_no_mask_is_an_error(change, message):
    with pytest.raises(InputError, match=message):
        loop.run(IMAGE, Style(IMAGE, **change), Settings(**QUICK))
    if "photo_mask" in change:
        with pytest.raises(InputError, match="keep"):
            loop.run(IMAGE, IMAGE, Settings(**QUICK), keep=change["photo_mask"])


def test_masks_must_be_as_many_as_photos():
    with pytest.raises(InputError, match="2 photos but 1 of keep"):
        loop.run(np.stack([IMAGE] * 2), [IMAGE] * 2, Settings(**QUICK), keep=[LEFT])


@pytest.fixture(scope="module")
def halves(load):
    """A photo of which the left half is painted after one painting, the right after another."""
    photo = load("cat", 128)
    left = np.zeros(photo.shape[:2], np.float32)
    left[:, : photo.shape[1] // 2] = 1.0
    return photo, left, load("pere_tanguy", 128), load("cafe_terrace_at_night", 128)


def gram_distance(picture, painting, columns):
    network = vgg19(["block2_conv1", "block3_conv1"])
    ours, theirs = network(picture[None, :, columns]), network(painting[None])
    distances = [
        tf.norm(gram_matrix(ours[k]) - gram_matrix(theirs[k])) / tf.norm(gram_matrix(theirs[k]))
        for k in ours
    ]
    return float(np.mean(distances))


@pytest.mark.parametrize("attention", [0.0, 1.0])
def test_each_half_takes_after_its_painting(halves, attention):
    photo, left, first, second = halves
    settings = Settings(**{**QUICK, "scales": [{"size": 128, "steps": 20}]}).model_copy(
        update={"attention_weight": attention}
    )
    picture = loop.run(photo, [[Style(first, 1.0, left), Style(second)]], settings).images[0]
    middle = photo.shape[1] // 2
    sides = slice(0, middle), slice(middle, None)
    for own, other, columns in ((first, second, sides[0]), (second, first, sides[1])):
        here = gram_distance(picture, own, columns)
        assert here < 0.8 * gram_distance(picture, other, columns)
        alone = loop.run(photo, [own], settings).images[0]
        assert here < 1.2 * gram_distance(alone, own, columns)


def test_what_is_kept_is_the_photo_to_the_last_bit(halves):
    photo, left, painting, _ = halves
    soft = left.copy()
    soft[:, photo.shape[1] // 2] = 0.5
    for color in ("style", "content"):
        settings = Settings(**QUICK, color=color)
        picture = loop.run(photo, [painting], settings, keep=soft).images[0]
        np.testing.assert_array_equal(picture[left == 1.0], photo[left == 1.0])
        assert np.abs(picture - photo)[left == 0.0].mean() > 0.01


def test_noise_leaves_what_is_kept_alone(halves):
    photo, left, painting, _ = halves
    settings = Settings(**QUICK, init="noise", attention_weight=0.5)
    picture = loop.run(photo, [painting], settings, keep=left).images[0]
    np.testing.assert_array_equal(picture[left == 1.0], photo[left == 1.0])


def test_the_part_of_a_painting_that_is_masked_gives_its_strokes(load):
    """A painting of two halves, of which only one is asked for, is like that half alone."""
    bright, dark = load("pere_tanguy", 128), load("cafe_terrace_at_night", 128)
    side = min(*bright.shape[:2], *dark.shape[:2]) // 32 * 32
    both = np.concatenate([bright[:side, :side], dark[:side, :side]], axis=1)
    mask = np.zeros(both.shape[:2], np.float32)
    mask[:, :side] = 1.0
    photo = load("cat", 96)
    settings = Settings(
        **{**QUICK, "scales": [{"size": 96, "steps": 12}]}, style_scales=[{"size": 192}]
    )
    picture = loop.run(photo, [Style(both, 1.0, None, mask)], settings).images[0]
    near, far = (gram_distance(picture, p[:side, :side], slice(None)) for p in (bright, dark))
    assert near < 0.8 * far


def test_pictures_of_a_batch_have_their_own_masks(halves):
    photo, left, first, second = halves
    settings = Settings(**QUICK, attention_weight=0.5)
    blends = [[Style(first, 1.0, left), Style(second)], [first], [Style(first, 1.0, 1.0 - left)]]
    keeps = [None, None, np.ascontiguousarray(left[:, ::-1]) * 0.5]
    together = loop.run(np.stack([photo] * 3), blends, settings, keep=keeps).images
    for row, (blend, keep) in enumerate(zip(blends, keeps, strict=True)):
        alone = loop.run(photo, [blend], settings, keep=[keep], cache=TargetCache()).images[0]
        np.testing.assert_allclose(together[row], alone, atol=0.02)
