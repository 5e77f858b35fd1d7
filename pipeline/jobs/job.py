"""A row of a manifest: what is to be made of what."""

from dataclasses import dataclass
from typing import NamedTuple


class StyleSource(NamedTuple):
    """What a style comes from."""

    name: str  # a path or URL; or the name of a style that the engine has
    weight: float = 1.0
    is_file: bool = True


@dataclass(frozen=True)
class Job:
    """One row of a manifest: plain values only."""

    line: int  # in the manifest, where the row begins, from 1; a Parquet file's rows count from 1
    id: str
    content: str  # a path or URL
    styles: tuple[StyleSource, ...]
    output: str  # relative to the run's images folder
    overrides: tuple[tuple[str, str], ...] = ()  # (setting, its value as JSON)

    @property
    def style_files(self) -> list[str]:
        """Paths of those styles that are files."""
        return [style.name for style in self.styles if style.is_file]


@dataclass(frozen=True)
class BadRow:
    """A row that is no job, and why."""

    line: int
    message: str
    content: str = ""

    def as_job(self) -> Job:
        """For its row in the metadata."""
        return Job(self.line, "", self.content, (), "")
