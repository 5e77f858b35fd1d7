"""Pictures beside each other, each with a caption: as one image, and as a page."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

_GAP, _LINE = 6, 18  # px: between pictures, and of a line of a caption
_FONT = 13  # px

_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("pipeline.report"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
)


class Cell(NamedTuple):
    """Holds a picture [H, W, 3] in [0, 1], and the lines that are written under it: wrapped where
    there is a space, but not at U+00A0.
    """

    picture: np.ndarray
    caption: Sequence[str]


def contact_sheet(cells: Sequence[Cell], columns: int) -> Image.Image:
    """Returns one image of all pictures, in rows of so many columns; all places are as large as the
    largest picture and the longest caption need.
    """
    height = max(cell.picture.shape[0] for cell in cells)
    width = max(cell.picture.shape[1] for cell in cells)
    font = ImageFont.load_default(size=_FONT)
    captions = [_wrapped(cell.caption, width, font) for cell in cells]
    across, down = width + _GAP, height + max(map(len, captions)) * _LINE + 2 * _GAP
    rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (across * columns + _GAP, down * rows + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (cell, caption) in enumerate(zip(cells, captions, strict=True)):
        left = _GAP + across * (number % columns)
        top = _GAP + down * (number // columns)
        levels = np.round(np.clip(cell.picture, 0.0, 1.0) * 255.0).astype(np.uint8)
        sheet.paste(Image.fromarray(levels), (left, top))
        for index, line in enumerate(caption):
            place = (left + 2, top + cell.picture.shape[0] + 2 + index * _LINE)
            draw.text(place, line, fill="black", font=font)
    return sheet


def _wrapped(lines: Sequence[str], width: int, font: Any) -> list[str]:
    """Returns the lines, wrapped to about `width` px, counting letters as wide as digits."""
    characters = max(8, int(width / font.getlength("0")))
    return [
        part.replace("\N{NO-BREAK SPACE}", " ")
        for line in lines
        for part in textwrap.wrap(line, characters, break_on_hyphens=False)
    ]


def write_page(path: Path, title: str, figures: Sequence[dict[str, Any]], columns: int) -> None:
    """Writes an HTML page of pictures that lie beside it.

    Args:
      figures: of each picture `source` (a relative path), `settings` and `figures`: {name: text}.
      columns: beside each other, where the window is wide enough.
    """
    page = _TEMPLATES.get_template("contact_sheet.html")
    path.write_text(page.render(title=title, figures=figures, columns=columns), encoding="utf-8")
