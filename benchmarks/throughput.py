"""Pictures per hour: a folder of photos with one painting, by `nst run`, a loop in Python, and a
shell loop over `nst stylize`. What a loop over `pastiche` takes is in `time_to_quality`.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import pairs
from benchmarks.spent import Spent, call
from benchmarks.table import Table
from nst_ops.images.codec import decode, encode

PHOTOS, SIZE, LOOPED = 32, 256, 4
_NST = (sys.executable, "-m", "pipeline.cli.main")
_SETTINGS = ("--set", f"size={SIZE}")
_LOOP = """
import sys, nst_ops
from pathlib import Path

def load(path, size):
    return nst_ops.shrink(nst_ops.decode(Path(path).read_bytes()), size).pixels

settings = nst_ops.Settings(size=int(sys.argv[1]))
painting = load(sys.argv[2], 2048)
for path in sys.argv[3:]:
    result = nst_ops.run(load(path, settings.size), [painting], settings)
    Path(path).with_suffix(".out.png").write_bytes(nst_ops.encode(result.images[0]))
"""


def main() -> Table:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        photos = _photos(root)
        painting = pairs.IMAGES / "cafe_terrace_at_night.jpg"
        manifest = root / "manifest.csv"
        manifest.write_text("content,style\n" + "".join(f"{p},{painting}\n" for p in photos))
        rows = []
        for processes in (1, 2):
            output = root / f"out-{processes}"
            arguments = ("--manifest", manifest, "--output", output, *_SETTINGS)
            spent = call(*_NST, "run", *arguments, "--set", f"parallelism={processes}")
            rows.append(_row(f"nst run, {processes} process(es)", PHOTOS, spent))
        # The same work without pipeline: what it costs more is the pipeline's overhead.
        spent = call(sys.executable, "-c", _LOOP, SIZE, painting, *photos)
        rows.append(_row("loop in Python", PHOTOS, spent))
        spent = [
            call(*_NST, "stylize", photo, painting, "-o", photo.with_suffix(".webp"), *_SETTINGS)
            for photo in photos[:LOOPED]
        ]
        total = Spent(*map(sum, zip(*spent, strict=True)))
        rows.append(_row("shell loop over nst stylize", LOOPED, total))
    for row in rows:
        row["cpu of the first"] = f"{row['cpu'] / row['pictures'] * PHOTOS / rows[0]['cpu']:.2f}x"  # type: ignore[operator]
        print(row, flush=True)
    return Table(
        f"Pictures per hour: {SIZE} px, one painting",
        rows,
        (
            "Whole commands, start of processes included.",
            "`cpu`: processor seconds, which other work on the machine blurs less.",
            f"The loop over nst stylize was measured over {LOOPED} photos.",
        ),
    )


def _row(method: str, count: int, spent: Spent) -> dict[str, object]:
    return {
        "method": method,
        "pictures": count,
        "seconds": round(spent.wall, 1),
        "cpu": round(spent.cpu, 1),
        "pictures per hour": round(3600 * count / spent.wall),
    }


def _photos(folder: Path) -> list[Path]:
    """Crops of the examples, all of one shape."""
    random = np.random.default_rng(0)
    found = []
    for index in range(PHOTOS):
        name = ("rocket", "cat", "coffee", "astronaut")[index % 4]
        pixels = decode((pairs.IMAGES / f"{name}.jpg").read_bytes()).pixels
        top, left = (
            int(random.integers(0, side - least))
            for side, least in zip(pixels.shape[:2], (256, 384), strict=True)
        )
        found.append(folder / f"{index:02}-{name}.png")
        found[-1].write_bytes(encode(pixels[top : top + 256, left : left + 384]))
    return found
