import numpy as np
import pytest

from nst_ops.images import colors

LUMA = np.array([0.299, 0.587, 0.114])


def narrow(seed, mean, size=(20, 30)):
    """Correlated colours well inside [0, 1], so that clipping does not touch the moments."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(3, 3))
    flat = rng.uniform(-1, 1, (size[0] * size[1], 3)) @ mix
    return (np.array(mean) + 0.1 * flat / np.abs(flat).max()).astype(np.float32).reshape(*size, 3)


def moments(image):
    flat = image.reshape(-1, 3).astype(np.float64)
    return flat.mean(0), np.cov(flat.T)


def test_match_gives_the_references_moments():
    image, reference = narrow(0, (0.3, 0.5, 0.6)), narrow(1, (0.6, 0.4, 0.5), (16, 11))
    matched = colors.match_colors(image, reference)
    assert matched.dtype == np.float32 and matched.shape == image.shape
    for found, expected in zip(moments(matched), moments(reference), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(moments(image)[1] - moments(reference)[1]).max() > 5e-4


def test_match_to_itself_changes_nothing():
    image = narrow(2, (0.5, 0.5, 0.5))
    np.testing.assert_allclose(colors.match_colors(image, image), image, atol=1e-4)


def test_match_of_a_flat_image_is_finite(load):
    flat = np.full((8, 8, 3), 0.2, np.float32)
    photo = load("cat", 64)
    matched = colors.match_colors(flat, photo)
    np.testing.assert_allclose(matched[0, 0], photo.mean((0, 1)), atol=1e-3)


def test_match_stays_in_range(load):
    matched = colors.match_colors(load("cafe_terrace_at_night", 64), load("rocket", 64))
    assert 0.0 <= matched.min() and matched.max() <= 1.0


def test_luminance_is_bt601():
    image = narrow(3, (0.4, 0.5, 0.6))
    grey = colors.luminance(image)
    np.testing.assert_array_equal(grey[..., 0], grey[..., 2])
    np.testing.assert_allclose(grey[..., 1], image @ LUMA, atol=1e-6)


def test_match_luminance_gives_mean_and_spread():
    image, reference = narrow(4, (0.3, 0.4, 0.5)), narrow(5, (0.6, 0.5, 0.4))
    matched, goal = colors.match_luminance(image, reference), reference @ LUMA
    assert matched[..., 0].mean() == pytest.approx(goal.mean(), abs=1e-3)
    assert matched[..., 0].std() == pytest.approx(goal.std(), rel=1e-2)


def test_keep_colors_takes_luma_of_one_and_chroma_of_the_other():
    picture, photo = narrow(6, (0.5, 0.5, 0.5)), narrow(7, (0.5, 0.45, 0.55))
    kept = colors.keep_colors(picture, photo)
    np.testing.assert_allclose(kept @ LUMA, picture @ LUMA, atol=2e-3)
    for a, b in ((0, 2), (0, 1)):  # with luma taken away, differences of channels are chroma
        np.testing.assert_allclose(
            kept[..., a] - kept[..., b], photo[..., a] - photo[..., b], atol=5e-3
        )
    np.testing.assert_allclose(colors.keep_colors(photo, photo), photo, atol=2e-3)


def test_keep_colors_takes_batches_and_leaves_its_input():
    picture, photo = (
        np.stack([narrow(s, (0.5, 0.5, 0.5)) for s in pair]) for pair in ((8, 9), (10, 11))
    )
    before = photo.copy()
    kept = colors.keep_colors(picture, photo)
    np.testing.assert_array_equal(photo, before)
    np.testing.assert_allclose(kept[1], colors.keep_colors(picture[1], photo[1]), atol=1e-6)
