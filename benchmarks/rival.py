"""What adversarial training brings: two networks of one style, trained equally long on the other
example images, one of them with a rival; judged on a photo that neither has seen.
"""

from pathlib import Path

import numpy as np

from benchmarks import pairs
from benchmarks.network import CACHE, FIGURES
from benchmarks.table import Table
from benchmarks.training import trained_for
from nst_ops.images.codec import decode
from nst_ops.network.model import load_network
from nst_ops.network.painter import Painter
from nst_ops.quality import measure
from pipeline.report.contact_sheet import Cell, contact_sheet

PAIR = ("cat", "church_at_auvers")
MINUTES = 6
WEIGHTS = (0.0, 0.1)
STRENGTHS = (1.0, 0.9)  # of the pictures: what is judged at equal cin lies between
_SETTINGS = {"content_weight": 0.15, "tv_weight": 0.02, "checkpoint_seconds": 60}


def main() -> Table:
    photo_name, painting_name = PAIR
    painting = decode((pairs.IMAGES / f"{painting_name}.jpg").read_bytes()).pixels
    rows, cells = [], []
    for weight in WEIGHTS:
        path = _trained(weight)
        model, facts = load_network(str(path))
        painter = Painter(model)
        for size in (256, 512):
            photo = pairs.pair(photo_name, painting_name, size).photo
            picture = painter.paint(photo[None], [[1.0]])[0]
            cells.append(Cell(picture, [f"adversarial {weight:g}, {size} px"]))
            for strength in STRENGTHS:
                shown = photo + np.float32(strength) * (picture - photo)
                found = measure(shown, photo, painting)
                row = {"adversarial_weight": f"{weight:g}", "steps": facts.training["steps"]}
                row |= {"size": size, "strength": f"{strength:g}"}
                rows.append(row | {name: found[name] for name in FIGURES})
                print(rows[-1], flush=True)
    contact_sheet(cells, columns=2).save(CACHE / "rival.png")
    return Table(
        "Adversarial training",
        rows,
        (f"{photo_name} x {painting_name}, {MINUTES} minutes of training each.",),
    )


def _trained(weight: float) -> Path:
    """A network after so many minutes; trained once."""
    words = []
    for key, value in (_SETTINGS | {"adversarial_weight": weight}).items():
        words += ["--set", f"{key}={value}"]
    photos = sorted(str(path) for path in pairs.IMAGES.glob("*.jpg") if path.stem != PAIR[0])
    words += ["--content", *photos, "--style", str(pairs.IMAGES / f"{PAIR[1]}.jpg")]
    return trained_for(MINUTES, CACHE / f"rival_{weight:g}.keras", words)
