import numpy as np
import pytest
import tensorflow as tf

from nst_ops.coarse_to_fine import loop
from nst_ops.errors import InputError
from nst_ops.images import colors
from nst_ops.losses.targets.cache import TargetCache
from nst_ops.optimizers import adam, lbfgs
from nst_ops.settings import Settings

QUICK = {"precision": "float32", "steps": 4, "octaves": [1.0, 1.0]}


def test_lower_loss_and_pixels_in_range(photo, painting):
    result = loop.run(photo, [painting], Settings(**QUICK))
    curve = result.reports[0].curve
    assert result.reports[0].losses["total"] < 0.85 * curve[0][2]
    assert result.images.shape == (1, *photo.shape)
    assert 0.0 <= result.images.min() and result.images.max() <= 1.0
    for _, _, total, *terms in curve:
        assert total == pytest.approx(sum(terms), rel=1e-4)


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_batch_of_four_is_four_singles(load, optimizer):
    # Few steps: rounding that differs by batch grows from step to step, as in any descent.
    photos = [load(name, 96)[:64, :64] for name in ("rocket", "cat", "coffee", "astronaut")]
    styles = [load("church_at_auvers", 64), load("pere_tanguy", 64)] * 2
    settings = Settings(**QUICK, optimizer=optimizer, scales=[{"size": 64, "steps": 4}])
    together = loop.run(np.stack(photos), styles, settings)
    for row, (photo, style) in enumerate(zip(photos, styles, strict=True)):
        alone = loop.run(photo, [style], settings)
        assert together.reports[row].losses["total"] == pytest.approx(
            alone.reports[0].losses["total"], rel=1e-3
        )
        np.testing.assert_allclose(together.images[row], alone.images[0], atol=0.02)


def test_lbfgs_beats_adam_in_the_same_budget(photo, painting):
    losses = {}
    for optimizer in ("lbfgs", "adam"):
        settings = Settings(precision="float32", steps=20, optimizer=optimizer)
        losses[optimizer] = loop.run(photo, [painting], settings).reports[0].losses["total"]
    assert losses["lbfgs"] < losses["adam"]


def test_eager_equals_compiled(photo, painting):
    settings = Settings(precision="float32", steps=3)
    compiled = loop.run(photo, [painting], settings)
    eager = loop.run(photo, [painting], settings, eager=True, cache=TargetCache())
    np.testing.assert_allclose(eager.images, compiled.images, atol=0.01)


def test_knobs_act_between_steps(photo, painting):
    settings = Settings(precision="float32", steps=3)
    knobs = loop.Knobs(5e3, 3e-2, 10.0)
    styles = []
    for iterate in loop.stylize(photo, [painting], settings, knobs=knobs):
        styles.append(iterate.losses["style"][0])
        knobs.style_weight = 0.3
    assert styles[1] > 2.0 * styles[0]


def test_converges_and_says_so(photo, painting):
    settings = Settings(precision="float32", steps=60, tolerance=0.05, patience=2)
    (scale,) = loop.run(photo, [painting], settings).reports[0].scales
    assert scale.stop_reason == "converged" and scale.steps < 60


def test_scales_hand_over(load, painting):
    settings = Settings(
        precision="float32", scales=[{"size": 64, "steps": 6}, {"size": 96, "steps": 3}]
    )
    iterates = list(loop.stylize(load("cat", 96), [painting], settings))
    assert [i.size for i in iterates] == [(43, 64)] * 6 + [(64, 96)] * 3
    alone = Settings(precision="float32", scales=[{"size": 96, "steps": 3}])
    fresh = list(loop.stylize(load("cat", 96), [painting], alone))
    assert iterates[6].losses["style"][0] < fresh[0].losses["style"][0]


@pytest.mark.parametrize("init", ["noise", "style"])
def test_init_is_seeded(photo, painting, init):
    settings = Settings(precision="float32", steps=1, init=init)
    images = [loop.run(photo, [painting], settings, seeds=[s]).images for s in (1, 1, 2)]
    np.testing.assert_array_equal(images[0], images[1])
    assert np.abs(images[0] - images[2]).mean() > 0.01


def test_content_weight_keeps_the_photo(photo, painting):
    distances = [
        np.abs(
            loop.run(photo, [painting], Settings(**QUICK, content_weight=w)).images[0] - photo
        ).mean()
        for w in (1e4, 1e3)
    ]
    assert distances[0] < distances[1]


def test_color_content_keeps_chroma(photo, painting):
    picture = loop.run(photo, [painting], Settings(**QUICK, color="content")).images[0]
    chroma = [(image @ colors._TO_YIQ.T)[..., 1:] for image in (picture, photo)]
    inside = (picture.min(-1) > 0.0) & (picture.max(-1) < 1.0)  # clipping moves the rest
    np.testing.assert_allclose(chroma[0][inside], chroma[1][inside], atol=0.02)


def test_blend_lies_between(photo, load):
    night, bridge = load("cafe_terrace_at_night", 96), load("langlois_bridge", 96)
    settings = Settings(precision="float32", steps=8)
    first, blended, second = (
        loop.run(photo, [blend], settings).images
        for blend in ([(night, 1.0)], [(night, 1.0), (bridge, 1.0)], [(bridge, 1.0)])
    )
    apart = np.abs(first - second).mean()
    assert np.abs(blended - first).mean() < apart and np.abs(blended - second).mean() < apart


def test_another_model_in_place(photo, painting):
    import keras

    inputs = keras.Input((None, None, 3))
    seeded = keras.initializers.GlorotUniform(seed=1)
    convolution = keras.layers.Conv2D(8, 3, activation="relu", kernel_initializer=seeded)
    model = keras.Model(inputs, {"block1_conv1": convolution(inputs)})
    settings = Settings(
        precision="float32",
        steps=12,
        content_weight=0.0,
        attention_weight=0.0,
        content_layers=["block1_conv1"],
        style_layers=["block1_conv1"],
    )
    report = loop.run(photo, [painting], settings, model=model).reports[0]
    assert report.losses["total"] < 0.5 * report.curve[0][2]
    with pytest.raises(InputError, match="lacks.*block4_conv2"):
        loop.run(photo, [painting], Settings(), model=model)


@pytest.mark.parametrize(
    ("contents", "message"),
    [(np.full((64, 64, 3), 255.0), "divide 8-bit by 255"), (np.zeros((64, 64)), "shape")],
)
def test_wrong_pictures(contents, painting, message):
    with pytest.raises(InputError, match=message):
        loop.run(contents, [painting], Settings(steps=1))


def test_targets_are_computed_once(photo, painting):
    cache = TargetCache()
    calls = []
    get = cache.get
    cache.get = lambda key, compute, name=None: get(key, lambda: calls.append(key) or compute())
    for _ in range(2):
        loop.run(photo, [painting], Settings(**QUICK), cache=cache)
    # On the first run: Gram matrices, moments for content, features for attention.
    assert len(calls) == 3


def test_cache_is_bounded():
    cache = TargetCache(max_bytes=1000)
    for key in range(5):
        cache.get(key, lambda: ({"x": tf.zeros([1, 10, 10])},))
    assert cache.bytes <= 1000


@pytest.mark.parametrize("make", [lbfgs.LBFGS, lambda: adam.Adam(0.05)])
def test_optimizers_find_a_minimum_and_keep_the_best(make):
    """Of a badly scaled quadratic, for two images at once."""
    goal = tf.constant(np.random.default_rng(3).uniform(0.2, 0.8, (2, 16, 12, 3)), tf.float32)
    scale = tf.constant(np.linspace(0.1, 1.0, 16)[None, :, None, None], tf.float32)
    optimizer = make()
    state = optimizer.start(tf.fill([2, 16, 12, 3], 0.5))
    best = []
    for _ in range(40):
        distance = state.trial - goal
        loss = tf.reduce_sum(scale * distance**2, axis=[1, 2, 3])
        state = optimizer.update(state, loss, 2 * scale * distance)
        best.append(state.loss.numpy())
    assert np.all(np.diff(best, axis=0) <= 0.0)
    assert np.all(best[-1] < 0.02 * best[0])


def test_resized_state_fits(photo, painting):
    optimizer = lbfgs.LBFGS()
    state = optimizer.resize(optimizer.start(tf.constant(photo)[None]), (130, 192))
    assert state.image.shape == (1, 130, 192, 3)
    assert {s.shape[1] for s in state.s} == {130}
