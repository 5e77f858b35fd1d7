"""The engine `network`: a trained network paints each photo in one pass."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import pydantic
from pydantic import ConfigDict, Field

from nst_ops.engines.base import Columns, Resources, Session, Sources
from nst_ops.errors import InputError
from nst_ops.images.size import Size, fit
from nst_ops.network.facts import EMBEDDED, NetworkFacts, network_facts
from nst_ops.network.layout import largest_part
from nst_ops.settings import PX, HomePath

# Raise it when a change of the method changes pictures: all are then made anew on the next run.
METHOD = 1

_PROCESS = 0.7e9  # bytes: Python, TensorFlow and the network
# Bytes per px, measured by `python -m benchmarks network_run`: of what is painted at once, for each
# of the network's channels; and of photo and picture.
_ACTIVATIONS, _HELD = 44, 32
_DECODING = 22  # bytes per px of a file while it is decoded and shrunk, colour by colour


class NetworkSettings(pydantic.BaseModel):
    """Checks settings as users write them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int = Field(
        512, ge=8, le=65536, description="long side of the result", json_schema_extra=PX
    )
    enlarge: bool = Field(
        False, description="whether a photo that is smaller is enlarged to `size`"
    )
    network: HomePath = Field(
        EMBEDDED,
        min_length=1,
        description="`embedded`, the network of the example paintings that comes with nst, or a "
        "`.keras` file that `nst train` wrote",
    )
    strength: float = Field(
        1.0, ge=0, le=1, description="how much of the painting: 0 is the photo, 1 the full style"
    )


class NetworkPlan(NamedTuple):
    """Says how many bytes a batch takes; there is one way to compute it."""

    bytes: int
    variant: str = ""

    def __str__(self) -> str:
        return f"in one pass, about {self.bytes / 1e9:.1f} GB"


@dataclass(frozen=True)
class NetworkEngine:
    """Implements `engines.base.Engine`, where its methods are described."""

    settings: NetworkSettings

    name: ClassVar[str] = "network"
    Settings: ClassVar[type[pydantic.BaseModel]] = NetworkSettings
    run_wide: ClassVar[frozenset[str]] = frozenset({"network"})
    file_settings: ClassVar[Mapping[str, Sequence[str]]] = {"network": (EMBEDDED,)}
    takes_masks: ClassVar[bool] = False
    columns: ClassVar[Columns] = {"network_sha256": str, "seconds_paint": float}
    initial_file: ClassVar[str | None] = None
    seed: ClassVar[int] = 0

    @property
    def _facts(self) -> NetworkFacts:
        return network_facts(self.settings.network)

    def assets(self) -> Mapping[str, str]:
        """Returns the SHA-256 of the network's file."""
        return {"network": self._facts.sha256}

    @property
    def asset_files(self) -> Sequence[str]:
        """Returns the network's path, unless it comes with the package."""
        return () if self.settings.network == EMBEDDED else (self.settings.network,)

    @property
    def long_side(self) -> int:
        """Returns the long side of a result in px, at most."""
        return self.settings.size

    @property
    def style_names(self) -> Sequence[str]:
        """Returns the names of the network's styles."""
        return self._facts.names

    def named_style(self, name: str) -> str | None:
        """Returns the hash of the painting that the style was learned from, so that a name and the
        painting's path are the same; None if the name is none of the network's.
        """
        found = self._facts.find(name)
        return found and found.sha256

    def learned_style(self, sha256: str) -> str | None:
        """Returns the name of the style that was learned from this painting."""
        found = self._facts.learned_from(sha256)
        if found is None:
            raise InputError("is no painting that the network has learned; `nst train` can add it")
        return found.name

    def output_size(self, photo: Size) -> Size:
        """Returns the size of the result; any size will do."""
        return fit(photo, self.settings.size, enlarge=self.settings.enlarge)

    def style_side(self, painting: Size, picture: Size) -> int:
        """Returns 0, since the network has seen its paintings already."""
        return 0

    def recipes(self, picture: Size) -> Mapping[str, Mapping[str, Any]]:
        """Returns the one recipe."""
        made: dict[str, Any] = {"engine": self.name, "method": METHOD, "size": list(picture)}
        if self.settings.strength != 1.0:
            made["strength"] = self.settings.strength
        return {"": made}

    def batch_size(self, picture: Size, *, accelerator: bool) -> int:
        """Returns how many pictures are best made together, at most 64."""
        room = 8_000_000 if accelerator else 262_144
        return max(1, min(64, room // (picture[0] * picture[1])))

    def cost(self, picture: Size) -> int:
        """Returns the pixels of the picture."""
        return picture[0] * picture[1]

    def plan(
        self,
        picture: Size,
        *,
        limit: float,
        batch: int = 1,
        tiling: str | int = "auto",
        sources: Sources = Sources(),  # noqa: B008  # immutable
    ) -> NetworkPlan:
        """Returns the plan, if it fits. How a picture is cut is decided by its size alone."""
        held = _HELD * picture[0] * picture[1] * batch
        painting = held + _ACTIVATIONS * self._facts.width * batch * largest_part(picture)
        needed = round(_PROCESS + max(painting, held + _DECODING * sources.decoded))
        if needed > limit:
            raise InputError(
                f"{batch} of {picture[0]}x{picture[1]} px needs {needed / 1e9:.1f} GB, more than "
                f"the {limit / 1e9:.1f} GB of memory_limit; use a smaller size or batch_size, or a "
                "higher memory_limit",
                code="memory",
            )
        return NetworkPlan(needed)

    def resume_problem(
        self, before: Mapping[str, Any], now: NetworkPlan, *, tiling: str | int
    ) -> str:
        """Returns "", though there is nothing to go on from: no step has a checkpoint."""
        return ""

    def restore_plan(self, values: Mapping[str, Any]) -> NetworkPlan:
        """Returns the plan of which `NetworkPlan._asdict` gave these values."""
        return NetworkPlan(**values)

    def open(self, resources: Resources) -> Session:
        """Opens a session; TensorFlow starts with the import here."""
        from nst_ops.engines.network_session import NetworkSession

        return NetworkSession(self.settings.network, self.settings.strength, resources)
