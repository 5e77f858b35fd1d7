"""Two paintings in two halves of a photo, and a part that stays: figures, and `docs/masks.jpg`."""

from pathlib import Path

import numpy as np
import tensorflow as tf

import nst_ops
from benchmarks import pairs
from benchmarks.table import Table
from nst_ops.quality import STYLE, gram_distance
from nst_ops.vgg.network import vgg19
from pipeline.report.contact_sheet import Cell, contact_sheet

SIZE = 384
SHEET = Path(__file__).parents[1] / "docs" / "masks.jpg"
# A photo, and the paintings of its left and right half.
CHOICES = (
    ("coffee", "pere_tanguy", "cafe_terrace_at_night"),
    ("cat", "church_at_auvers", "langlois_bridge"),
    ("rocket", "cafe_terrace_at_night", "church_at_auvers"),
)


def main() -> Table:
    settings = nst_ops.Settings(size=SIZE, tolerance=0.0)
    rows, cells = [], []
    for name, *names in CHOICES:
        photo = pairs.pair(name, names[0], SIZE).photo
        paintings = [pairs.pair(name, painting, SIZE).painting for painting in names]
        left = np.zeros(photo.shape[:2], np.float32)
        middle = photo.shape[1] // 2
        left[:, :middle] = 1.0
        oval = _oval(photo.shape[:2])
        blend = [nst_ops.Style(paintings[0], 1.0, left), nst_ops.Style(paintings[1])]
        both = nst_ops.run(photo, [blend], settings).images[0]
        kept = nst_ops.run(photo, [blend], settings, keep=oval).images[0]
        alone = [nst_ops.run(photo, [painting], settings).images[0] for painting in paintings]
        sides = slice(0, middle), slice(middle, None)
        for side, (own, other) in enumerate((paintings, paintings[::-1])):
            columns = sides[side]
            figures = {
                "here": _gram_distance(both[:, columns], own),
                "alone": _gram_distance(alone[side][:, columns], own),
                "of the other": _gram_distance(both[:, columns], other),
            }
            row = {"photo": name, "half": ("left", "right")[side], "painting": names[side]}
            rows.append({**row, **figures, "ratio": figures["here"] / figures["alone"]})
            print(*rows[-1].values(), flush=True)
        inside = oval == 1.0
        print("largest change of what is kept:", np.abs(kept - photo)[inside].max())
        captions = (name, *(f"{n} alone" for n in names), "left and right", "an oval kept")
        pictures = (photo, *alone, both, kept)
        cells += [Cell(p, [c]) for p, c in zip(pictures, captions, strict=True)]
    contact_sheet(cells, columns=5).save(SHEET, quality=85)
    return Table(
        f"Two paintings in two halves, {SIZE} px",
        rows,
        (
            "`here`: distance of the half's Gram matrices from its painting's, over the latter,"
            " mean of five layers; `alone`: the same half of a picture after that painting alone;"
            " `ratio`: the one over the other. `of the other`: from the other half's painting.",
        ),
    )


def _oval(size: tuple[int, int]) -> np.ndarray:
    """A mask that is white in the middle, with a soft edge."""
    rows, columns = (np.linspace(-1.0, 1.0, n) for n in size)
    radius = np.hypot(rows[:, None] / 0.6, columns / 0.4)
    return np.clip((1.1 - radius) / 0.1, 0.0, 1.0).astype(np.float32)


def _gram_distance(picture: np.ndarray, painting: np.ndarray) -> float:
    network = vgg19(STYLE)
    ours, theirs = (network(tf.constant(image[None])) for image in (picture, painting))
    return float(np.mean([gram_distance(ours[layer], theirs[layer]) for layer in STYLE]))
