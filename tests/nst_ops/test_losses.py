import numpy as np
import pytest
import tensorflow as tf

from nst_ops.losses.gram import gram_matrix
from nst_ops.losses.terms import feature_loss, style_loss, total_variation
from nst_ops.vgg.network import vgg19


def test_gram_by_hand():
    features = tf.constant([[[[1.0, 2.0]], [[3.0, 4.0]]]])  # [1, 2, 1, 2]
    np.testing.assert_allclose(gram_matrix(features)[0], [[5.0, 7.0], [7.0, 10.0]])


def test_gram_of_bfloat16_accumulates_in_float32():
    features = np.random.default_rng(0).random((1, 200, 200, 3), np.float32)
    features = tf.cast(features, tf.bfloat16)
    exact = np.asarray(tf.cast(features, tf.float64)).reshape(-1, 3)
    np.testing.assert_allclose(gram_matrix(features)[0], exact.T @ exact / 40_000, rtol=1e-4)


@pytest.mark.parametrize("factor", [0.01, 1.0, 100.0])
def test_losses_are_relative(factor):
    rng = np.random.default_rng(1)
    a, b = (tf.constant(rng.random((2, 5, 6, 4), np.float32)) * factor for _ in range(2))
    layers = {"x": 2.0}
    content = feature_loss({"x": a}, {"x": b}, layers)
    expected = np.mean((a - b) ** 2, axis=(1, 2, 3)) / np.mean(b**2, axis=(1, 2, 3))
    np.testing.assert_allclose(content, expected, rtol=1e-5)
    style = style_loss([{"x": gram_matrix(a)}], [{"x": gram_matrix(b)}], layers, [3.0])
    grams = gram_matrix(a) - gram_matrix(b), gram_matrix(b)
    expected = np.sum(grams[0] ** 2, axis=(1, 2)) / np.sum(grams[1] ** 2, axis=(1, 2))
    np.testing.assert_allclose(style, expected, rtol=1e-4)


def test_losses_vanish_at_the_target():
    features = {"x": tf.random.stateless_uniform([1, 4, 4, 3], [0, 1])}
    assert feature_loss(features, features, {"x": 1.0}).numpy() == 0.0
    target = [{"x": gram_matrix(features["x"])}]
    assert style_loss(target, target, {"x": 1.0}, [1.0]).numpy() == 0.0
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
        blended = style_loss([{"x": gram}], [{"x": mean}], {"x": 1.0}, [1.0])
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
        style = style_loss([{"x": mine}], [{"x": goal}], {"x": 1.0}, [1.0])
        moved = network(np.clip(photo[None] * 0.8, 0, 1))
        content = feature_loss(moved, ours, {"block4_conv2": 1})
        costs.append((float(style[0]), float(content[0])))
    np.testing.assert_allclose(costs[0], costs[1], rtol=0.35)
