"""A `Job` is one row of a manifest: it says which picture is to be made from which files."""

from dataclasses import dataclass
from typing import NamedTuple


class StyleSource(NamedTuple):
    """Says where a style of a job comes from, and how much it counts in a blend."""

    name: str  # a path or URL; or the name of a style that the engine has
    weight: float = 1.0
    is_file: bool = True
    photo_mask: str = ""  # a path or URL: where in the photo its strokes go; "": no mask
    painting_mask: str = ""  # likewise: from where in the painting they come


@dataclass(frozen=True)
class Job:
    """Holds what one row of the manifest asks for, as plain values."""

    line: int  # in the manifest, where the row begins, from 1; a Parquet file's rows count from 1
    id: str
    content: str  # a path or URL
    styles: tuple[StyleSource, ...]
    output: str  # relative to the run's images folder
    overrides: tuple[tuple[str, str], ...] = ()  # (setting, its value as JSON)
    keep: str = ""  # a path or URL of a mask: where the photo stays as it is; "": nowhere

    @property
    def style_files(self) -> list[str]:
        """Returns the paths of those styles that are files."""
        return [style.name for style in self.styles if style.is_file]

    @property
    def masks(self) -> list[tuple[str, str]]:
        """Returns (path of a mask, path of the image that it is for)."""
        found = [(style.photo_mask, self.content) for style in self.styles]
        found += [(style.painting_mask, style.name) for style in self.styles]
        return [pair for pair in [*found, (self.keep, self.content)] if pair[0]]

    @property
    def files(self) -> list[str]:
        """Returns the paths of all files that the row names, but for those in its settings."""
        return [self.content, *self.style_files, *(mask for mask, _ in self.masks)]

    @property
    def regions(self) -> int:
        """Returns how many parts of the photo the masks tell apart; 0 if there are none."""
        places = {style.photo_mask for style in self.styles}
        return len(places) if self.keep or places != {""} else 0


@dataclass(frozen=True)
class BadRow:
    """Stands for a row of the manifest that cannot be used, and says why."""

    line: int
    message: str
    content: str = ""

    def as_job(self) -> Job:
        """Returns a job with what is known of the row, to write its metadata row from."""
        return Job(self.line, "", self.content, (), "")
