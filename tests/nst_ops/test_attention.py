"""The attention term: who answers whom, on batches, blends and tiles, and in checkpoints."""

import io

import numpy as np
import pytest
import tensorflow as tf

from nst_ops.coarse_to_fine import loop
from nst_ops.coarse_to_fine.checkpoints import load_checkpoint
from nst_ops.errors import InputError
from nst_ops.losses import attention
from nst_ops.losses.attention import answers, attend, questions, thin
from nst_ops.losses.moments import moments
from nst_ops.losses.targets.cache import TargetCache
from nst_ops.settings import Settings

QUICK = {
    "precision": "float32",
    "octaves": [1.0],
    "content_layers": ["block2_conv1"],
    "style_layers": ["block1_conv1", "block2_conv1"],
    "attention_layers": ["block2_conv1"],
    "attention_weight": 0.5,
    "scales": [{"size": 48, "steps": 4}, {"size": 64, "steps": 4}],
    "tolerance": 0.0,
}


def settings(**changes):
    return Settings(**{**QUICK, **changes})


@pytest.fixture(scope="module")
def pair(load):
    return load("rocket", 64), load("cafe_terrace_at_night", 64)


def random_features(seed, height, width, channels=6):
    values = np.random.default_rng(seed).standard_normal((1, height, width, channels))
    return tf.constant(values, tf.float32)


def asking(*shown):
    """What one image asks for, from features of photo and picture."""
    return questions([(features, moments(features)) for features in shown])[0]


def oracle(asked, features):
    """The painting's own features at the most similar position, by NumPy."""
    values = features.numpy().reshape(-1, features.shape[-1])
    normal = (values - values.mean(0)) / np.sqrt(values.var(0) + 1e-6)
    keys = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    flat = asked.numpy().reshape(-1, asked.shape[-1])
    return values[np.argmax(flat @ keys.T, axis=1)].reshape(asked.shape)


@pytest.mark.parametrize("rows", [64, 2**24])  # in chunks, and at once
def test_the_most_similar_position_answers(monkeypatch, rows):
    monkeypatch.setattr(attention, "_PAIRS_AT_ONCE", rows)
    monkeypatch.setattr(attention, "_ROUNDS", 0)
    painting = random_features(1, 7, 9)
    asked = asking(random_features(2, 20, 11), random_features(3, 20, 11))
    np.testing.assert_allclose(np.linalg.norm(tf.cast(asked, tf.float32), axis=-1), 1.0, rtol=1e-3)
    found = attend(asked, [answers(painting)], 0.0)
    np.testing.assert_allclose(found, oracle(asked, painting), rtol=1e-6)


@pytest.mark.parametrize("rows", [64, 2**24])  # in strips, and at once
def test_answers_hang_together(monkeypatch, rows):
    """A photo that is a part of the painting behind much noise is recognised by its neighbourhoods
    where single positions mislead, and never less well than these.
    """
    monkeypatch.setattr(attention, "_PAIRS_AT_ONCE", rows)
    painting = random_features(1, 24, 30)
    asked = asking(painting[:, 5:17, 8:26] + 0.9 * random_features(2, 12, 18))
    right = painting[0, 5:17, 8:26]
    exact = []
    for rounds in (0, 1, 3):
        monkeypatch.setattr(attention, "_ROUNDS", rounds)
        found = attend(asked, [answers(painting)], 0.0)
        exact.append(float(np.mean(np.all(np.isclose(found, right), axis=-1))))
    assert exact[0] < 0.6 and exact[0] < exact[1] <= exact[2] and exact[2] > 0.9


def test_only_the_part_that_is_masked_answers():
    painting = random_features(1, 8, 9)
    mask = np.zeros((1, 8, 9, 1), np.float32)
    mask[:, :, :4] = 1.0
    asked = asking(random_features(2, 6, 7))
    allowed = painting.numpy()[0, :, :4].reshape(-1, 6)
    found = attend(asked, [answers(painting, mask=tf.constant(mask))], 0.0).numpy()
    assert all((allowed == value).all(-1).any() for value in found.reshape(-1, 6))
    soft = attend(asked, [answers(painting, mask=tf.constant(mask))], 1e-3).numpy()
    assert soft.min() >= allowed.min() and soft.max() <= allowed.max()


def test_a_painting_answers_only_where_it_has_a_weight():
    paintings = [random_features(seed, 8, 9) for seed in (1, 2)]
    where = np.zeros((6, 7), np.float32)
    where[:, :3] = 2.0
    given = [
        answers(paintings[0], tf.constant(where)),
        answers(paintings[1], tf.constant(1 - where / 2)),
    ]
    asked = asking(random_features(3, 6, 7))
    for temperature in (0.0, 0.05):
        found = attend(asked, given, temperature).numpy()
        sides = (found[:, :3], found[:, 3:])
        for side, columns, own in zip(sides, (slice(0, 3), slice(3, 7)), paintings, strict=True):
            alone = attend(asked, [answers(own)], temperature).numpy()[:, columns]
            np.testing.assert_allclose(side, alone, rtol=1e-5, atol=1e-6)


def test_a_painting_answers_itself_whatever_its_palette():
    painting = random_features(4, 8, 8)
    asked = asking(3.0 * painting + 2.0)
    np.testing.assert_allclose(attend(asked, [answers(painting)], 0.0), painting[0], rtol=1e-6)
    np.testing.assert_allclose(
        moments(painting).normalize(painting).numpy().mean((1, 2)), 0.0, atol=1e-5
    )


def test_a_temperature_blends_and_a_low_one_chooses(monkeypatch):
    monkeypatch.setattr(attention, "_ROUNDS", 0)  # only at 0 do neighbours count
    painting, asked = random_features(5, 6, 6), asking(random_features(6, 5, 5))
    nearest = attend(asked, [answers(painting)], 0.0)
    np.testing.assert_allclose(attend(asked, [answers(painting)], 1e-4), nearest, atol=1e-3)
    vague = attend(asked, [answers(painting)], 100.0)
    mean = np.broadcast_to(painting.numpy().mean((1, 2)), vague.shape)
    np.testing.assert_allclose(vague, mean, atol=0.05)


def test_of_a_blend_the_heavier_painting_answers_more_often():
    first, second = random_features(7, 12, 12), random_features(8, 12, 12)
    asked = asking(random_features(9, 30, 30))

    def share(weight):
        found = attend(asked, [answers(first, weight), answers(second)], 0.0).numpy()
        of_first = {tuple(row) for row in first.numpy().reshape(-1, 6)}
        return np.mean([tuple(row) in of_first for row in found.reshape(-1, 6)])

    assert 0.35 < share(1.0) < 0.65
    assert share(0.5) < share(1.0) - 0.1 and share(2.0) > share(1.0) + 0.1


def test_of_large_paintings_a_regular_part_answers(monkeypatch):
    monkeypatch.setattr(attention, "MOST_ANSWERS", 100)
    whole = random_features(10, 40, 30)
    some = thin(whole)
    assert some.shape[1] * some.shape[2] <= 100
    np.testing.assert_array_equal(some, whole[:, ::4, ::4])
    given = answers(some, thinned=True)
    found = attend(asking(random_features(11, 9, 8)), [given], 0.0).numpy().reshape(-1, 6)
    assert all((some.numpy().reshape(-1, 6) == value).all(-1).any() for value in found)


def test_a_thinned_painting_counts_as_much_as_another():
    """Of two of one kind, each answers about half, though only one can follow its neighbours."""
    first, second = random_features(7, 20, 20, 16), random_features(8, 20, 20, 16)
    asked = asking(random_features(9, 30, 30, 16))
    given = [answers(first, thinned=True), answers(second)]
    share = np.mean(attention.nearest(asked, given).numpy() < 400)
    assert 0.4 < share < 0.6


@pytest.mark.parametrize("temperature", [0.0, 0.02])
def test_a_painting_that_is_the_photo_stays_out_of_others_regions(temperature):
    """Its cosines are 1, and a little more in float16."""
    photo, other = random_features(1, 12, 9), random_features(2, 12, 9)
    where = np.zeros((12, 9), np.float32)
    where[:, :4] = 1.0
    given = [answers(photo, tf.constant(where)), answers(other, tf.constant(1.0 - where))]
    found = attend(asking(photo), given, temperature)[:, 4:]
    alone = attend(asking(photo), given[1:], temperature)[:, 4:]
    np.testing.assert_allclose(found, alone, rtol=1e-5, atol=1e-6)


def test_off_is_as_if_it_were_not_there(pair):
    photo, painting = pair
    off = loop.run(photo, [painting], settings(attention_weight=0.0))
    on = loop.run(photo, [painting], settings(attention_weight=1.0))
    assert off.reports[0].losses["attention"] == 0.0 < on.reports[0].losses["attention"]
    losses = on.reports[0].losses
    parts = sum(value for name, value in losses.items() if name != "total")
    assert losses["total"] == pytest.approx(parts, rel=1e-4)
    assert not np.array_equal(on.images, off.images)


@pytest.mark.parametrize("every", [0, 3])
@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_the_term_falls(pair, optimizer, every):
    photo, painting = pair
    chosen = settings(
        attention_weight=1.0,
        optimizer=optimizer,
        scales=[{"size": 64, "steps": 12}],
        attention_every=every,
        patience=50,
    )
    (report,) = loop.run(photo, [painting], chosen).reports
    curve = [point[-1] for point in report.curve]
    assert curve[-1] < 0.9 * curve[0]


def test_batches_and_blends_are_their_singles(load, pair):
    photos = np.stack([pair[0], load("astronaut", 64)[: pair[0].shape[0], : pair[0].shape[1]]])
    blends = [[pair[1]], [pair[1], (load("pere_tanguy", 64), 2.0)]]
    chosen = settings(attention_every=3)
    together = loop.run(photos, blends, chosen)
    for row in range(2):
        alone = loop.run(photos[row], [blends[row]], chosen)
        np.testing.assert_allclose(together.images[row], alone.images[0], atol=2e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {"color": "content"},
        {"color": "match"},
        {"init": "noise"},
        {"init": "style"},
        {"style_scales": [{"ratio": 1.0}, {"ratio": 0.7}]},
        {"precision": "bfloat16"},
    ],
)
def test_goes_with_other_settings(pair, changes):
    photo, painting = pair
    result = loop.run(photo, [painting], settings(**changes))
    assert np.isfinite(result.images).all() and result.reports[0].losses["attention"] > 0.0


@pytest.mark.parametrize("after", [2, 4, 6, 7])  # within a scale, between, behind a matching
@pytest.mark.parametrize("every", [0, 2])
def test_checkpoints_go_on_to_the_same_bytes(pair, after, every):
    arguments = pair[0], [pair[1]], settings(attention_every=every)
    whole = loop.run(*arguments)
    iterates = loop.stylize(*arguments)
    for _ in range(after):
        iterate = next(iterates)
    file = io.BytesIO()
    iterate.checkpoint().save(file)
    file.seek(0)
    checkpoint, _ = load_checkpoint(file)
    rest = loop.run(*arguments, resume=lambda: checkpoint)
    np.testing.assert_array_equal(rest.images, whole.images)


def test_large_paintings_are_thinned_on_their_way(pair, monkeypatch):
    monkeypatch.setattr(attention, "MOST_ANSWERS", 100)
    photo, painting = pair
    mask = np.ones(painting.shape[:2], np.float32)
    mask[:20] = 0.0
    style = loop.Style(painting, 1.0, None, mask)
    found = loop.run(photo, style, settings(), cache=TargetCache())
    assert np.isfinite(found.images).all() and found.reports[0].losses["attention"] > 0.0


def test_tiles_are_the_whole(load):
    photo, painting = load("cat", 160), load("church_at_auvers", 160)
    chosen = Settings(precision="float32", scales=[{"size": 160, "steps": 3}], attention_weight=1.0)
    whole = loop.run(photo, [painting], chosen)
    tiled = loop.run(photo, [painting], chosen, tile=64, cache=TargetCache())
    np.testing.assert_allclose(tiled.images, whole.images, atol=0.02)
    for name, value in whole.reports[0].losses.items():
        assert tiled.reports[0].losses[name] == pytest.approx(value, rel=2e-2), name


def test_a_knob_changes_the_term_while_it_runs(pair):
    photo, painting = pair
    knobs = loop.Knobs(5e3, 3e-2, 10.0, 1.0)
    for iterate in loop.stylize(photo, [painting], settings(), knobs=knobs):
        if iterate.scale == 1:
            knobs.attention_weight = 0.0
    assert iterate.losses["attention"][0] == 0.0
    with pytest.raises(InputError, match="attention_weight"):
        knobs.attention_weight = -1.0


def test_knobs_that_do_not_name_it_leave_it_as_the_settings_have_it(pair):
    chosen = settings(scales=[{"size": 64, "steps": 3}])
    knobs = loop.Knobs(chosen.content_weight, chosen.style_weight, chosen.tv_weight)
    plain, steered = (loop.run(*pair, chosen, knobs=each) for each in (None, knobs))
    np.testing.assert_array_equal(steered.images, plain.images)


def test_pictures_that_have_converged_are_not_matched_with_their_neighbours(load):
    """Who shares a batch is the scheduler's choice, and must not change a picture."""
    names = "rocket", "cafe_terrace_at_night"
    photos = np.stack([load(name, 96)[:64, :64] for name in names])
    chosen = settings(
        scales=[{"size": 64, "steps": 24}], tolerance=0.02, patience=3, attention_every=8
    )
    painting = load("cafe_terrace_at_night", 64)
    together = loop.run(photos, [[painting]] * 2, chosen)
    steps = []
    for row, photo in enumerate(photos):
        alone = loop.run(photo, [painting], chosen)
        steps.append(alone.reports[0].scales[0].steps)
        assert together.reports[row].scales[0].steps == steps[-1]
        # Rounding may turn the answer of a position or two.
        assert np.abs(together.images[row] - alone.images[0]).mean() < 0.01
    assert min(steps) < 16 < max(steps)  # one has converged when the other is matched again
