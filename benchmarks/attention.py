"""What the attention term does: figures of all pairs and a contact sheet, `docs/attention.jpg`."""

import time
from pathlib import Path

import nst_ops
from benchmarks import pairs
from benchmarks.table import Table
from nst_ops.quality import measure
from pipeline.report.contact_sheet import Cell, contact_sheet

SIZE = 256
SHEET = Path(__file__).parents[1] / "docs" / "attention.jpg"
# Weight, and after how many steps parts are matched anew.
CHOICES = ((0.0, 0), (0.5, 10), (1.25, 10), (2.5, 10))


def main() -> Table:
    rows, cells = [], []
    for number in range(len(pairs.NAMES)):
        pair = pairs.load(number, SIZE)
        # Traces and compiles, so that no picture below is charged for it.
        for weight in (0.0, 1.0):
            draft = nst_ops.Settings(size=SIZE, steps=1, attention_weight=weight)
            nst_ops.run(pair.photo, [pair.painting], draft)
        without = 0.0
        for weight, every in CHOICES:
            settings = nst_ops.Settings(
                size=SIZE, attention_weight=weight, attention_every=every, tolerance=0.0
            )
            started = time.process_time()
            picture = nst_ops.run(pair.photo, [pair.painting], settings).images[0]
            spent = time.process_time() - started
            without = without or spent
            figures = measure(picture, pair.photo, pair.painting)
            choice = {"attention_weight": f"{weight:g}", "attention_every": every}
            rows.append({"pair": pair.name, **choice, **figures, "cpu": spent / without})
            print(*rows[-1].values(), flush=True)
            cells.append(Cell(picture, [f"attention {weight:g}"]))
    contact_sheet(cells, columns=len(CHOICES)).save(SHEET, quality=90)
    return Table(
        f"The attention term, {SIZE} px",
        rows,
        (
            "Other settings are the defaults, but for tolerance 0: all take the same steps.",
            "`cpu`: processor time of the picture against the same without attention.",
            "docs/attention.jpg has the pictures, a pair in each row.",
        ),
    )
