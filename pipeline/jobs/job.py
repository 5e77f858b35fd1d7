"""A row of a manifest: what is to be made of what."""

import json
from dataclasses import dataclass

from pipeline.config.loading import validate
from pipeline.config.run_config import RunConfig


@dataclass(frozen=True)
class Job:
    """One row of a manifest: plain values only."""

    line: int  # in the manifest, where the row begins, from 1; a Parquet file's rows count from 1
    id: str
    content: str  # a path or URL
    styles: tuple[tuple[str, float], ...]  # (path or URL, weight)
    output: str  # relative to the run's images folder
    overrides: tuple[tuple[str, str], ...] = ()  # (setting, its value as JSON)

    def config(self, run: RunConfig) -> RunConfig:
        """The run's settings with this row's own."""
        if not self.overrides:
            return run
        own = {key: json.loads(value) for key, value in self.overrides}
        return validate({**run.model_dump(), **own}, f"line {self.line}")


@dataclass(frozen=True)
class BadRow:
    """A row that is no job, and why."""

    line: int
    message: str
    content: str = ""

    def as_job(self) -> Job:
        """For its row in the metadata."""
        return Job(self.line, "", self.content, (), "")
