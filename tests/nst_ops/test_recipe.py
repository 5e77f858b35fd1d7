"""The identity of finished pictures: collections of users hang on it."""

import hashlib
import json

import pytest

from nst_ops.engines import recipe as recipes
from nst_ops.engines.recipe import recipe
from nst_ops.settings import Settings

SIZE = (341, 512)


def digest(settings=None, picture=SIZE):
    text = json.dumps(recipe(Settings(**(settings or {})), picture), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


# Never change a line: it would make users' collections anew. If a picture changes, METHOD does.
HELD = {
    "67b7b0e7eda8": {},
    "e610510a11cc": {"scales": [{"size": 128, "steps": 50}, {"size": 512, "steps": 20}]},
    "205b80cefc29": {"content_weight": 1e3, "style_weight": 0.1, "tv_weight": 100.0},
    "3045a5f2b9bf": {"content_layers": ["block3_conv1"], "style_layers": {"block1_conv1": 2.0}},
    "6024d348eecb": {"optimizer": "adam", "learning_rate": 0.05},
    "c6f43a07afcc": {"init": "noise", "seed": 7},
    "ca5c4f8723e6": {
        "color": "match",
        "pooling": "average",
        "octaves": [1.0],
        "precision": "float32",
    },
}


@pytest.mark.parametrize("held", HELD)
def test_pictures_made_by_this_version_stay_known(held):
    assert digest(HELD[held]) == held


@pytest.mark.parametrize(
    "inert",
    [
        {"learning_rate": 0.5},  # L-BFGS has none
        {"seed": 3},  # nothing is random
        {"size": 600},  # the photo has 512 px
        {"enlarge": True},
        {"weights": "elsewhere.npz"},  # whose bytes count
        {"content_layers": ["block4_conv2"]},  # the same, said in another way
        {"octaves": [1, 1, 1]},
    ],
)
def test_settings_without_effect_change_nothing(inert):
    assert digest(inert) == digest()


def test_listed_scales_leave_size_and_steps_without_effect():
    listed = {"scales": [{"size": 128, "steps": 50}, {"size": 512, "steps": 20}]}
    assert digest(listed | {"size": 64, "steps": 9}) == digest(listed)


def test_layers_of_a_term_of_weight_zero_still_count():
    """They decide which octaves and paintings are large enough, and so the picture."""
    for weight, setting in (
        ("content_weight", {"content_layers": ["block5_conv1"]}),
        ("style_weight", {"style_scales": [{"ratio": 0.5}]}),
    ):
        assert digest({weight: 0} | setting) != digest({weight: 0})


@pytest.mark.parametrize(
    "effect",
    [
        {"steps": 23},
        {"size": 500},
        {"tolerance": 0.01},
        {"patience": 6},
        {"init": "noise"},
        {"color": "content"},
        {"precision": "float32"},
        {"pooling": "average"},
        {"octaves": [1.0, 1.0]},
        {"style_scales": [{"size": 256}]},
        {"optimizer": "adam"},
        {"style_layers": ["block1_conv1"]},
    ],
)
def test_settings_with_an_effect_do(effect):
    picture = (333, 500) if "size" in effect else SIZE
    assert digest(effect, picture) != digest()


def test_every_setting_is_known_to_the_recipe():
    """Whoever adds one says what pictures that were made before had in its place."""
    known = recipes._UNNAMED.keys() | recipes._ELSEWHERE
    assert known == Settings.model_fields.keys()
    # A recipe of defaults names those that have changed since.
    changed = {"content_weight", "attention_weight", "attention_every"}
    assert set(recipe(Settings(), SIZE)) == {"engine", "method", "scales", *changed}
