"""The engine `hybrid`: a network paints a picture, which the optimizer finishes at its size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import pydantic
from pydantic import Field

from nst_ops.engines.base import Columns, Resources, Session, Sources
from nst_ops.engines.memory import MemoryPlan
from nst_ops.engines.network import METHOD, NetworkEngine, NetworkSettings
from nst_ops.engines.optimizer import OptimizerEngine, OptimizerSettings
from nst_ops.images.size import Size
from nst_ops.network.facts import EMBEDDED
from nst_ops.settings import STEPS, HomePath, Scale


class HybridSettings(OptimizerSettings):
    """Adds the network to the optimizer's settings; fewer steps are enough."""

    init: Literal["content"] = Field(  # pyright: ignore[reportIncompatibleVariableOverride]
        "content", description="nothing else: the network's picture comes first"
    )
    network: HomePath = Field(
        EMBEDDED,
        min_length=1,
        description="that paints the first picture: `embedded` or a `.keras` file that `nst train` "
        "wrote; it must have learned the row's paintings",
    )
    steps: int = Field(
        10,
        ge=1,
        le=100_000,
        description="of the optimizer; there are no coarser scales unless `scales` lists them",
        json_schema_extra=STEPS,
    )


@dataclass(frozen=True)
class HybridEngine:
    """Implements `engines.base.Engine`, where its methods are described."""

    settings: HybridSettings

    name: ClassVar[str] = "hybrid"
    Settings: ClassVar[type[pydantic.BaseModel]] = HybridSettings
    run_wide: ClassVar[frozenset[str]] = frozenset({"weights", "network"})
    file_settings: ClassVar[Mapping[str, Sequence[str]]] = {
        "weights": OptimizerEngine.file_settings["weights"],
        **NetworkEngine.file_settings,
    }
    takes_masks: ClassVar[bool] = False  # the network's picture knows no regions
    columns: ClassVar[Columns] = {**OptimizerEngine.columns, "network_sha256": str}
    initial_file: ClassVar[str | None] = None

    @cached_property
    def optimizer(self) -> OptimizerEngine:
        """Returns the engine that finishes the picture."""
        values = self.settings.model_dump(exclude={"network"})
        if self.settings.scales == "auto":
            only = Scale(size=max(32, self.settings.size), steps=self.settings.steps)
            values["scales"] = [only.model_dump()]
        return OptimizerEngine(OptimizerSettings.model_validate(values))

    @cached_property
    def painter(self) -> NetworkEngine:
        """Returns the engine that begins it."""
        return NetworkEngine(NetworkSettings(network=self.settings.network))

    def assets(self) -> Mapping[str, str]:
        """Returns the SHA-256 of VGG19's weights and of the network."""
        return {**self.optimizer.assets(), **self.painter.assets()}

    @property
    def asset_files(self) -> Sequence[str]:
        """Returns the paths of those that the user named."""
        return (*self.optimizer.asset_files, *self.painter.asset_files)

    @property
    def long_side(self) -> int:
        """Returns the long side of a result in px, at most."""
        return self.optimizer.long_side

    @property
    def seed(self) -> int:
        """Returns the optimizer's seed."""
        return self.settings.seed

    @property
    def style_names(self) -> Sequence[str]:
        """Returns the names of the paintings that the network has learned; rows give their files,
        which the optimizer has to see.
        """
        return self.painter.style_names

    def named_style(self, name: str) -> str | None:
        """Returns None, since no name is that of a style."""
        return None

    def learned_style(self, sha256: str) -> str | None:
        """Returns None, as paintings are looked at; but the network must have learned them."""
        self.painter.learned_style(sha256)
        return None

    def output_size(self, photo: Size) -> Size:
        """Returns the size of the result, whose long side is at most that of the settings."""
        return self.optimizer.output_size(photo)

    def style_side(self, painting: Size, picture: Size) -> int:
        """Returns the largest long side in px at which a painting is seen."""
        return self.optimizer.style_side(painting, picture)

    def recipes(self, picture: Size) -> Mapping[str, Mapping[str, Any]]:
        """Returns the optimizer's recipes, marked as finishing a network's picture."""
        made = self.optimizer.recipes(picture)
        own = {"engine": self.name, "network_method": METHOD}
        return {variant: {**recipe, **own} for variant, recipe in made.items()}

    def batch_size(self, picture: Size, *, accelerator: bool) -> int:
        """Returns how many pictures are best made together."""
        return self.optimizer.batch_size(picture, accelerator=accelerator)

    def cost(self, picture: Size) -> int:
        """Returns what one picture costs at most, in pixels x steps; the network is not counted."""
        return self.optimizer.cost(picture)

    def plan(
        self,
        picture: Size,
        *,
        limit: float,
        batch: int = 1,
        tiling: str | int = "auto",
        sources: Sources = Sources(),  # noqa: B008  # immutable
    ) -> MemoryPlan:
        """Returns the optimizer's plan; the network takes less before that begins."""
        self.painter.plan(picture, limit=limit, batch=batch, sources=sources)
        return self.optimizer.plan(
            picture, limit=limit, batch=batch, tiling=tiling, sources=sources
        )

    def resume_problem(
        self, before: Mapping[str, Any], now: MemoryPlan, *, tiling: str | int
    ) -> str:
        """Returns what the optimizer says of it."""
        return self.optimizer.resume_problem(before, now, tiling=tiling)

    def restore_plan(self, values: Mapping[str, Any]) -> MemoryPlan:
        """Returns the plan of which `MemoryPlan._asdict` gave these values."""
        return self.optimizer.restore_plan(values)

    def open(self, resources: Resources) -> Session:
        """Opens a session; TensorFlow starts with the import here."""
        from nst_ops.engines.hybrid_session import HybridSession
        from nst_ops.engines.network_session import NetworkSession
        from nst_ops.engines.optimizer_session import OptimizerSession

        painter = NetworkSession(self.settings.network, 1.0, resources)
        optimizer = OptimizerSession(self.optimizer.settings, resources)
        return HybridSession(painter, optimizer, self.settings.color)
