"""The defaults against those before attention: figures of all pairs at three sizes, and contact
sheets to look at, `docs/defaults_512.jpg` and `docs/defaults_1024.jpg`.
"""

import functools
import time
from pathlib import Path
from typing import Any

import numpy as np

import nst_ops
from benchmarks import pairs, rim
from benchmarks.table import Table, means
from nst_ops.images.codec import Picture, decode, shrink
from nst_ops.losses.octaves import layers_in_use
from nst_ops.quality import measure
from nst_ops.vgg.network import vgg19
from pipeline.report.contact_sheet import Cell, contact_sheet

SIZES = (256, 512, 1024)
DOCS = Path(__file__).parents[1] / "docs"
_CELL = 512  # px, long side of the pictures on a sheet
BEFORE: dict[str, Any] = {"attention_weight": 0.0, "content_weight": 5e3, "steps": 22}


def main() -> Table:
    mirrored = vgg19(layers_in_use(nst_ops.Settings()))
    networks = {"before": rim.with_zeros(mirrored), "default": mirrored}
    rows = []
    for size in SIZES:
        cells = []
        for number, (photo_name, painting_name) in enumerate(pairs.NAMES):
            # Enlarged where the example is smaller, so that every size is what it says.
            photo, painting = _enlarged(photo_name, size), pairs.load(number, size).painting
            cells += [Cell(_small(photo), [photo_name]), Cell(_small(painting), [painting_name])]
            spent_before = 0.0
            for name, changes in (("before", BEFORE), ("default", {})):
                settings = nst_ops.Settings(
                    size=size, tolerance=0.0, precision="float32", **changes
                )
                make = functools.partial(nst_ops.run, photo, [painting], model=networks[name])
                # Traces and compiles, so that no picture is charged for it.
                make(settings=settings.model_copy(update={"steps": 1}))
                started = time.process_time()
                picture = make(settings=settings).images[0]
                spent = time.process_time() - started
                spent_before = spent_before or spent
                figures = measure(picture, photo, painting)
                rows.append(
                    {
                        "size": size,
                        "pair": f"{photo_name} x {painting_name}",
                        "settings": name,
                        **figures,
                        "patch": (figures["patch3"] + figures["patch4"]) / 2,
                        "cpu": spent / spent_before,
                    }
                )
                print(*rows[-1].values(), flush=True)
                cells.append(Cell(_small(picture), [name]))
        if size in (512, 1024):
            sheet = contact_sheet(cells, columns=4)
            sheet.save(DOCS / f"defaults_{size}.jpg", quality=85)
    return Table(
        "The defaults, and those before attention",
        [*rows, *_means(rows)],
        (
            f"Before: {', '.join(f'`{key}: {value:g}`' for key, value in BEFORE.items())}, and a"
            " network that sees zeros beyond the border. `tolerance` is 0 for both, and `precision`"
            " float32.",
            "`patch`: the mean of `patch3` and `patch4`. `cpu`: processor time against before.",
            "Photos are enlarged where the example is smaller than the size; paintings never are.",
        ),
    )


def _means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for size in SIZES:
        for name in ("before", "default"):
            chosen = [row for row in rows if (row["size"], row["settings"]) == (size, name)]
            found.append({"size": size, "pair": "mean", "settings": name, **means(chosen)})
    return found


def _enlarged(name: str, size: int) -> np.ndarray:
    path = pairs.IMAGES / f"{name}.jpg"
    data = path.read_bytes()
    return decode(data, path=path.name, long_side=size, enlarge=True).on_white()


def _small(image: np.ndarray) -> np.ndarray:
    return shrink(Picture(image), _CELL).pixels
