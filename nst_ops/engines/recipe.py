"""Recipes: all settings that have an effect on a picture, and only those.

Finished pictures are recognised by a hash of their recipe, photo and paintings, so of a collection
exactly those pictures are made anew for which something that shows has changed.
"""

from typing import Any

from nst_ops.coarse_to_fine.schedule import schedule
from nst_ops.images.size import Size
from nst_ops.settings import Settings

# Raise it when a change of the method changes pictures: all are then made anew on the next run.
METHOD = 5

# A setting with this value is left out of the recipe. Never change an entry, even if the setting's
# default changes: the hashes of finished pictures depend on it. A new setting gets the value at
# which pictures are as they were before there was the setting.
_UNNAMED: dict[str, Any] = {
    "octaves": [1.0, 1.0, 1.0],
    "style_scales": [{"ratio": 1.0, "size": None, "weight": 1.0}],
    "content_weight": 5e3,
    "style_weight": 3e-2,
    "tv_weight": 10.0,
    "content_layers": {"block4_conv2": 1.0},
    "style_layers": {f"block{block}_conv1": 1.0 for block in range(1, 6)},
    "attention_weight": 0.0,
    "attention_layers": {"block3_conv1": 1.0, "block4_conv1": 1.0},
    "attention_temperature": 0.0,
    "attention_every": 0,
    "pooling": "max",
    "optimizer": "lbfgs",
    "learning_rate": 0.02,
    "tolerance": 1e-3,
    "patience": 5,
    "init": "content",
    "color": "style",
    "seed": 0,
    "precision": "auto",
}
# These are in the schedule of scales, but for weights, which are hashed by their bytes.
_ELSEWHERE = {"size", "enlarge", "scales", "steps", "weights"}


def recipe(settings: Settings, size: Size) -> dict[str, Any]:
    """Returns the recipe of a picture as plain values, which JSON can hold.

    Args:
      size: of the result.
    """
    named = Settings.model_fields.keys() - _ELSEWHERE - _without_effect(settings)
    values = settings.model_dump(mode="json", include=named)
    if settings.init_file:
        values["init"] = "file"  # its bytes are hashed apart from the recipe
    return {
        "engine": "optimizer",
        "method": METHOD,
        "scales": [[*plan.size, plan.steps, plan.weight] for plan in schedule(size, settings)],
        **{name: value for name, value in values.items() if value != _UNNAMED[name]},
    }


def _without_effect(settings: Settings) -> set[str]:
    """Returns the names of settings that have no effect beside the other settings."""
    found = set()
    if settings.optimizer != "adam":
        found.add("learning_rate")
    if not settings.attention_layers_in_use:
        found |= {name for name in Settings.model_fields if name.startswith("attention_")}
    if settings.init not in ("noise", "style"):
        found.add("seed")
    return found
