"""The defaults against those before attention: figures of all pairs at three sizes, and contact
sheets to look at, `docs/defaults_512.jpg` and `docs/defaults_1024.jpg`.
"""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import pairs, versions
from benchmarks.table import Table, means
from nst_ops.images.codec import Picture, decode, shrink
from nst_ops.quality import measure
from pipeline.report.contact_sheet import Cell, contact_sheet

SIZES = (256, 512, 1024)
VERSIONS = {"before": versions.BEFORE_ATTENTION, "default": None}
DOCS = Path(__file__).parents[1] / "docs"
_CELL = 512  # px, long side of the pictures on a sheet


def main() -> Table:
    rows = []
    for size in SIZES:
        # Enlarged where the example is smaller, so that every size is what it says.
        cases = [
            versions.Case(
                _enlarged(photo, size),
                pairs.load(number, size).painting,
                {"size": size, "tolerance": 0.0},
            )
            for number, (photo, _) in enumerate(pairs.NAMES)
        ]
        made = {name: versions.make(cases, commit) for name, commit in VERSIONS.items()}
        cells = []
        for number, (names, case) in enumerate(zip(pairs.NAMES, cases, strict=True)):
            for name, image in zip(names, (case.photo, case.painting), strict=True):
                cells.append(Cell(_small(image), [name]))
            for version in VERSIONS:
                picture, cpu = made[version][number]
                figures = measure(picture, case.photo, case.painting)
                patch = (figures["patch3"] + figures["patch4"]) / 2
                spent = cpu / made["before"][number].cpu
                pair = {"size": size, "pair": " x ".join(names), "settings": version}
                rows.append({**pair, **figures, "patch": patch, "cpu": spent})
                print(*rows[-1].values(), flush=True)
                cells.append(Cell(_small(picture), [version]))
        if size in (512, 1024):
            sheet = contact_sheet(cells, columns=4)
            sheet.save(DOCS / f"defaults_{size}.jpg", quality=85)
    return Table(
        "The defaults, and those before attention",
        [*rows, *_means(rows)],
        (
            f"Before: the program as it was at {versions.BEFORE_ATTENTION}, the last commit without"
            " attention, with its own defaults. `tolerance` is 0 for both.",
            "`patch`: the mean of `patch3` and `patch4`. `cpu`: processor time against before, each"
            " in a process of its own, of a picture whose painting is known.",
            "Photos are enlarged where the example is smaller than the size; paintings never are.",
        ),
    )


def _means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for size in SIZES:
        for name in VERSIONS:
            chosen = [row for row in rows if (row["size"], row["settings"]) == (size, name)]
            found.append({"size": size, "pair": "mean", "settings": name, **means(chosen)})
    return found


def _enlarged(name: str, size: int) -> np.ndarray:
    path = pairs.IMAGES / f"{name}.jpg"
    data = path.read_bytes()
    return decode(data, path=path.name, long_side=size, enlarge=True).on_white()


def _small(image: np.ndarray) -> np.ndarray:
    return shrink(Picture(image), _CELL).pixels
