"""`engine: network` in the pipeline: pictures an hour beside the optimizer, what the pipeline
itself costs, and the memory that a picture of 8192 px takes.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.dataset

from benchmarks import pairs
from benchmarks.spent import call
from benchmarks.table import Table
from nst_ops.images.codec import decode, encode
from nst_ops.network.facts import EMBEDDED
from nst_ops.network.model import load_network
from nst_ops.network.painter import Painter

SIZE = 512
COUNTS = {"network": (16, 112), "optimizer": (1, 4)}  # rows: a run of the first is subtracted
_LARGE = (6144, 8192)  # px
_STYLE = "cafe_terrace_at_night"


def main() -> Table:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        photos = _photos(root, max(COUNTS["network"]))
        for engine, counts in COUNTS.items():
            short, long = (
                call(*_run(root, engine, photos[:count], 1), "--set", "parallelism=1")
                for count in counts
            )
            seconds = (long.wall - short.wall) / (counts[1] - counts[0])
            rows.append(_row(f"nst run, engine: {engine}", SIZE, seconds))
        rows.insert(1, _row("the network alone, in a loop", SIZE, _alone(photos[0])))
        large = root / "large.jpg"
        small = decode(photos[0].read_bytes()).pixels
        tiled = np.tile(
            small, (*(-(-a // b) for a, b in zip(_LARGE, small.shape, strict=False)), 1)
        )
        large.write_bytes(encode(tiled[: _LARGE[0], : _LARGE[1]], "jpeg"))
        spent = call(*_run(root, "network", [large], 2), "--set", f"size={_LARGE[1]}")
        peak = _metadata(root / "out-network-1-2")["peak_memory_bytes"][0].as_py()
        rows.append(_row("nst run, engine: network", _LARGE[1], spent.wall, f"{peak / 1e9:.2f} GB"))
    ratio = rows[2]["seconds"] / rows[0]["seconds"]  # type: ignore[operator]
    return Table(
        "The network in the pipeline",
        rows,
        (
            f"Photos of {SIZE} x 341 px, PNG to PNG, one process. The time of a picture is that "
            "of a long run less that of a short one, so that the start does not count.",
            f"The network makes {ratio:.0f} times the optimizer's pictures an hour.",
            "8192 px: the whole command with its start, a JPEG of 8192 x 6144 px to PNG.",
        ),
    )


def _run(root: Path, engine: str, photos: list[Path], turn: int) -> list[str]:
    manifest = root / f"{engine}-{len(photos)}.csv"
    painting = pairs.IMAGES / f"{_STYLE}.jpg"
    manifest.write_text("content,style\n" + "".join(f"{p},{painting}\n" for p in photos))
    output = root / f"out-{engine}-{len(photos)}-{turn}"
    words = [sys.executable, "-m", "pipeline", "run", "--manifest", str(manifest)]
    return [*words, "--output", str(output), "--set", f"engine={engine}", "--set", f"size={SIZE}"]


def _alone(photo: Path) -> float:
    model, facts = load_network(EMBEDDED)
    painter = Painter(model)
    pixels = decode(photo.read_bytes()).pixels[None]
    style = [facts.weights_of([(_STYLE, 1.0)])]
    painter.paint(pixels, style)
    started = time.perf_counter()
    for _ in range(20):
        painter.paint(pixels, style)
    return (time.perf_counter() - started) / 20


def _metadata(folder: Path):
    return pyarrow.dataset.dataset(sorted((folder / "metadata").iterdir())[-1]).to_table()


def _row(method: str, size: int, seconds: float, memory: str = "-") -> dict[str, object]:
    return {
        "method": method,
        "size": size,
        "seconds": round(seconds, 3),
        "pictures an hour": round(3600 / seconds),
        "peak memory": memory,
    }


def _photos(folder: Path, count: int) -> list[Path]:
    """Photos of one shape, no two alike."""
    pixels = decode((pairs.IMAGES / "coffee.jpg").read_bytes(), long_side=SIZE).pixels
    found = []
    for index in range(count):
        found.append(folder / f"{index:03}.png")
        found[-1].write_bytes(encode(np.roll(pixels, index, axis=1)))
    return found
