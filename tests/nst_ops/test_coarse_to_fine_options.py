"""Options of the loop, its errors, and repetition."""

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from nst_ops import compiled
from nst_ops.coarse_to_fine import loop
from nst_ops.errors import InputError
from nst_ops.images import colors
from nst_ops.images.codec import encode
from nst_ops.images.inputs import Style
from nst_ops.optimizers import running_rows
from nst_ops.settings import Settings

QUICK = {"precision": "float32", "steps": 2, "octaves": [1.0]}
SHALLOW = {
    "content_layers": ["block2_conv1"],
    "style_layers": ["block1_conv1", "block2_conv1"],
    "attention_weight": 0.0,
}


@pytest.fixture(scope="module")
def small(load):
    return load("rocket", 64)


@pytest.fixture(scope="module")
def night(load):
    return load("cafe_terrace_at_night", 64)


def settings(**changes):
    return Settings(**{**QUICK, **SHALLOW, **changes})


@pytest.mark.parametrize("init", ["content", "noise"])
def test_same_seed_same_bytes(small, night, init):
    files = [
        encode(loop.run(small, [night], settings(init=init, steps=4, seed=5)).images[0])
        for _ in range(2)
    ]
    assert files[0] == files[1]


def test_step_is_traced_once_for_all_shapes_and_knobs(load, night):
    steps = _compiled_steps(settings())
    made = {}
    for size in (64, 80, 96):
        knobs = loop.Knobs(5e3, 3e-2, 10.0)
        for iterate in loop.stylize(load("cat", size), [night], settings(), knobs=knobs):
            knobs.style_weight *= 2.0
            made[size] = iterate.image().shape
    batch = np.stack([load("cat", 64)] * 3)
    loop.run(batch, [night] * 3, settings())
    (compiled,) = steps()
    assert compiled.traces == 1
    assert compiled.function.experimental_get_tracing_count() == 1
    assert len(set(made.values())) == 3


def test_step_compiles_under_xla_as_it_does_on_gpus(small, night, monkeypatch):
    """One trace, compiled for every shape: the same losses, to float tolerance."""
    chosen = settings(scales=[{"size": 48, "steps": 4}, {"size": 64, "steps": 3}], tolerance=0.0)
    plain = loop.run(small, [night], chosen)
    steps = _compiled_steps(chosen)
    monkeypatch.setattr(compiled.tf.config, "list_logical_devices", lambda kind=None: ["GPU"])
    fast = loop.run(small, [night], chosen)
    (step,) = steps()
    assert step.function._jit_compile and step.traces == 1
    _compiled_steps(chosen)  # forgets what was compiled for a GPU
    curves = [[point[2] for point in result.reports[0].curve] for result in (plain, fast)]
    np.testing.assert_allclose(curves[1], curves[0], rtol=0.02)


def _compiled_steps(chosen):
    """Forgets what was compiled for these settings, and tells the steps that are from now on."""
    functions = loop._objective(chosen, None, False)._functions
    functions.clear()
    return lambda: [made for key, made in functions.items() if key[0] == "step"]


def test_starts_from_the_photo(small, night):
    (first, *_) = loop.stylize(small, [night], settings(init="content"))
    np.testing.assert_array_equal(first.image()[0], small)
    (first, *_) = loop.stylize(small, [small], settings(init="content"))  # after itself
    assert first.losses["content"][0] == pytest.approx(0.0, abs=1e-6)


def test_starts_from_a_given_picture_of_any_size(small, load, night):
    given = load("cat", 80)
    (first, *_) = loop.stylize(small, [night], settings(), initial=given)
    picture = first.image()[0]
    assert picture.shape == small.shape
    np.testing.assert_allclose(picture.mean((0, 1)), given.mean((0, 1)), atol=0.02)
    assert np.abs(picture - small).mean() > 0.05


def test_starts_from_noise_in_the_styles_colors(small, night):
    first = {}
    for init in ("noise", "style"):
        (iterate, *_) = loop.stylize(small, [night], settings(init=init))
        first[init] = iterate.image()[0].mean((0, 1))
    goal = night.mean((0, 1))
    assert np.abs(first["style"] - goal).max() < 0.05
    assert np.abs(first["noise"] - goal).max() > 0.1


def test_match_recolors_the_painting(small, night):
    matched = loop.run(small, [night], settings(color="match", steps=4)).images
    by_hand = loop.run(
        small, [colors.match_colors(night, small)], settings(color="style", steps=4)
    ).images
    plain = loop.run(small, [night], settings(color="style", steps=4)).images
    np.testing.assert_array_equal(matched, by_hand)
    assert np.abs(matched - plain).mean() > 0.005


def test_content_colors_are_put_back_on_a_grey_run(small, night):
    kept = loop.run(small, [night], settings(color="content", steps=4)).images
    grey = colors.luminance(small)
    by_hand = loop.run(grey, [colors.match_luminance(night, small)], settings(steps=4)).images
    np.testing.assert_allclose(kept[0], colors.keep_colors(by_hand[0], small), atol=1e-5)


def test_a_blend_of_one_is_the_painting(small, night):
    alone = loop.run(small, [night], settings()).images
    blend = loop.run(small, [[Style(night, 2.5)]], settings()).images
    np.testing.assert_allclose(blend, alone, atol=1e-3)


def test_reports_tell_how_it_went(small, night):
    iterates = []
    chosen = settings(scales=[{"size": 32, "steps": 3}, {"size": 64, "steps": 2}])
    result = loop.run(small, [night], chosen, progress=iterates.append)
    (report,) = result.reports
    assert [(s.size, s.steps, s.stop_reason) for s in report.scales] == [
        ((22, 32), 3, "steps"),
        ((43, 64), 2, "steps"),
    ]
    assert [row[:2] for row in report.curve] == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2)]
    assert [i.step for i in iterates] == [1, 2, 3, 1, 2]
    assert report.losses["total"] == pytest.approx(min(r[2] for r in report.curve[3:]))
    assert not report.non_finite and result.seconds_optimize > 0.0


def test_converged_rows_stop_alone(small, load, night):
    """A flat photo in its own style is done at once; its neighbour goes on."""
    flat = np.full_like(small, 0.5)
    batch = np.stack([flat, small])
    result = loop.run(batch, [flat, night], settings(steps=12, tolerance=0.02, patience=3))
    done, moving = (report.scales[0] for report in result.reports)
    assert done.stop_reason in ("converged", "stalled") and done.steps < moving.steps
    for report, scale in zip(result.reports, (done, moving), strict=True):
        assert len(report.scales) == 1 and len(report.curve) == scale.steps
    np.testing.assert_allclose(result.images[0], flat, atol=0.02)


def test_stopped_rows_are_computed_no_more(small, night, monkeypatch):
    """And end as they were when they stopped."""
    flat = np.full_like(small, 0.5)
    photos, paintings = np.stack([flat, small, flat]), [flat, night, flat]
    chosen = settings(steps=12, tolerance=0.02, patience=3, optimizer="adam")
    made = running_rows.RunningRows.advance
    counts = []

    def advance(self, step, weights):
        def counting(state, *rest):
            counts.append(state.trial.shape[0])
            return step(state, *rest)

        return made(self, counting, weights)

    monkeypatch.setattr(running_rows.RunningRows, "advance", advance)
    iterates = list(loop.stylize(photos, paintings, chosen))
    stopped = next(index for index, iterate in enumerate(iterates) if iterate.stopped[0])
    assert counts == [3] * (stopped + 1) + [1] * (len(counts) - stopped - 1) and 1 in counts
    before = iterates[stopped]
    for iterate in iterates[stopped + 1 :]:
        images, losses = iterate.image(), iterate.losses["total"]
        np.testing.assert_array_equal(images[[0, 2]], before.image()[[0, 2]])
        np.testing.assert_array_equal(losses[[0, 2]], before.best["total"][[0, 2]])
        assert not np.array_equal(images[1], before.image()[1])


def test_checkpoints_know_under_which_weights_their_losses_are(small, night):
    """A knob that is turned between a step and its checkpoint counts for what goes on from it."""
    knobs = loop.Knobs(5e3, 3e-2, 10.0)
    chosen = settings(steps=8, tolerance=0.0)
    kept, images = [], []
    for iterate in loop.stylize(small, [night], chosen, knobs=knobs):
        images.append(iterate.image())
        if iterate.step == 3:
            knobs.style_weight = 1.0
            kept.append(iterate.checkpoint())
    rest = loop.run(small, [night], chosen, knobs=knobs, resume=kept.pop)
    np.testing.assert_array_equal(rest.images, images[-1])


def test_who_was_lost_under_a_huge_weight_comes_back(small, night):
    knobs = loop.Knobs(5e3, 3e-2, 10.0)
    seen = []
    for iterate in loop.stylize(
        np.stack([small, small]), [night, night], settings(steps=8, tolerance=0.0), knobs=knobs
    ):
        seen.append(iterate)
        knobs.style_weight = 1e12 if iterate.step == 2 else 3e-2
    assert seen[-1].step == 8 and np.isfinite(seen[-1].best["total"]).all()


def test_on_a_gpu_stopped_rows_are_put_back(small, night, monkeypatch):
    """There a smaller batch would be compiled anew."""
    flat = np.full_like(small, 0.5)
    photos, paintings = np.stack([flat, small]), [flat, night]
    chosen = settings(steps=12, tolerance=0.02, patience=3)
    apart = loop.run(photos, paintings, chosen)
    monkeypatch.setattr(running_rows, "uses_xla", lambda: True)
    together = loop.run(photos, paintings, chosen)
    np.testing.assert_allclose(together.images, apart.images, atol=1e-2)
    assert [report.scales[0].steps for report in together.reports] == [
        report.scales[0].steps for report in apart.reports
    ]


def test_gathered_iterates_keep_pictures_but_no_states(small, night):
    iterates = list(loop.stylize(small, [night], settings(steps=6, tolerance=0.0)))
    assert len({iterate.image().tobytes() for iterate in iterates}) > 3
    for iterate in iterates[:-1]:
        with pytest.raises(InputError, match="only the latest iterate has a checkpoint"):
            iterate.checkpoint()
    assert iterates[-1].checkpoint().convergence.step == 6


@pytest.mark.parametrize("value", [5, np.float64(0.3), np.float32(2.0), np.int64(7)])
def test_knobs_take_all_kinds_of_numbers(small, night, value):
    knobs = loop.Knobs(5e3, 3e-2, 10.0)
    losses = []
    for iterate in loop.stylize(small, [night], settings(steps=3), knobs=knobs):
        losses.append(iterate.losses["total"])
        knobs.style_weight = value
    assert np.isfinite(losses).all() and knobs.style_weight == float(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, "much", None])
def test_knobs_refuse_what_is_no_weight(value):
    knobs = loop.Knobs(5e3, 3e-2, 10.0)
    with pytest.raises(InputError, match="style_weight: .* is not a finite number of at least 0"):
        knobs.style_weight = value
    assert knobs.style_weight == 3e-2


@pytest.mark.parametrize("xla", [False, True])
def test_rows_that_had_stopped_go_on_under_other_weights(small, night, monkeypatch, xla):
    monkeypatch.setattr(running_rows, "uses_xla", lambda: xla)
    # Without style, a photo is done at once, and noise has far to go to it.
    knobs = loop.Knobs(5e3, 0.0, 0.0)
    photos = np.stack([small, small])
    initial = np.stack([small, np.random.default_rng(0).random(small.shape, np.float32)])
    chosen = settings(steps=14, tolerance=1e-3, patience=3, style_weight=0.0)
    seen = []
    for iterate in loop.stylize(photos, [night, night], chosen, knobs=knobs, initial=initial):
        seen.append(iterate)
        if iterate.stopped[0] and not iterate.stopped[1]:
            knobs.content_weight, knobs.style_weight = 1e3, 0.1
    turn = next(index for index, each in enumerate(seen) if each.stopped[0])
    assert seen[turn].stopped[0] in ("converged", "stalled") and not seen[turn + 1].stopped[0]
    # The losses are those of the new weights, of its own picture.
    for iterate in seen[turn + 1 :]:
        assert iterate.best["total"][0] <= iterate.losses["total"][0]
        assert iterate.best["style"][0] > 0.0
    assert seen[-1].best["total"][0] < 0.9 * seen[turn + 1].losses["total"][0]
    assert np.abs(seen[-1].image()[0] - small).mean() > 0.01
    report = seen[-1].reports[0]
    assert len(report.scales) == 1 and report.scales[0].steps > seen[turn].step


def test_everything_converges_under_a_large_tolerance(small, night):
    chosen = settings(steps=50, tolerance=1.0, patience=2)
    (scale,) = loop.run(small, [night], chosen).reports[0].scales
    assert (scale.stop_reason, scale.steps) == ("converged", 3)


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_a_model_of_nans_is_reported_as_non_finite(small, night, optimizer):
    import keras

    inputs = keras.Input((None, None, 3))
    broken = keras.layers.Rescaling(float("nan"))(inputs)
    model = keras.Model(inputs, {"block1_conv1": broken})
    chosen = settings(
        content_layers=["block1_conv1"],
        style_layers=["block1_conv1"],
        optimizer=optimizer,
        steps=12,
        patience=5,
    )
    (report,) = loop.run(small, [night], chosen, model=model).reports
    assert report.non_finite and report.scales[0].stop_reason == "non-finite"


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
@pytest.mark.parametrize("tile", [None, 48])
def test_a_finite_loss_without_a_gradient_is_no_picture(small, night, optimizer, tile):
    """Its photo would pass for the result, as converged."""
    import keras

    inputs = keras.Input((None, None, 3))

    @tf.custom_gradient
    def no_way_back(x):
        return tf.identity(x), lambda upstream: upstream * float("nan")

    model = keras.Model(inputs, {"block1_conv1": keras.layers.Activation(no_way_back)(inputs)})
    chosen = settings(
        content_layers=["block1_conv1"],
        style_layers=["block1_conv1"],
        optimizer=optimizer,
        steps=12,
    )
    (report,) = loop.run(small, [night], chosen, model=model, tile=tile).reports
    assert np.isfinite(report.curve[0][3:]).all()
    assert report.non_finite and [scale.stop_reason for scale in report.scales] == ["non-finite"]


def test_a_model_that_gives_no_dict(small, night):
    import keras

    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(4, 3)(inputs))
    with pytest.raises(InputError, match="output is a dict of feature maps"):
        loop.run(small, [night], settings(), model=model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, s: (p * 255.0, [s]), "contents has values.*divide 8-bit by 255"),
        (lambda p, s: (p - 0.5, [s]), "contents has values"),
        (lambda p, s: (p * np.nan, [s]), "contents has values"),
        (lambda p, s: (p[..., :1], [s]), r"contents has shape.*expected \[B, H, W, 3\]"),
        (lambda p, s: (p, [s * 255.0]), "a style has values"),
        (lambda p, s: (p, [s[..., 0]]), "a style has shape"),
        (lambda p, s: (p, [s, s]), "1 photos but 2 styles"),
        (lambda p, s: (np.stack([p, p]), [s]), "2 photos but 1 styles"),
    ],
)
def test_inputs_that_do_not_fit(small, night, change, message):
    with pytest.raises(InputError, match=message):
        loop.run(*change(small, night), settings())


def test_init_from_a_file_is_the_callers_to_read(small, night):
    with pytest.raises(InputError, match="my.png.*`initial`"):
        loop.run(small, [night], settings(init="my.png"))


@pytest.mark.parametrize("tile", [0, -16, 10])
def test_tiles_of_no_size(small, night, tile):
    with pytest.raises(InputError, match=f"tile: {tile} is not a multiple of 16"):
        loop.run(small, [night], settings(), tile=tile)


def test_an_empty_batch(small, night):
    with pytest.raises(InputError, match="nothing to stylize"):
        loop.run(np.zeros((0, 64, 64, 3), np.float32), [], settings())


@pytest.mark.parametrize("octaves", [[0.0, 0.0, 1.0], [0.0, 1.0]])
def test_leading_octaves_of_weight_zero(load, octaves):
    """The scale of 128 px, where only those would fit, is left out."""
    photo, painting = load("rocket", 256), load("cafe_terrace_at_night", 256)
    chosen = Settings(precision="float32", octaves=octaves, steps=1)
    (report,) = loop.run(photo, [painting], chosen).reports
    coarse = [] if len(octaves) == 3 else [(86, 128)]
    assert [scale.size for scale in report.scales] == [*coarse, (171, 256)]
    assert all(np.isfinite(point[2]) for point in report.curve)
    with pytest.raises(InputError, match=r"octaves: \[0.0, 0.0, 1.0\].*at least 125 px"):
        loop.run(load("rocket", 150), [painting], settings_of_octave(2))


def settings_of_octave(octave):
    return Settings(precision="float32", octaves=[float(i == octave) for i in range(octave + 1)])


def test_octaves_of_weight_zero_are_not_computed(load):
    """Nor do they change the picture."""
    photo, painting = load("rocket", 96), load("cafe_terrace_at_night", 96)
    alone = loop.run(photo, [painting], settings(octaves=[1.0], steps=3))
    with_zero = loop.run(photo, [painting], settings(octaves=[1.0, 0.0], steps=3))
    np.testing.assert_array_equal(alone.images, with_zero.images)


def test_a_batch_of_paintings_with_different_octaves_is_its_singles(load):
    """One is too narrow for the second octave."""
    photos = np.stack([load("cat", 96)] * 2)
    styles = [load("pere_tanguy", 96), load("pere_tanguy", 96)[:, 20:60]]
    chosen = Settings(precision="float32", octaves=[1.0, 1.0], steps=3)
    together = loop.run(photos, styles, chosen)
    for row, style in enumerate(styles):
        alone = loop.run(photos[row], [style], chosen)
        np.testing.assert_allclose(together.images[row], alone.images[0], atol=0.02)
        np.testing.assert_allclose(
            together.reports[row].losses["total"], alone.reports[0].losses["total"], rtol=1e-3
        )


def test_networks_that_are_used_no_more_are_let_go(small):
    """Compiled functions hold their network: they may not outlive it in caches of their own."""
    networks = []
    for _ in range(6):
        inputs = keras.Input((None, None, 3))
        model = keras.Model(inputs, {"a": keras.layers.Conv2D(4, 3, padding="same")(inputs)})
        networks.append(weakref.ref(model))
        chosen = Settings(
            content_layers=["a"], style_layers=["a"], attention_weight=0, steps=1, size=64
        )
        loop.run(small, [small], chosen, model=model, tile=32)
        del model
    keras.backend.clear_session()
    gc.collect()
    assert sum(network() is not None for network in networks) <= 4
