"""A tiny engine, to prove the seam: it moves a photo's colours towards those of a painting, or to a
named tint, in a few steps. Nothing of it is known to `pipeline`, which finds it by its entry point.
"""

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from nst_ops.engines.base import NamedStyle, Painted, Step
from nst_ops.errors import InputError
from nst_ops.images.size import fit

TINTS = {"sepia": (0.55, 0.45, 0.3), "night": (0.1, 0.15, 0.35)}


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int = Field(512, ge=8, description="long side of the result in px")
    strength: float = Field(0.5, ge=0, le=1, description="how far colours move")
    passes: int = Field(4, ge=1, description="steps in which they do")
    pause: float = Field(0.0, ge=0, description="seconds that each takes")


class Plan(NamedTuple):
    bytes: int
    variant: str = ""

    def __str__(self) -> str:
        return "recolored"


@dataclasses.dataclass
class Checkpoint:
    done: int

    def take(self, rows: list[int]) -> "Checkpoint":
        return self

    def save(self, file, **facts: Any) -> None:
        file.write(json.dumps([self.done, facts]).encode())


@dataclasses.dataclass(frozen=True)
class RecolorEngine:
    settings: Settings

    name: ClassVar[str] = "recolor"
    Settings: ClassVar[type[BaseModel]] = Settings
    run_wide: ClassVar[frozenset[str]] = frozenset({"pause"})
    file_settings: ClassVar[Mapping[str, Sequence[str]]] = {}
    takes_masks: ClassVar[bool] = False
    columns: ClassVar[Mapping[str, Any]] = {"passes_done": int, "tints": [{"red": float}]}
    asset_files: ClassVar[Sequence[str]] = ()
    initial_file: ClassVar[str | None] = None
    seed: ClassVar[int] = 0

    @property
    def long_side(self):
        return self.settings.size

    def assets(self):
        return {}

    @property
    def style_names(self):
        return list(TINTS)

    def named_style(self, name):
        return f"tint {TINTS[name]}" if name in TINTS else None

    def learned_style(self, sha256):
        return None

    def output_size(self, photo):
        if min(photo) < 4:
            raise InputError("too small to recolor", code="too_small")
        return fit(photo, self.settings.size)

    def style_side(self, painting, picture):
        return 64

    def recipes(self, picture):
        made = self.settings.model_dump(include={"strength", "passes"})
        return {"": {"engine": self.name, "size": list(picture), **made}}

    def batch_size(self, picture, *, accelerator):
        return 2

    def cost(self, picture):
        return self.settings.passes

    def plan(self, picture, *, limit, batch=1, tiling="auto", sources=None):
        needed = batch * picture[0] * picture[1] * 12
        if needed > limit:
            raise InputError(f"{needed} bytes", code="memory")
        return Plan(needed)

    def resume_problem(self, before, now, *, tiling):
        return ""

    def restore_plan(self, values):
        return Plan(**values)

    def open(self, resources):
        return Session(self.settings)


@dataclasses.dataclass
class Session:
    settings: Settings

    def stylize(self, batch, plan, *, resume=None):
        begin = resume().done if resume else 0
        for done in range(begin + 1, self.settings.passes + 1):
            time.sleep(self.settings.pause)
            last = done == self.settings.passes
            yield Step(
                f"pass {done}",
                self.settings.pause,
                done / self.settings.passes,
                checkpoint=None if last else lambda done=done: Checkpoint(done),
            )
        made = self.settings.passes - begin
        pictures = [self._recolored(*each, made) for each in zip(*batch[:2], strict=True)]
        yield Step("", 0.0, 1.0, pictures=pictures)

    def _recolored(self, photo, blend, made):
        goals = [
            TINTS[style.name] if isinstance(style, NamedStyle) else style.image.mean((0, 1))
            for style in blend
        ]
        goal = np.average(goals, axis=0, weights=[style.weight for style in blend])
        moved = photo + self.settings.strength * (goal - photo.mean((0, 1)))
        columns = {"passes_done": made, "tints": [{"red": float(goal[0])}]}
        return Painted(np.clip(moved, 0.0, 1.0).astype(np.float32), "", columns)

    def retry(self, batch, plan, error):
        return None

    def measure_speed(self):
        return 1e6

    def load_checkpoint(self, file):
        done, facts = json.loads(file.read())
        return Checkpoint(done), facts
