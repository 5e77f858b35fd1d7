"""Many rows that need no picture: all done already, or all without a photo. Are rows a second and
the memory of each process independent of how many there are?

`python -m benchmarks rows 10000 100000` measures these numbers of rows instead of the default's.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow
import pyarrow.parquet

from benchmarks import pairs
from benchmarks.resident import resident
from benchmarks.table import Table
from nst_ops.images.codec import decode, encode

ROWS = (10_000, 100_000, 1_000_000)
_LINKS = 10_000  # that one file may have on most file systems, and more
_SETTINGS = ("scales=[{size: 48, steps: 1}]", "octaves=[1]", "precision=float32")


def main(*counts: str) -> Table:
    rows = []
    for count in map(int, counts or ROWS):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            rows += [
                _run("photos that are missing", _manifest(root, count, "gone.png"), root / "bad"),
                *_cached(root, count),
            ]
    return Table(
        "Rows that need no picture",
        rows,
        (
            "One photo and one painting of 48 px; the pictures are hard links to few files.",
            "Read: the first night after the pictures were made by somebody else, every file is "
            "read. Known: the night after that, no file that has not changed is read.",
            "GB are the largest resident memory of any single process.",
            "Expected before measuring, from 1.25 ms a cached row (800 a second) of the version "
            "before: 1000 rows a second, and less than 1 GB at a million rows.",
        ),
    )


def _cached(root: Path, count: int) -> list[dict[str, object]]:
    pixels = decode((pairs.IMAGES / "coffee.jpg").read_bytes()).pixels
    (root / "photo.png").write_bytes(encode(pixels[100:148, 100:148]))
    one = _manifest(root, 1, "photo.png")
    _run("", one, root / "out")
    images = root / "out/images"
    (first,) = images.iterdir()
    manifest = _manifest(root, count, "photo.png")
    for row in range(count):
        path, source = (images / f"{number}.png" for number in (row, row - row % _LINKS))
        if row % _LINKS:
            os.link(source, path)
        elif row:  # the first is there
            shutil.copy(first, path)
    kinds = ("pictures that are there: read", "pictures that are there: known")
    return [_run(kind, manifest, root / "out") for kind in kinds]


def _manifest(root: Path, count: int, photo: str) -> Path:
    painting = root / "painting.png"
    if not painting.exists():
        pixels = decode((pairs.IMAGES / "pere_tanguy.jpg").read_bytes()).pixels
        painting.write_bytes(encode(pixels[100:164, 100:164]))
    path = root / f"{count}-{photo}.parquet"
    columns = {
        "content": [str(root / photo)] * count,
        "style": [str(painting)] * count,
        "id": [str(row) for row in range(count)],
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def _run(kind: str, manifest: Path, out: Path) -> dict[str, object]:
    command = [sys.executable, "-m", "pipeline.cli.main", "run", "--quiet"]
    command += ["--manifest", str(manifest), "--output", str(out)]
    command += [word for setting in _SETTINGS for word in ("--set", setting)]
    started = time.perf_counter()
    peak = 0
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            time.sleep(0.2)
            peak = max(peak, *resident(process.pid, "VmHWM"), 0)
    seconds = time.perf_counter() - started
    report = max((out / "runs").iterdir()) / "report.html"
    count = pyarrow.parquet.read_metadata(manifest).num_rows
    return {
        "rows": count,
        "kind": kind,
        "exit code": process.returncode,
        "seconds": round(seconds, 1),
        "rows a second": round(count / seconds),
        "GB": peak / 1e9,
        "report MB": report.stat().st_size / 1e6,
    }
