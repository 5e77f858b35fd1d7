"""What the three weights do: a contact sheet, `docs/weights.jpg`, and its pictures' figures."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import nst_ops
from benchmarks import pairs
from benchmarks.quality import measure
from benchmarks.table import Table

SIZE = 192
SHEET = Path(__file__).parents[1] / "docs" / "weights.jpg"
CONTENT_WEIGHTS = (1e3, 3e3, 1e4)
STYLE_WEIGHTS = (1e-2, 3e-2, 1e-1)
TV_WEIGHTS = (10.0, 30.0, 100.0)
_MARGIN, _CAPTION = 6, 20  # px


class Cell(NamedTuple):
    """A picture [H, W, 3] in [0, 1] and what is written under it."""

    picture: np.ndarray
    caption: str


def main() -> Table:
    pair = pairs.load(0, SIZE)
    # Three rows of the two weights that pull against each other, then one of tv_weight.
    changes = [
        {"content_weight": content, "style_weight": style}
        for content, style in itertools.product(CONTENT_WEIGHTS, STYLE_WEIGHTS)
    ]
    changes += [{"tv_weight": tv} for tv in TV_WEIGHTS]
    rows, cells = [], []
    for change in changes:
        settings = nst_ops.Settings(size=SIZE, **change)
        picture = nst_ops.run(pair.photo, [pair.painting], settings).images[0]
        rows.append(
            {
                "content_weight": f"{settings.content_weight:g}",
                "style_weight": f"{settings.style_weight:g}",
                "tv_weight": f"{settings.tv_weight:g}",
                **measure(picture, pair.photo, pair.painting),
                "tv": _roughness(picture),
            }
        )
        short = {"content_weight": "content", "style_weight": "style", "tv_weight": "tv"}
        cells.append(Cell(picture, "  ".join(f"{short[k]} {v:g}" for k, v in change.items())))
        print(*rows[-1].values(), flush=True)
    SHEET.parent.mkdir(exist_ok=True)
    contact_sheet(cells, columns=3).save(SHEET, quality=90)
    return Table(
        f"The weights, {pair.name}, {SIZE} px",
        rows,
        (
            "Other settings are the defaults. docs/weights.jpg has the pictures, in this order.",
            "`tv`: mean absolute difference of neighbouring pixels, in levels of 255.",
        ),
    )


def contact_sheet(cells: Sequence[Cell], columns: int) -> Image.Image:
    """Pictures of one size in rows, captions below."""
    height, width = cells[0].picture.shape[:2]
    across, down = width + _MARGIN, height + _CAPTION + _MARGIN
    rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (across * columns + _MARGIN, down * rows + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=13)
    for number, cell in enumerate(cells):
        left = _MARGIN + across * (number % columns)
        top = _MARGIN + down * (number // columns)
        levels = np.round(np.clip(cell.picture, 0.0, 1.0) * 255.0).astype(np.uint8)
        sheet.paste(Image.fromarray(levels), (left, top))
        draw.text((left + 2, top + height + 2), cell.caption, fill="black", font=font)
    return sheet


def _roughness(picture: np.ndarray) -> float:
    steps = [np.abs(np.diff(picture, axis=axis)).mean() for axis in (0, 1)]
    return float(255.0 * np.mean(steps))
