"""Painting networks: their files, any size, blends, and tiles without a seam."""

import dataclasses
import io
import json
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from nst_ops.errors import InputError
from nst_ops.network import painter as painting
from nst_ops.network.facts import (
    EMBEDDED,
    ENTRY,
    LearnedStyle,
    NetworkFacts,
    network_facts,
    read_network,
)
from nst_ops.network.layout import REACH
from nst_ops.network.model import add_styles, load_network, make_network, save_network
from nst_ops.network.painter import Painter
from nst_ops.network.thumbnails import read_thumbnails

FACTS = NetworkFacts((LearnedStyle("night", "aa"), LearnedStyle("nightfall", "bb")), 4, 2)


def random_network(styles=2, width=4, blocks=2, seed=1):
    """A network whose styles differ."""
    model = make_network(styles, width, blocks, seed)
    random = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        if "_norm/" in variable.path:
            noise = random.normal(0.0, 0.3, variable.shape).astype(np.float32)
            variable.assign(variable + noise)
    return model


@pytest.fixture(scope="module")
def model():
    return random_network()


@pytest.fixture(scope="module")
def photo():
    return np.random.default_rng(0).random((1, 64, 96, 3), np.float32)


def test_a_saved_network_paints_the_same(model, photo, tmp_path):
    path = str(tmp_path / "n.keras")
    save_network(path, model, FACTS, half=False)
    loaded, facts = load_network(path)
    assert dataclasses.replace(facts, sha256="") == FACTS and len(facts.sha256) == 64
    style = [[0.3, 0.7]]
    np.testing.assert_array_equal(
        Painter(loaded).paint(photo, style), Painter(model).paint(photo, style)
    )


def test_16_bits_change_no_picture_visibly(model, photo, tmp_path):
    path = str(tmp_path / "n.keras")
    save_network(path, model, FACTS)
    half = Painter(load_network(path)[0]).paint(photo, [[1.0, 0.0]])
    np.testing.assert_allclose(half, Painter(model).paint(photo, [[1.0, 0.0]]), atol=0.01)


def test_keras_opens_the_file_too(model, photo, tmp_path):
    path = str(tmp_path / "n.keras")
    save_network(path, model, FACTS, half=False)
    inputs = {"image": photo, "style": np.array([[1.0, 0.0]], np.float32)}
    opened = keras.saving.load_model(path)
    np.testing.assert_allclose(opened(inputs), model(inputs), atol=1e-6)


def test_the_same_network_gives_the_same_file(model, tmp_path):
    for name in ("a.keras", "b.keras"):
        save_network(str(tmp_path / name), model, FACTS)
    assert (tmp_path / "a.keras").read_bytes() == (tmp_path / "b.keras").read_bytes()


@pytest.mark.parametrize("size", [(1, 1), (3, 70), (17, 33), (64, 64), (41, 200)])
def test_any_size_can_be_painted(model, size):
    photo = np.random.default_rng(2).random((2, *size, 3), np.float32)
    pictures = Painter(model).paint(photo, [[1.0, 0.0], [0.0, 1.0]])
    assert pictures.shape == photo.shape and np.isfinite(pictures).all()
    assert pictures.min() >= 0.0 and pictures.max() <= 1.0


def test_one_trace_serves_all_sizes(model):
    painter = Painter(model)
    for side in (32, 40, 52):
        painter.paint(np.zeros((1, side, side, 3), np.float32), [[1.0, 0.0]])
    assert painter.traces == 1


def test_styles_blend_and_pictures_of_a_batch_do_not_meet(model, photo):
    painter = Painter(model)
    both = np.concatenate([photo, 1.0 - photo])
    first, second = painter.paint(both, [[1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(first, painter.paint(photo, [[1.0, 0.0]])[0], atol=1e-5)
    np.testing.assert_allclose(second, painter.paint(1.0 - photo, [[0.0, 1.0]])[0], atol=1e-5)
    pure = painter.paint(photo, [[0.0, 1.0]])[0]
    blend = painter.paint(photo, [[0.5, 0.5]])[0]
    whole = np.abs(first - pure).mean()
    assert whole > 0.01
    assert np.abs(blend - first).mean() < whole and np.abs(blend - pure).mean() < whole


def test_large_pictures_have_no_seam(model, monkeypatch):
    photo = np.random.default_rng(3).random((1, 300, 410, 3), np.float32)
    monkeypatch.setattr(painting, "is_whole", lambda size: False)
    monkeypatch.setattr(painting, "LARGEST_WHOLE", 128)
    pictures = []
    for side in (64, 1024):
        monkeypatch.setattr(painting, "TILE", side)
        pictures.append(Painter(model).paint(photo, [[0.5, 0.5]]))
    np.testing.assert_allclose(*pictures, atol=1e-5)


def test_what_a_pixel_depends_on_ends_within_reach():
    model = random_network(1, 4, 7)
    size = 2 * REACH + 64
    photo = np.full((1, size, size, 3), 0.5, np.float32)
    changed = photo.copy()
    changed[:, size // 2, size // 2] = 1.0
    painter = Painter(model)
    style = tf.ones([1, 1])
    moments = painter._passes.observe(tf.constant(photo), style)
    one, other = (
        painter._passes.part(tf.constant(each), style, moments) for each in (photo, changed)
    )
    rows = np.nonzero(np.abs(one - other).max(axis=(0, 2, 3)) > 0.0)[0]
    assert 8 < rows.max() - size // 2 < REACH and 8 < size // 2 - rows.min() < REACH


def test_more_styles_leave_those_that_are_there(model, photo):
    larger = add_styles(model, FACTS, 1)
    for weights in ([1.0, 0.0], [0.0, 1.0]):
        np.testing.assert_allclose(
            Painter(larger).paint(photo, [[*weights, 0.0]]),
            Painter(model).paint(photo, [weights]),
            atol=1e-6,
        )


def test_styles_are_found_by_name_by_its_beginning_and_by_painting():
    assert FACTS.find("night") == FACTS.styles[0]
    assert FACTS.find("nightf") == FACTS.styles[1]
    assert FACTS.find("nigh") is None and FACTS.find("") is None and FACTS.find("x") is None
    assert FACTS.learned_from("bb") == FACTS.styles[1] and FACTS.learned_from("cc") is None
    assert FACTS.weights_of([("nightf", 3.0), ("night", 1.0)]) == [0.25, 0.75]
    with pytest.raises(InputError, match="no style 'day'; its styles are night, nightfall"):
        FACTS.weights_of([("day", 1.0)])


def test_damage_anywhere_is_an_error_that_names_the_file(model, tmp_path):
    path = tmp_path / "n.keras"
    save_network(str(path), model, FACTS)
    data = path.read_bytes()
    reference = [w.copy() for w in load_network(str(path))[0].get_weights()]
    refused = 0
    for place in np.random.default_rng(0).integers(0, len(data), 60):
        damaged = bytearray(data)
        damaged[place] ^= 0x55
        path.write_bytes(bytes(damaged))
        try:
            loaded, facts = load_network(str(path))
        except InputError as error:
            assert str(path) in str(error)
            refused += 1
        else:  # names and dates in the archive's own tables are no part of the network
            assert facts.styles == FACTS.styles
            for mine, theirs in zip(loaded.get_weights(), reference, strict=True):
                np.testing.assert_array_equal(mine, theirs)
    assert refused > 50
    for end in (0, 10, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:end])
        with pytest.raises(InputError, match="n.keras"):
            load_network(str(path))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (None, "does not say its styles"),
        ("{", "damaged, or no network"),
        ("[]", "cannot be used"),
        ('{"format": 7}', "of format 7"),
        ('{"format": 1, "styles": 3}', "cannot be used"),
    ],
)
def test_a_file_that_says_nothing_of_use_is_an_error(tmp_path, entry, message):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("config.json", "{}")
        if entry is not None:
            archive.writestr(ENTRY, entry)
    path = tmp_path / "n.keras"
    path.write_bytes(file.getvalue())
    with pytest.raises(InputError, match=message):
        read_network(str(path))


@pytest.mark.parametrize("change", [{"width": 8}, {"blocks": 3}, {"styles": FACTS.styles[:1]}])
def test_weights_of_another_network_are_an_error(model, tmp_path, change):
    path = tmp_path / "n.keras"
    save_network(str(path), model, dataclasses.replace(FACTS, **change))
    with pytest.raises(InputError, match="do not fit the network that it says it is"):
        load_network(str(path))


@pytest.mark.parametrize(
    ("names", "width"), [(["", "b"], 4), (["a", "a"], 4), ([], 4), (["a", "b"], -4)]
)
def test_styles_need_names_and_networks_a_width(model, tmp_path, names, width):
    path = tmp_path / "n.keras"
    styles = tuple(LearnedStyle(name, str(number)) for number, name in enumerate(names))
    save_network(str(path), model, NetworkFacts(styles, width, 2))
    with pytest.raises(InputError, match=f"{path.name}.*cannot be used"):
        read_network(str(path))


def test_a_file_that_changes_is_read_anew(model, tmp_path):
    path = str(tmp_path / "n.keras")
    save_network(path, model, FACTS)
    before = network_facts(path)
    save_network(path, random_network(seed=5), FACTS)
    assert network_facts(path).sha256 != before.sha256


def test_the_network_in_the_package_is_small_and_knows_the_example_paintings():
    facts, data = read_network(EMBEDDED)
    assert len(data) <= 1_500_000
    assert list(read_thumbnails(EMBEDDED)) == facts.names
    assert {"cafe_terrace_at_night", "church_at_auvers", "langlois_bridge", "pere_tanguy"} <= set(
        facts.names
    )
    assert facts.training["steps"] and facts.licence
    assert json.loads(facts.to_json())["training"] == facts.training
