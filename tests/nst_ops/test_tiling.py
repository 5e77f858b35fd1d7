import numpy as np
import pytest
import tensorflow as tf

from nst_ops.coarse_to_fine import loop
from nst_ops.images.inputs import Style
from nst_ops.losses import tiled
from nst_ops.losses.objective import Objective, evaluate
from nst_ops.losses.regions import regions_of
from nst_ops.losses.targets.attention import attention_targets
from nst_ops.losses.targets.cache import TargetCache
from nst_ops.losses.targets.content import content_targets
from nst_ops.losses.targets.paintings import Sight
from nst_ops.losses.targets.style import style_views
from nst_ops.losses.terms import LossWeights, Targets
from nst_ops.losses.tile_grid import tiles
from nst_ops.losses.tiled import evaluate_tiled
from nst_ops.settings import Settings
from nst_ops.vgg.geometry import margin, vgg19_geometry
from nst_ops.vgg.network import vgg19

WEIGHTS = LossWeights(*map(tf.constant, (5e3, 3e-2, 50.0, 3e-2)))


def objective_of(settings):
    return Objective.of(
        settings, vgg19([*settings.content_layers, *settings.style_layers]), "float32", False
    )


@pytest.mark.parametrize("size", [(64, 64), (65, 200), (333, 150), (16, 16), (95, 96)])
def test_inner_parts_cover_the_picture_once(size):
    seen = np.zeros(size, int)
    for tile in tiles(size, 64, 80):
        top, bottom, left, right = tile.inner
        seen[tile.rows, tile.columns][top:bottom, left:right] += 1
        assert tile.rows.start % 16 == tile.columns.start % 16 == 0
        for start, stop, length, low, high in (
            (tile.rows.start, tile.rows.stop, size[0], top, bottom),
            (tile.columns.start, tile.columns.stop, size[1], left, right),
        ):
            assert start == 0 or low == 80
            assert stop == length or (stop - start) - high == 80
    assert (seen == 1).all()


def margin_of(*layers):
    return margin(map(vgg19_geometry, layers))


def test_margin_is_what_the_deepest_layer_sees():
    assert margin_of("block1_conv1") == 16  # tiles begin at multiples of it
    assert margin_of("block5_conv1", "block2_conv1") == 80
    # Three convolutions more, at stride 16.
    assert margin_of("block5_conv4", "block5_conv1") == 80 + 3 * 16


def relative(found, expected):
    return float(tf.norm(found - expected) / tf.norm(expected))


def compare(photo, styles, picture, side, settings, keep=None):
    objective = objective_of(settings)
    size = tuple(picture.shape[1:3])
    regions = [regions_of(styles, keep, size)]
    both = []
    for tile in (None, side):
        sight = Sight(size, settings, objective, TargetCache())
        octaves, views = style_views(regions, size, sight)
        targets = Targets(
            content_targets(photo, regions, sight, tile),
            views,
            attention_targets(photo, regions, sight, tile, pictures=photo),
        )
        if tile is None:
            both.append(evaluate(objective, octaves, picture, targets, WEIGHTS))
        else:
            both.append(evaluate_tiled(objective, octaves, picture, targets, WEIGHTS, tile))
    (total, terms, gradient), (tiled_total, tiled_terms, tiled_gradient) = both
    assert relative(tiled_total, total) < 1e-4
    for name, term in terms.items():
        assert relative(tiled_terms[name], term) < 1e-4, name
    assert relative(tiled_gradient, gradient) < 1e-4
    return np.abs(tiled_gradient - gradient).max() / np.abs(gradient).max()


@pytest.mark.parametrize(
    "octaves", [[1.0], [1.0, 0.5], [1.0, 0.5, 1.0], [0.0, 1.0], [1.0, 0.0, 1.0]]
)
def test_loss_and_gradient_are_those_of_the_whole_picture(load, octaves, monkeypatch):
    """Odd sizes, so that pooling drops a row, and several tiles and strips a side."""
    monkeypatch.setattr(tiled, "_STRIP", 40)
    photo = tf.constant(load("coffee", 301)[None, :187])
    picture = tf.clip_by_value(photo + tf.random.stateless_normal(photo.shape, [1, 2]) * 0.1, 0, 1)
    worst = compare(
        photo,
        [Style(load("pere_tanguy", 300))],
        picture,
        96,
        Settings(octaves=octaves, attention_weight=1.0),
    )
    assert worst < 1e-3


@pytest.mark.parametrize("size", [(65, 64), (64, 65)])
def test_a_tile_may_have_no_position_of_a_layer(load, size):
    """The last tile is one px wide."""
    photo = load("cat", 120)[: size[0], : size[1]]
    settings = Settings(precision="float32", steps=2, size=max(size), octaves=[1.0])
    whole, parts = (
        loop.run(photo, [load("pere_tanguy", 96)], settings, tile=tile).images[0]
        for tile in (None, 32)
    )
    assert np.abs(whole - parts).max() < 0.05


def slope(height, width):
    """A mask that is soft everywhere, and not the same upside down."""
    rows, columns = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)[None]
    return np.float32(rows * columns)


def masked(load, size):
    first = Style(load("pere_tanguy", size), 1.0, slope(60, 90), slope(50, 37))
    return [first, Style(load("cafe_terrace_at_night", size), 2.0)]


def test_masks_are_exact_in_tiles_too(load):
    photo = tf.constant(load("coffee", 300)[None])
    picture = tf.clip_by_value(photo + tf.random.stateless_normal(photo.shape, [1, 2]) * 0.1, 0, 1)
    settings = Settings(octaves=[1.0, 0.5], attention_weight=1.0)
    keep = slope(40, 60)[::-1, ::-1].copy()
    assert compare(photo, masked(load, 200), picture, 96, settings, keep) < 1e-3


@pytest.mark.slow
def test_gradient_at_640_px(load):
    photo = tf.constant(load("rocket", 640)[None])
    picture = tf.clip_by_value(photo + tf.random.stateless_normal(photo.shape, [1, 2]) * 0.1, 0, 1)
    settings = Settings(attention_weight=1.0)
    compare(photo, [Style(load("cafe_terrace_at_night", 500))], picture, 256, settings)
    compare(photo, masked(load, 500), picture, 256, settings, slope(90, 60).T.copy())


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_pictures_are_the_same(load, optimizer):
    settings = Settings(
        precision="float32", scales=[{"size": 160, "steps": 3}], optimizer=optimizer
    )
    photo, painting = load("cat", 160), load("church_at_auvers", 160)
    whole = loop.run(photo, [painting], settings)
    tiled = loop.run(photo, [painting], settings, tile=64, cache=TargetCache())
    np.testing.assert_allclose(tiled.images, whole.images, atol=0.01)
    assert tiled.reports[0].losses["total"] == pytest.approx(
        whole.reports[0].losses["total"], rel=1e-3
    )
