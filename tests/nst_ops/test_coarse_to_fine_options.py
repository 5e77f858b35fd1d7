"""What `test_coarse_to_fine` leaves: options, errors, and repetition."""

import numpy as np
import pytest

from nst_ops import coarse_to_fine, colors, compiled
from nst_ops.errors import InputError
from nst_ops.images import encode
from nst_ops.optimizers import make_optimizer
from nst_ops.settings import Settings
from nst_ops.targets import Style

QUICK = {"precision": "float32", "steps": 2, "octaves": [1.0]}
SHALLOW = {"content_layers": ["block2_conv1"], "style_layers": ["block1_conv1", "block2_conv1"]}


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
        encode(coarse_to_fine.run(small, [night], settings(init=init, steps=4, seed=5)).images[0])
        for _ in range(2)
    ]
    assert files[0] == files[1]


def test_step_is_traced_once_for_all_shapes_and_knobs(load, night):
    coarse_to_fine._step.cache_clear()
    made = {}
    for size in (64, 80, 96):
        knobs = coarse_to_fine.Knobs(5e3, 3e-2, 10.0)
        for iterate in coarse_to_fine.stylize(load("cat", size), [night], settings(), knobs=knobs):
            knobs.style_weight *= 2.0
            made[size] = iterate.image().shape
    batch = np.stack([load("cat", 64)] * 3)
    coarse_to_fine.run(batch, [night] * 3, settings())
    assert (
        coarse_to_fine._step.cache_info().misses == 1
        and coarse_to_fine._step.cache_info().hits == 3
    )
    compiled = coarse_to_fine._step(*_arguments())
    assert coarse_to_fine._step.cache_info().misses == 1, (
        "this test asks for another step than stylize"
    )
    assert compiled.traces == 1
    assert compiled.function.experimental_get_tracing_count() == 1
    assert len(set(made.values())) == 3


def test_step_compiles_under_xla_as_it_does_on_gpus(small, night, monkeypatch):
    """One trace, compiled for every shape: the same losses, to float tolerance."""
    chosen = settings(scales=[{"size": 48, "steps": 4}, {"size": 64, "steps": 3}], tolerance=0.0)
    plain = coarse_to_fine.run(small, [night], chosen)
    coarse_to_fine._step.cache_clear()
    monkeypatch.setattr(compiled.tf.config, "list_logical_devices", lambda kind=None: ["GPU"])
    fast = coarse_to_fine.run(small, [night], chosen)
    step = coarse_to_fine._step(*_arguments())
    assert step.function._jit_compile and step.traces == 1
    coarse_to_fine._step.cache_clear()
    curves = [[point[2] for point in result.reports[0].curve] for result in (plain, fast)]
    np.testing.assert_allclose(curves[1], curves[0], rtol=0.02)


def _arguments():
    chosen = settings()
    objective = coarse_to_fine._objective(chosen, None, False)
    return (objective, make_optimizer("lbfgs", chosen.learning_rate), (1.0,), None)


def test_starts_from_the_photo(small, night):
    (first, *_) = coarse_to_fine.stylize(small, [night], settings(init="content"))
    np.testing.assert_array_equal(first.image()[0], small)
    assert first.losses["content"][0] == pytest.approx(0.0, abs=1e-6)


def test_starts_from_a_given_picture_of_any_size(small, load, night):
    given = load("cat", 80)
    (first, *_) = coarse_to_fine.stylize(small, [night], settings(), initial=given)
    picture = first.image()[0]
    assert picture.shape == small.shape
    np.testing.assert_allclose(picture.mean((0, 1)), given.mean((0, 1)), atol=0.02)
    assert np.abs(picture - small).mean() > 0.05


def test_starts_from_noise_in_the_styles_colors(small, night):
    first = {}
    for init in ("noise", "style"):
        (iterate, *_) = coarse_to_fine.stylize(small, [night], settings(init=init))
        first[init] = iterate.image()[0].mean((0, 1))
    goal = night.mean((0, 1))
    assert np.abs(first["style"] - goal).max() < 0.05
    assert np.abs(first["noise"] - goal).max() > 0.1


def test_match_recolors_the_painting(small, night):
    matched = coarse_to_fine.run(small, [night], settings(color="match", steps=4)).images
    by_hand = coarse_to_fine.run(
        small, [colors.match_colors(night, small)], settings(color="style", steps=4)
    ).images
    plain = coarse_to_fine.run(small, [night], settings(color="style", steps=4)).images
    np.testing.assert_array_equal(matched, by_hand)
    assert np.abs(matched - plain).mean() > 0.005


def test_content_colors_are_put_back_on_a_grey_run(small, night):
    kept = coarse_to_fine.run(small, [night], settings(color="content", steps=4)).images
    grey = colors.luminance(small)
    by_hand = coarse_to_fine.run(
        grey, [colors.match_luminance(night, small)], settings(steps=4)
    ).images
    np.testing.assert_allclose(kept[0], colors.keep_colors(by_hand[0], small), atol=1e-5)


def test_a_blend_of_one_is_the_painting(small, night):
    alone = coarse_to_fine.run(small, [night], settings()).images
    blend = coarse_to_fine.run(small, [[Style(night, 2.5)]], settings()).images
    np.testing.assert_allclose(blend, alone, atol=1e-3)


def test_reports_tell_how_it_went(small, night):
    iterates = []
    chosen = settings(scales=[{"size": 32, "steps": 3}, {"size": 64, "steps": 2}])
    result = coarse_to_fine.run(small, [night], chosen, progress=iterates.append)
    (report,) = result.reports
    assert [(s.size, s.steps, s.stop_reason) for s in report.scales] == [
        ((22, 32), 3, "steps"),
        ((43, 64), 2, "steps"),
    ]
    assert [row[:2] for row in report.curve] == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2)]
    assert [i.step for i in iterates] == [1, 2, 3, 1, 2]
    assert report.losses["total"] == pytest.approx(min(r[2] for r in report.curve[3:]))
    assert not report.non_finite and result.seconds_optimise > 0.0


def test_converged_rows_stop_alone(small, load, night):
    """A flat photo in its own style is done at once; its neighbour goes on."""
    flat = np.full_like(small, 0.5)
    batch = np.stack([flat, small])
    result = coarse_to_fine.run(
        batch, [flat, night], settings(steps=12, tolerance=0.02, patience=3)
    )
    done, moving = (report.scales[0] for report in result.reports)
    assert done.stop_reason in ("converged", "stalled") and done.steps < moving.steps
    for report, scale in zip(result.reports, (done, moving), strict=True):
        assert len(report.scales) == 1 and len(report.curve) == scale.steps
    np.testing.assert_allclose(result.images[0], flat, atol=0.02)


def test_everything_converges_under_a_large_tolerance(small, night):
    chosen = settings(steps=50, tolerance=1.0, patience=2)
    (scale,) = coarse_to_fine.run(small, [night], chosen).reports[0].scales
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
    (report,) = coarse_to_fine.run(small, [night], chosen, model=model).reports
    assert report.non_finite and report.scales[0].stop_reason == "non-finite"


def test_a_model_that_gives_no_dict(small, night):
    import keras

    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(4, 3)(inputs))
    with pytest.raises(InputError, match="must be a dict of feature maps"):
        coarse_to_fine.run(small, [night], settings(), model=model)


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
        coarse_to_fine.run(*change(small, night), settings())


def test_init_from_a_file_is_the_callers_to_read(small, night):
    with pytest.raises(InputError, match="my.png.*`initial`"):
        coarse_to_fine.run(small, [night], settings(init="my.png"))


def test_an_empty_batch(small, night):
    with pytest.raises(InputError, match="nothing to stylize"):
        coarse_to_fine.run(np.zeros((0, 64, 64, 3), np.float32), [], settings())
