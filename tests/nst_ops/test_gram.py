import numpy as np
import pytest
import tensorflow as tf

from nst_ops.losses.gram import gram_matrix


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_against_numpy(dtype):
    features = tf.cast(np.random.default_rng(0).normal(size=(3, 5, 7, 4)), dtype)
    rows = tf.cast(features, tf.float64).numpy().reshape(3, 35, 4)
    gram = gram_matrix(features)
    assert gram.dtype == tf.float32
    np.testing.assert_allclose(
        gram, np.einsum("bpc,bpd->bcd", rows, rows) / 35, rtol=1e-4, atol=1e-6
    )


def test_does_not_depend_on_the_area():
    features = tf.constant(np.random.default_rng(1).random((1, 4, 6, 3), np.float32))
    tiled = tf.tile(features, [1, 3, 2, 1])
    np.testing.assert_allclose(gram_matrix(tiled), gram_matrix(features), rtol=1e-5)


def test_does_not_depend_on_the_arrangement():
    rng = np.random.default_rng(2)
    features = rng.random((1, 4, 6, 3), np.float32)
    shuffled = rng.permutation(features.reshape(24, 3)).reshape(1, 4, 6, 3)
    assert not np.array_equal(features, shuffled)
    np.testing.assert_allclose(gram_matrix(shuffled), gram_matrix(features), rtol=1e-5)


def test_gradient():
    """Of a sum over entries, by hand: d/dF sum(G) = 2 * (sum of F's channels) / (H * W)."""
    features = tf.constant(np.random.default_rng(3).random((1, 3, 4, 2), np.float32))
    with tf.GradientTape() as tape:
        tape.watch(features)
        value = tf.reduce_sum(gram_matrix(features))
    expected = 2.0 / 12.0 * np.repeat(np.sum(features, -1, keepdims=True), 2, axis=-1)
    np.testing.assert_allclose(tape.gradient(value, features), expected, rtol=1e-5)


def test_gradient_is_that_of_two_products():
    """Of any function of the entries, not only of symmetric ones."""
    rng = np.random.default_rng(4)
    features = tf.constant(rng.normal(size=(2, 3, 4, 5)), tf.float32)
    weights = tf.constant(rng.normal(size=(2, 5, 5)), tf.float32)
    found = []
    for product in (
        lambda x: gram_matrix(x) * 12.0,
        lambda x: tf.einsum("bhwc,bhwd->bcd", x, x),
    ):
        with tf.GradientTape() as tape:
            tape.watch(features)
            value = tf.reduce_sum(weights * product(features))
        found.append(tape.gradient(value, features))
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-5)


def test_gram_by_hand():
    features = tf.constant([[[[1.0, 2.0]], [[3.0, 4.0]]]])  # [1, 2, 1, 2]
    np.testing.assert_allclose(gram_matrix(features)[0], [[5.0, 7.0], [7.0, 10.0]])


def test_gram_of_bfloat16_accumulates_in_float32():
    features = np.random.default_rng(0).random((1, 200, 200, 3), np.float32)
    features = tf.cast(features, tf.bfloat16)
    exact = np.asarray(tf.cast(features, tf.float64)).reshape(-1, 3)
    np.testing.assert_allclose(gram_matrix(features)[0], exact.T @ exact / 40_000, rtol=1e-4)
