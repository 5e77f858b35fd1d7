"""On losses written by hand, without the network."""

import numpy as np
import pytest
import tensorflow as tf

from nst_ops.images.resampling import resize
from nst_ops.optimizers import adam as adam_module
from nst_ops.optimizers.adam import Adam, update_in_strips
from nst_ops.optimizers.lbfgs import LBFGS
from nst_ops.optimizers.optimizer import make_optimizer
from nst_ops.optimizers.rows import join_rows, take_rows
from nst_ops.settings import HISTORY

SHAPE = (12, 16, 3)
EACH = pytest.mark.parametrize("make", [LBFGS, lambda: Adam(0.05)], ids=["lbfgs", "adam"])


def goals(count, low=0.2, high=0.8, seed=0):
    rng = np.random.default_rng(seed)
    return tf.constant(rng.uniform(low, high, (count, *SHAPE)), tf.float32)


def bowl(picture, goal):
    """Badly scaled, and not quite quadratic."""
    scale = tf.constant(np.geomspace(0.1, 2.0, SHAPE[0])[None, :, None, None], tf.float32)
    apart = picture - goal
    loss = tf.reduce_sum(scale * (apart**2 + apart**4), axis=[1, 2, 3])
    return loss, scale * (2 * apart + 4 * apart**3)


def descend(optimizer, goal, steps, start=0.5):
    state = optimizer.start(tf.fill([goal.shape[0], *SHAPE], start))
    states = []
    for _ in range(steps):
        state = optimizer.update(state, *bowl(state.trial, goal))
        states.append(state)
    return states


@EACH
def test_batch_of_four_is_four_singles(make):
    # Goals at different distances, so that rows accept, reject and backtrack at different steps.
    goal = tf.concat(
        [goals(1, 0.5 - d, 0.5 + d, seed=i) for i, d in enumerate((0.01, 0.1, 0.3, 0.5))], 0
    )
    together = descend(make(), goal, 12)[-1]
    for row in range(4):
        alone = descend(make(), goal[row : row + 1], 12)[-1]
        np.testing.assert_allclose(together.loss[row], alone.loss[0], rtol=1e-3)
        np.testing.assert_allclose(together.image[row], alone.image[0], atol=2e-3)


@EACH
def test_pixels_stay_in_range_and_reach_the_border(make):
    """The minimum lies outside [0, 1]: the best picture is the nearest one inside."""
    goal = goals(2, -0.5, 1.5)
    states = descend(make(), goal, 60)
    for state in states:
        for image in (state.trial, state.image):
            assert 0.0 <= image.numpy().min() and image.numpy().max() <= 1.0
    nearest = bowl(tf.clip_by_value(goal, 0.0, 1.0), goal)[0]
    start = bowl(tf.fill(goal.shape, 0.5), goal)[0]
    gap = (states[-1].loss - nearest) / (start - nearest)
    assert np.all(gap.numpy() < 0.02), gap


@EACH
def test_best_is_monotone_and_belongs_to_its_picture(make):
    goal = goals(3)
    states = descend(make(), goal, 25)
    best = np.stack([state.loss for state in states])
    assert np.all(np.diff(best, axis=0) <= 0.0) and np.all(best[-1] < best[0])
    np.testing.assert_allclose(bowl(states[-1].image, goal)[0], best[-1], rtol=1e-4)


@EACH
def test_rows_are_taken_apart_and_put_together(make):
    goal, optimizer = goals(3), make()
    whole = descend(optimizer, goal, 5)[-1]
    parts = [(rows, take_rows(whole, rows)) for rows in ([1], [2, 0])]
    for one, other in zip(tf.nest.flatten(join_rows(parts)), tf.nest.flatten(whole), strict=True):
        np.testing.assert_array_equal(one, other)
    after = optimizer.update(parts[1][1], *bowl(parts[1][1].trial, tf.gather(goal, [2, 0])))
    expected = optimizer.update(whole, *bowl(whole.trial, goal))
    np.testing.assert_allclose(after.trial[1], expected.trial[0], atol=1e-5)


@EACH
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_no_best(make, bad):
    goal, optimizer = goals(1), make()
    before = descend(optimizer, goal, 3)[-1]
    loss, gradient = bowl(before.trial, goal)
    after = optimizer.update(before, tf.fill([1], bad), gradient)
    np.testing.assert_array_equal(after.image, before.image)
    np.testing.assert_array_equal(after.loss, before.loss)


def test_lbfgs_takes_no_first_picture_without_a_loss():
    goal, optimizer = goals(1), LBFGS()
    start = optimizer.start(tf.fill([1, *SHAPE], 0.5))
    _, gradient = bowl(start.trial, goal)
    after = optimizer.update(start, tf.fill([1], float("nan")), gradient)
    assert np.isinf(after.loss[0]) and after.rejections.numpy() == [1]


def test_lbfgs_remembers_nothing_of_a_trial_without_a_gradient():
    """A NaN in its history would be there at every later step, times a weight of 0."""
    goal, optimizer = goals(1), LBFGS()
    before = descend(optimizer, goal, 3)[-1]
    lost = tf.fill(before.trial.shape, float("nan"))
    state = optimizer.update(before, tf.fill([1], float("nan")), lost)
    np.testing.assert_array_equal(state.image, before.image)
    for _ in range(6):
        state = optimizer.update(state, *bowl(state.trial, goal))
    assert np.isfinite(state.trial).all() and float(state.loss[0]) < float(before.loss[0])


def test_lbfgs_does_not_see_what_pushes_out_of_range():
    optimizer = LBFGS()
    picture = tf.constant(np.random.default_rng(1).choice([0.0, 0.5, 1.0], (1, *SHAPE)), tf.float32)
    gradient = tf.constant(np.random.default_rng(2).normal(size=(1, *SHAPE)), tf.float32)
    state = optimizer.update(optimizer.start(picture), tf.ones([1]), gradient)
    out = ((picture == 0.0) & (gradient > 0.0)) | ((picture == 1.0) & (gradient < 0.0))
    np.testing.assert_array_equal(state.gradient, np.where(out, 0.0, gradient))


def test_lbfgs_rejects_what_does_not_improve_and_shortens():
    goal, optimizer = goals(1), LBFGS()
    before = descend(optimizer, goal, 3)[-1]
    _, gradient = bowl(before.trial, goal)
    worse = before.loss * 2.0
    after = optimizer.update(before, worse, gradient)
    assert after.rejections.numpy() == [1]
    assert 0.0 < float(after.length[0]) <= 0.5 * float(before.length[0])
    np.testing.assert_array_equal(after.image, before.image)
    np.testing.assert_array_equal(after.direction, before.direction)


def test_lbfgs_restarts_along_the_gradient():
    goal, optimizer = goals(1), LBFGS()
    state = descend(optimizer, goal, 6)[-1]
    assert any(float(c[0]) > 0.0 for c in state.curvatures)
    for _ in range(4):
        worse = state.loss * 2.0
        state = optimizer.update(state, worse, bowl(state.trial, goal)[1])
    assert all(float(c[0]) == 0.0 for c in state.curvatures) and float(state.scale[0]) == 0.0
    slope = tf.reduce_sum(state.direction * state.gradient)
    assert float(slope) < 0.0


def test_lbfgs_beats_adam_in_the_same_budget():
    goal = goals(2)
    lbfgs, adam = (descend(make(), goal, 20)[-1].loss for make in (LBFGS, lambda: Adam(0.02)))
    assert np.all(lbfgs.numpy() < adam.numpy())


def test_lbfgs_steps_descend():
    """Every direction it proposes is downhill, with and without history."""
    for state in descend(LBFGS(), goals(2), 15):
        assert np.all(tf.reduce_sum(state.direction * state.gradient, axis=[1, 2, 3]).numpy() < 0.0)


@EACH
@pytest.mark.parametrize("size", [(24, 32), (6, 8), (13, 17)])
def test_resize_keeps_shapes_and_forgets_the_loss(make, size):
    optimizer = make()
    before = descend(optimizer, goals(2), 4)[-1]
    after = optimizer.resize(before, size)
    old, new = tf.nest.flatten(before), tf.nest.flatten(after)
    assert len(old) == len(new)
    for a, b in zip(old, new, strict=True):
        assert a.dtype == b.dtype
        assert b.shape == ((2, *size, 3) if a.shape.rank == 4 else a.shape)
    assert np.all(np.isinf(after.loss))
    expected = np.clip(resize(before.image, size), 0.0, 1.0)
    np.testing.assert_array_equal(after.trial, expected)
    np.testing.assert_array_equal(after.image, expected)


def test_lbfgs_carries_its_history_over():
    optimizer = LBFGS()
    before = descend(optimizer, goals(1), HISTORY + 2)[-1]
    after = optimizer.resize(before, (24, 32))
    kept = [
        (float(a[0]), float(b[0])) for a, b in zip(before.curvatures, after.curvatures, strict=True)
    ]
    assert sum(b > 0.0 for _, b in kept) >= HISTORY - 2
    assert all(b == 0.0 for a, b in kept if a == 0.0)


def test_names():
    assert isinstance(make_optimizer("lbfgs", 0.1), LBFGS)
    adam = make_optimizer("adam", 0.1)
    assert isinstance(adam, Adam) and adam.learning_rate == 0.1


def test_adam_against_numpy():
    goal, rate = goals(1), 0.03
    states = descend(Adam(rate), goal, 3)
    x, first, second = np.full((1, *SHAPE), 0.5), 0.0, 0.0
    for step in (1, 2, 3):
        g = bowl(tf.constant(x, tf.float32), goal)[1].numpy()
        first, second = 0.9 * first + 0.1 * g, 0.99 * second + 0.01 * g**2
        x = x - rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.99**step)) + 1e-8)
        np.testing.assert_allclose(states[step - 1].trial, np.clip(x, 0, 1), atol=1e-5)


def test_adam_goes_on_from_the_best_after_a_loss_that_is_no_number():
    adam = Adam(0.05)
    pictures = tf.fill([2, 4, 4, 3], 0.5)
    gradient = tf.ones_like(pictures)
    state = adam.update(adam.start(pictures), tf.constant([2.0, 2.0]), gradient)
    lost = tf.fill(pictures.shape, float("nan"))
    state = adam.update(state, tf.constant([1.0, float("nan")]), lost)
    np.testing.assert_array_equal(state.trial[1], pictures[1])
    state = adam.update(state, tf.constant([1.0, 1.5]), gradient)
    assert np.isfinite(state.trial[1]).all() and state.steps[1] == 2.0


@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
def test_adam_in_strips_is_adam(monkeypatch, storage):
    monkeypatch.setattr(adam_module, "_STRIP", 5)
    adam = Adam(0.05, storage)
    random = np.random.default_rng(0)
    pictures = tf.constant(random.random((2, 17, 9, 3), np.float32))
    whole = strips = adam.start(pictures)
    for step in range(3):
        gradient = random.standard_normal(pictures.shape).astype(np.float32)
        loss = tf.constant([3.0 - step, 1.0 + step])
        whole = adam.update(whole, loss, gradient)
        strips = update_in_strips(adam.update, strips, loss, gradient)
    for one, other in zip(whole, strips, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    assert adam.fits(strips) and not Adam(0.05, "float16").fits(strips)
