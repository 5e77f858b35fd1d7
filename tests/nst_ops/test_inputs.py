"""What callers hand over."""

import numpy as np
import pytest

from nst_ops.coarse_to_fine import loop
from nst_ops.errors import InputError
from nst_ops.images.inputs import Style, image_batch, photo_seeds, style_blends

IMAGE = np.full((40, 48, 3), 0.5, np.float32)


@pytest.mark.parametrize(
    "styles",
    [
        IMAGE,
        Style(IMAGE),
        [IMAGE],
        IMAGE[None],
        [Style(IMAGE)],
        [(IMAGE, 1.0)],
        [[IMAGE]],
        [[Style(IMAGE)]],
        [[(IMAGE, 1.0)]],
        [[[IMAGE, np.float64(1.0)]]],
    ],
)
def test_forms_of_one_painting(styles):
    ((style,),) = style_blends(styles, 1)
    assert style.weight == 1.0
    np.testing.assert_array_equal(style.image, IMAGE)


def test_forms_of_blends():
    (blend,) = style_blends([[IMAGE, (IMAGE, 2), Style(IMAGE, 3.0)]], 1)
    assert [style.weight for style in blend] == [1.0, 2.0, 3.0]
    (one,), (other,) = style_blends([(IMAGE, 2.0), IMAGE], 2)
    assert (one.weight, other.weight) == (2.0, 1.0)


def test_a_style_that_nobody_can_change_is_taken_as_it_is():
    """With the digest that it may have; others are looked at anew."""
    frozen = IMAGE.copy()
    frozen.flags.writeable = False
    style = Style(frozen, 2.0)
    assert style_blends([[style]], 1)[0][0] is style
    buffer = IMAGE.copy()
    refilled = Style(buffer)
    before = refilled.digest
    buffer[:] = 0.25
    assert style_blends([refilled], 1)[0][0].digest != before
    assert Style(buffer.reshape(48, 40, 3)).digest != Style(buffer).digest
    heavier = style.placed(3.0)
    assert heavier.digest == style.digest and heavier.weight == 3.0


@pytest.mark.parametrize(
    ("styles", "message"),
    [
        ("a.jpg", "'a.jpg' is no list"),
        (["a.jpg"], "'a.jpg' is no painting"),
        ([[]], "no painting"),
        ([None], "None is no painting"),
        ([[IMAGE, "a.jpg"]], r"a style has shape 'a.jpg'; expected \[h, w, 3\]"),
        ([(IMAGE, 0.0)], "weight 0.0; expected a number above 0"),
        ([(IMAGE, 1e-40)], "weight 1e-40"),
        ([(IMAGE, 1e39)], "weight 1e.39"),
        ([Style(IMAGE[None])], r"a style has shape \(1, 40, 48, 3\)"),
        ([Style(IMAGE, -1.0)], "weight -1.0"),
        ([Style(IMAGE, float("nan"))], "weight nan"),
        ([[Style(IMAGE, "2")]], "weight '2'"),
        ([IMAGE, IMAGE], "1 photos but 2 styles"),
    ],
)
def test_what_is_no_style(styles, message):
    with pytest.raises(InputError, match=message):
        style_blends(styles, 1)


def test_rounding_beyond_the_range_is_clipped():
    image = IMAGE.copy()
    image[0, 0, 0], image[0, 0, 1] = 1.0 + 2e-7, -3e-5
    batch = image_batch(image, "contents")
    assert batch.min() == 0.0 and batch.max() == 1.0
    assert image_batch(IMAGE, "contents").base is IMAGE  # no copy where none is needed
    with pytest.raises(InputError, match="values from 0.5 to 1.1"):
        image_batch(np.where(np.arange(48)[None, :, None] == 3, 1.1, IMAGE), "contents")


def test_counts():
    with pytest.raises(InputError, match="2 photos but 1 of initial; give one per photo"):
        image_batch(IMAGE, "initial", count=2)
    with pytest.raises(InputError, match="no array of numbers"):
        image_batch([[1.0], [1.0, 2.0]], "contents")


def test_seeds():
    assert photo_seeds(None, 2, 7) == [7, 7]
    assert photo_seeds(np.array([0]), 1, 7) == [0]
    for wrong in ([1, 2], [0.5], [-1], 3):
        with pytest.raises(InputError, match="for 1 photos; give one whole number"):
            photo_seeds(wrong, 1, 7)


def test_all_of_it_is_checked_before_anything_is_computed():
    batch = np.stack([IMAGE, IMAGE])
    for options, message in (
        ({"initial": IMAGE}, "2 photos but 1 of initial"),
        ({"seeds": [1]}, "for 2 photos"),
    ):
        with pytest.raises(InputError, match=message):
            loop.run(batch, [IMAGE, IMAGE], **options)
    with pytest.raises(InputError, match="contents: 12x12 px, but block5_conv1 needs.*32 px"):
        loop.run(IMAGE[:12, :12], IMAGE)
