"""What the three weights do: a contact sheet, `docs/weights.jpg`, and its pictures' figures."""

import itertools
from pathlib import Path

import numpy as np

import nst_ops
from benchmarks import pairs
from benchmarks.table import Table
from nst_ops.quality import measure
from pipeline.report.contact_sheet import Cell, contact_sheet

SIZE = 192
SHEET = Path(__file__).parents[1] / "docs" / "weights.jpg"
CONTENT_WEIGHTS = (1e3, 3e3, 1e4)
STYLE_WEIGHTS = (1e-2, 3e-2, 1e-1)
TV_WEIGHTS = (10.0, 30.0, 100.0)


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
        caption = "  ".join(f"{short[k]} {v:g}" for k, v in change.items())
        cells.append(Cell(picture, [caption]))
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


def _roughness(picture: np.ndarray) -> float:
    steps = [np.abs(np.diff(picture, axis=axis)).mean() for axis in (0, 1)]
    return float(255.0 * np.mean(steps))
