"""The terms of the loss: relative, weighted, each image by itself."""

import numpy as np
import pytest
import tensorflow as tf

from nst_ops.losses import terms as losses
from nst_ops.losses.gram import gram_matrix
from nst_ops.losses.terms import View, feature_loss, style_loss, total_variation
from nst_ops.vgg.network import vgg19


def views(targets, weights):
    """What a style is compared in, without masks."""
    return [View(grams, tf.constant(w), {}) for grams, w in zip(targets, weights, strict=True)]


@pytest.mark.parametrize("factor", [0.01, 1.0, 100.0])
def test_losses_are_relative(factor):
    rng = np.random.default_rng(1)
    a, b = (tf.constant(rng.random((2, 5, 6, 4), np.float32)) * factor for _ in range(2))
    layers = {"x": 2.0}
    content = feature_loss({"x": a}, {"x": b}, layers)
    expected = np.mean((a - b) ** 2, axis=(1, 2, 3)) / np.mean(b**2, axis=(1, 2, 3))
    np.testing.assert_allclose(content, expected, rtol=1e-5)
    style = style_loss([{"x": gram_matrix(a)}], views([{"x": gram_matrix(b)}], [1.0]), layers)
    grams = gram_matrix(a) - gram_matrix(b), gram_matrix(b)
    expected = np.sum(grams[0] ** 2, axis=(1, 2)) / np.sum(grams[1] ** 2, axis=(1, 2))
    np.testing.assert_allclose(style, expected, rtol=1e-4)


def test_losses_vanish_at_the_target():
    features = {"x": tf.random.stateless_uniform([1, 4, 4, 3], [0, 1])}
    assert feature_loss(features, features, {"x": 1.0}).numpy() == 0.0
    target = [{"x": gram_matrix(features["x"])}]
    assert style_loss(target, views(target, [1.0]), {"x": 1.0}).numpy() == 0.0
    assert total_variation(tf.fill([1, 8, 8, 3], 0.3)).numpy() == pytest.approx(0.0, abs=1e-7)


def test_mean_target_has_the_gradient_of_the_weighted_losses():
    rng = np.random.default_rng(2)
    picture, *paintings = (tf.constant(rng.random((1, 6, 6, 4), np.float32)) for _ in range(3))
    shares = (0.3, 0.7)
    grams = [gram_matrix(p) for p in paintings]
    mean = tf.add_n([share * gram for share, gram in zip(shares, grams, strict=True)])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(picture)
        gram = gram_matrix(picture)
        blended = style_loss([{"x": gram}], views([{"x": mean}], [1.0]), {"x": 1.0})
        separate = tf.add_n(
            [s * tf.reduce_sum((gram - g) ** 2) for s, g in zip(shares, grams, strict=True)]
        ) / tf.reduce_sum(mean**2)
    np.testing.assert_allclose(
        tape.gradient(blended, picture), tape.gradient(separate, picture), rtol=1e-3, atol=1e-7
    )


def test_losses_do_not_depend_on_resolution(load):
    """The same change, seen at two resolutions, costs about the same."""
    network = vgg19(["block4_conv2", "block2_conv1"])
    costs = []
    for size in (192, 384):
        photo, painting = load("coffee", size), load("pere_tanguy", size)
        ours, theirs = network(photo[None]), network(painting[None])
        mine, goal = (gram_matrix(f["block2_conv1"]) for f in (ours, theirs))
        style = style_loss([{"x": mine}], views([{"x": goal}], [1.0]), {"x": 1.0})
        moved = network(np.clip(photo[None] * 0.8, 0, 1))
        content = feature_loss(moved, ours, {"block4_conv2": 1})
        costs.append((float(style[0]), float(content[0])))
    np.testing.assert_allclose(costs[0], costs[1], rtol=0.35)


def features(seed, batch=2, size=(6, 5)):
    rng = np.random.default_rng(seed)
    return {
        "a": tf.constant(rng.random((batch, *size, 4), np.float32)),
        "b": tf.constant(rng.random((batch, *size, 3), np.float32)),
    }


def grams(maps):
    return {layer: gram_matrix(value) for layer, value in maps.items()}


def terms_of(images, weights):
    ours, theirs = [features(0), features(1)], [features(2), features(3)]
    return losses.weighted_total(
        weights,
        content=losses.feature_loss(ours[0], theirs[0], {"a": 1.0}),
        style=losses.style_loss(
            [grams(f) for f in ours],
            views([grams(f) for f in theirs], [2 / 3, 1 / 3]),
            {"a": 1.0, "b": 2.0},
        ),
        tv=losses.total_variation(images),
        attention=losses.feature_loss(ours[1], theirs[0], {"b": 1.0}),
    )


def test_terms_add_up_and_follow_their_weights():
    images = tf.constant(np.random.default_rng(4).random((2, 8, 9, 3), np.float32))
    one = losses.LossWeights(*map(tf.constant, (1e4, 2e-2, 50.0, 1e-2)))
    total, terms = terms_of(images, one)
    assert all(np.all(value.numpy() > 0.0) for value in terms.values())
    np.testing.assert_allclose(total, sum(terms.values()), rtol=1e-6)
    for name in ("content", "style", "tv"):
        twice = one._replace(**{name: 2.0 * getattr(one, name)})
        changed = terms_of(images, twice)[1]
        for other, value in changed.items():
            factor = 2.0 if other == name else 1.0
            np.testing.assert_allclose(value, factor * terms[other], rtol=1e-6)


def test_weights_may_differ_in_a_batch():
    images = tf.constant(np.random.default_rng(5).random((2, 8, 9, 3), np.float32))
    scalar = losses.LossWeights(*map(tf.constant, (1e4, 2e-2, 50.0, 1e-2)))
    rows = scalar._replace(style=tf.constant([2e-2, 6e-2]))
    same, other = terms_of(images, scalar)[1]["style"], terms_of(images, rows)[1]["style"]
    np.testing.assert_allclose(other, same * [1.0, 3.0], rtol=1e-5)


def test_images_of_a_batch_do_not_mix():
    maps, targets = features(6), features(7)
    together = losses.feature_loss(maps, targets, {"a": 1.0, "b": 1.0})
    for row in range(2):
        alone = losses.feature_loss(
            {k: v[row : row + 1] for k, v in maps.items()},
            {k: v[row : row + 1] for k, v in targets.items()},
            {"a": 1.0, "b": 1.0},
        )
        np.testing.assert_allclose(together[row], alone[0], rtol=1e-5)


def test_layers_are_a_weighted_mean_and_views_a_weighted_sum():
    maps, targets = (
        [grams(features(8)), grams(features(9))],
        [grams(features(10)), grams(features(11))],
    )

    def cost(layers, octaves):
        return losses.style_loss(maps, views(targets, octaves), layers).numpy()

    single = {
        (layer, octave): cost({layer: 1.0}, [float(octave == 0), float(octave == 1)])
        for layer in "ab"
        for octave in (0, 1)
    }
    shares = {
        ("a", 0): 0.25 * 0.8,
        ("b", 0): 0.75 * 0.8,
        ("a", 1): 0.25 * 0.2,
        ("b", 1): 0.75 * 0.2,
    }
    expected = sum(share * single[key] for key, share in shares.items())
    np.testing.assert_allclose(cost({"a": 1.0, "b": 3.0}, [0.8, 0.2]), expected, rtol=1e-5)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_style_does_not_depend_on_the_scale_of_features(factor):
    maps, targets = features(12), features(13)
    layers = {"a": 1.0, "b": 1.0}
    plain = losses.style_loss([grams(maps)], views([grams(targets)], [1.0]), layers)
    maps, targets = ({k: v * factor for k, v in m.items()} for m in (maps, targets))
    np.testing.assert_allclose(
        losses.style_loss([grams(maps)], views([grams(targets)], [1.0]), layers), plain, rtol=1e-3
    )


def test_a_black_target_gives_no_nan():
    zeros = {"a": tf.zeros([1, 4, 4, 2])}
    assert losses.feature_loss({"a": tf.ones([1, 4, 4, 2])}, zeros, {"a": 1.0}).numpy() == 0.0


def test_total_variation_by_hand():
    """A ramp of `rise` per px in each channel has a gradient of sqrt(3) * rise everywhere."""
    rise = 0.03
    ramp = np.repeat(rise * np.arange(10, dtype=np.float32)[None, None, :, None], 8, axis=1)
    ramp = np.repeat(ramp, 3, axis=-1)
    soft = losses._TV_SOFTNESS
    expected = np.sqrt(3 * rise**2 + soft**2) - soft
    for image in (ramp, ramp.transpose(0, 2, 1, 3)):
        np.testing.assert_allclose(losses.total_variation(tf.constant(image)), expected, rtol=1e-4)


def test_total_variation_is_finite_where_flat():
    flat = tf.fill([1, 6, 6, 3], 0.4)
    with tf.GradientTape() as tape:
        tape.watch(flat)
        value = losses.total_variation(flat)
    assert abs(float(value[0])) < 1e-7
    np.testing.assert_array_equal(tape.gradient(value, flat), np.zeros((1, 6, 6, 3)))
