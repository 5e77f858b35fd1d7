"""Identifies pictures by a hash of all that they depend on, and gives each its seed."""

import dataclasses
import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from pipeline.config.run_config import RunConfig
from pipeline.jobs.planned_job import PlannedJob

_REMEMBERED = 10_000  # recipes


class Identities:
    """Identifies planned jobs, and remembers the engine's recipes, which many rows share."""

    def __init__(self) -> None:
        self._recipes: OrderedDict[Any, dict[str, dict[str, Any]]] = OrderedDict()

    def identify(self, planned: PlannedJob, config: RunConfig, content_sha256: str) -> PlannedJob:
        """Returns the job with all that follows from its photo's content: spec hashes and seed.

        Args:
          config: the job's settings.
        """
        styles = zip(planned.style_sha256, planned.job.styles, strict=True)
        sources: dict[str, Any] = {
            "content": content_sha256,
            "styles": [(sha256, style.weight) for sha256, style in styles],
            **dict(planned.assets),
        }
        if planned.initial_sha256:
            sources["init"] = planned.initial_sha256
        if planned.mask_sha256:
            masks = {"": "", **dict(planned.mask_sha256)}
            sources["masks"] = [
                (masks[style.photo_mask], masks[style.painting_mask])
                for style in planned.job.styles
            ]
            sources["keep"] = masks[planned.job.keep]
        recipes = self._recipes_of(planned, config)
        return dataclasses.replace(
            planned,
            content_sha256=content_sha256,
            spec_hashes=tuple((name, spec_hash(made, sources)) for name, made in recipes.items()),
            seed=(config.engine.seed + int(content_sha256[:7], 16)) % 2**31,
        )

    def _recipes_of(self, planned: PlannedJob, config: RunConfig) -> dict[str, dict[str, Any]]:
        found = self._recipes.get(planned.bucket)
        if found is None:
            found = self._recipes[planned.bucket] = config.recipes(planned.size)
            while len(self._recipes) > _REMEMBERED:
                self._recipes.popitem(last=False)
        return found


def spec_hash(recipe: Mapping[str, Any], sources: Mapping[str, Any]) -> str:
    """Returns the 16 hexadecimal digits that identify a picture of this recipe and these files."""
    text = json.dumps({"recipe": recipe, "sources": sources}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
