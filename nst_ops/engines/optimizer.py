"""The engine `optimizer`: it optimizes pictures from the coarsest scale to the finest."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pydantic

from nst_ops.coarse_to_fine.reports import LOSSES
from nst_ops.coarse_to_fine.schedule import largest_style_side, output_size, pixel_steps
from nst_ops.engines.base import Columns, Resources, Session, Sources
from nst_ops.engines.memory import MemoryPlan, plan_memory
from nst_ops.engines.recipe import recipe
from nst_ops.images.size import Size
from nst_ops.losses.octaves import layers_in_use
from nst_ops.settings import INITS, Settings
from nst_ops.vgg.weights import known_layers, layer_weights, load_weights

_WEIGHTS = ("embedded", "imagenet")
_LOSSES = dict.fromkeys(LOSSES, float)
ADAM = "adam"  # the variant that is made if memory is too short for L-BFGS


class OptimizerSettings(Settings):
    """Checks settings as users write them: layers must be VGG19's, and paths may begin with `~`."""

    @pydantic.field_validator("init", "weights")
    @classmethod
    def _home(cls, path: str) -> str:
        return os.path.expanduser(path)

    _of_vgg19 = pydantic.field_validator("content_layers", "style_layers", "attention_layers")(
        known_layers
    )


@dataclass(frozen=True)
class OptimizerEngine:
    """Implements `engines.base.Engine`, where its methods are described."""

    settings: OptimizerSettings

    name: ClassVar[str] = "optimizer"
    Settings: ClassVar[type[pydantic.BaseModel]] = OptimizerSettings
    run_wide: ClassVar[frozenset[str]] = frozenset({"weights"})
    file_settings: ClassVar[Mapping[str, Sequence[str]]] = {"init": INITS, "weights": _WEIGHTS}
    takes_masks: ClassVar[bool] = True
    columns: ClassVar[Columns] = {
        "weights_sha256": str,
        "scales": [
            {
                "height": int,
                "width": int,
                "steps": int,
                "evaluations": int,
                "seconds": float,
                "stop_reason": str,
            }
        ],
        "loss_first": float,
        "loss_last": float,
        "loss_content": float,
        "loss_style": float,
        "loss_tv": float,
        "loss_attention": float,
        "loss_curve": [{"scale": int, "step": int, **_LOSSES}],
        "tile": int,  # side in px; null if computed whole
        "optimizer": str,  # also adam if L-BFGS was asked for but did not fit into memory
        "history": int,  # steps that L-BFGS remembered; null for adam
        "seconds_optimize": float,
    }

    def assets(self) -> Mapping[str, str]:
        """Returns the SHA-256 of the network's weights."""
        weights = load_weights(self.settings.weights)
        for layer in layers_in_use(self.settings):
            layer_weights(weights, layer)  # raises for a layer that is not there
        return {"weights": weights.sha256}

    @property
    def asset_files(self) -> Sequence[str]:
        """Returns the weights' path, unless they come with the package or from Keras."""
        return () if self.settings.weights in _WEIGHTS else (self.settings.weights,)

    @property
    def initial_file(self) -> str | None:
        """Returns the path in `init`; None if that is one of its words."""
        return self.settings.init_file

    @property
    def long_side(self) -> int:
        """Returns the long side of a result in px, at most."""
        return self.settings.final_size

    @property
    def seed(self) -> int:
        """Returns the seed of the noise that pictures may start from."""
        return self.settings.seed

    @property
    def style_names(self) -> Sequence[str]:
        """Returns nothing, since this engine has no named styles: all are paintings."""
        return ()

    def named_style(self, name: str) -> str | None:
        """Returns None, since no name is that of a style."""
        return None

    def learned_style(self, sha256: str) -> str | None:
        """Returns None, since paintings are looked at themselves."""
        return None

    def output_size(self, photo: Size) -> Size:
        """Returns the size of the result, whose long side is at most that of the settings."""
        return output_size(photo, self.settings)

    def style_side(self, painting: Size, picture: Size) -> int:
        """Returns the largest long side in px at which a painting is seen at any scale."""
        return largest_style_side(painting, picture, self.settings)

    def recipes(self, picture: Size) -> Mapping[str, Mapping[str, Any]]:
        """Returns the recipes with the optimizer that is asked for, and with Adam."""
        with_adam = self.settings.model_copy(update={"optimizer": "adam"})
        return {"": recipe(self.settings, picture), ADAM: recipe(with_adam, picture)}

    def batch_size(self, picture: Size, *, accelerator: bool) -> int:
        """Returns how many pictures are best made together, at most 16.

        On a CPU, batches of pictures over 256 px gain nothing (measured: 379 GFLOP/s for one,
        while at 128 px four together raise 326 to 397); a GPU is filled by about 4 million pixels.
        """
        room = 4_000_000 if accelerator else 131_072
        return max(1, min(16, room // (picture[0] * picture[1])))

    def cost(self, picture: Size) -> int:
        """Returns what one picture costs at most, in pixels x steps."""
        return pixel_steps(picture, self.settings)

    def plan(
        self,
        picture: Size,
        *,
        limit: float,
        batch: int = 1,
        tiling: str | int = "auto",
        sources: Sources = Sources(),  # noqa: B008  # immutable
    ) -> MemoryPlan:
        """Returns the fastest plan that fits: whole; for a single picture also in tiles, with less
        history or with Adam.
        """
        return plan_memory(
            picture, self.settings, batch=batch, limit=limit, tiling=tiling, sources=sources
        )

    def resume_problem(
        self, before: Mapping[str, Any], now: MemoryPlan, *, tiling: str | int
    ) -> str:
        """Returns why the batch cannot go on: L-BFGS cannot go on from a state of Adam, and tiles
        that the user asked for must be the same.
        """
        if before["variant"] and not now.variant:
            return f"it was begun with {before['optimizer']}, for want of memory"
        if tiling != "auto" and before["tile"] != now.tile:
            return "it was computed with another tiling"
        return ""

    def restore_plan(self, values: Mapping[str, Any]) -> MemoryPlan:
        """Returns the plan of which `MemoryPlan._asdict` gave these values."""
        return MemoryPlan(**values)

    def open(self, resources: Resources) -> Session:
        """Opens a session; TensorFlow starts with the import here."""
        from nst_ops.engines.optimizer_session import OptimizerSession

        return OptimizerSession(self.settings, resources)
