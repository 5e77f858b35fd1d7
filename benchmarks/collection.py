"""A night in small: ten thousand tiny rows, one in twenty of them bad, through `nst run`. Are all
accounted for, with the right reasons, and does memory stay flat?
"""

import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.dataset
from PIL import Image

from benchmarks import pairs
from benchmarks.resident import resident
from benchmarks.table import Table
from nst_ops.images.codec import decode, encode

ROWS = 10_000
_EVERY = 20  # rows, of which one is bad
_PHOTOS = 200
_SETTINGS = ("scales=[{size: 48, steps: 2}]", "octaves=[1]")
# Photos that are none, and words of the reason that their rows must give.
_BAD_PHOTOS = {
    "missing.jpg": "cannot be read",
    "truncated.jpg": "damaged or truncated",
    "empty.jpg": "the file is empty",
    "page.jpg": "looks like a web page",
    "thin.png": "sides of at least",
    "vast.png": "max_pixels",
    "a folder": "is a folder",
}
_BAD = _BAD_PHOTOS | {
    "missing painting": "cannot be read",
    "color purple": "color: 'purple'",
    "output ../": "relative path",
}


def main() -> Table:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        manifest = _manifest(root)
        command = [sys.executable, "-m", "pipeline.cli.main", "run", "--quiet"]
        command += ["--manifest", str(manifest), "--output", str(root / "out")]
        command += [word for setting in _SETTINGS for word in ("--set", setting)]
        started = time.perf_counter()
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            memory = _watch(process, root / "out/images")
        seconds = time.perf_counter() - started
        found = pyarrow.dataset.dataset(root / "out/metadata", format="parquet").to_table()
        return _table(found.to_pylist(), memory, seconds, process.returncode)


def _watch(process: subprocess.Popen, images: Path) -> dict[int, float]:
    """GB of all processes of the run, by tenths of the pictures that are there."""
    memory: dict[int, float] = {}
    while process.poll() is None:
        time.sleep(2.0)
        made = len(list(images.glob("*"))) if images.exists() else 0
        tenth = made * 10 // ROWS
        memory[tenth] = max(memory.get(tenth, 0.0), sum(resident(process.pid)) / 1e9)
    return memory


def _table(found: list[dict], memory: dict[int, float], seconds: float, code: int) -> Table:
    statuses = Counter(row["status"] for row in found)
    figures: dict[str, object] = {f"rows {status}": statuses[status] for status in sorted(statuses)}
    for kind, words in _BAD.items():
        rows = [row for row in found if _kind(row["manifest_line"]) == kind]
        right = [r for r in rows if r["status"] == "failed" and words in r["error_message"]]
        figures[f"{kind}: failed for the right reason"] = f"{len(right)}/{len(rows)}"
    lines = Counter(row["manifest_line"] for row in found)
    wrong = sum(lines[line] != 1 for line in range(2, ROWS + 2))
    figures["lines of the manifest without exactly one row"] = wrong
    for tenth in sorted(memory):
        figures[f"GB at {tenth * 10} % of the pictures"] = round(memory[tenth], 2)
    figures["seconds"] = round(seconds, 1)
    figures["ms a row, all included"] = round(1e3 * seconds / ROWS, 1)
    figures["exit code"] = code
    return Table(
        "Ten thousand rows, one in twenty bad",
        [{"what": what, "figure": figure} for what, figure in figures.items()],
        ("48 px, 2 steps, one octave.", "GB are those of all processes of the run together."),
    )


def _kind(line: int) -> str | None:
    """What is wrong with a line of the manifest; None if it is sound."""
    if line % _EVERY:
        return None
    return list(_BAD)[line // _EVERY % len(_BAD)]


def _manifest(root: Path) -> Path:
    photos = _photos(root)
    for name, data in {
        "truncated.jpg": (pairs.IMAGES / "cat.jpg").read_bytes()[:9000],
        "empty.jpg": b"",
        "page.jpg": b"<html><body>404</body></html>",
    }.items():
        (root / name).write_bytes(data)
    Image.new("RGB", (300, 8)).save(root / "thin.png")
    Image.new("1", (50_000, 50_000)).save(root / "vast.png")
    (root / "a folder").mkdir()
    painting = root / "painting.png"
    pixels = decode((pairs.IMAGES / "pere_tanguy.jpg").read_bytes()).pixels
    painting.write_bytes(encode(pixels[100:164, 100:164]))
    lines = ["content,style,id,output,color"]
    for line in range(2, ROWS + 2):
        kind = _kind(line)
        photo = root / kind if kind in _BAD_PHOTOS else photos[line % len(photos)]
        style = "missing.png" if kind == "missing painting" else painting
        output = f"../{line}" if kind == "output ../" else ""
        color = "purple" if kind == "color purple" else ""
        lines.append(f"{photo},{style},{line},{output},{color}")
    manifest = root / "manifest.csv"
    manifest.write_text("\n".join(lines) + "\n")
    return manifest


def _photos(root: Path) -> list[Path]:
    """Crops of 48 px, no two alike."""
    pixels = decode((pairs.IMAGES / "coffee.jpg").read_bytes()).pixels
    random = np.random.default_rng(0)
    found = []
    for index in range(_PHOTOS):
        top, left = (int(random.integers(0, side - 48)) for side in pixels.shape[:2])
        found.append(root / f"{index}.png")
        found[-1].write_bytes(encode(pixels[top : top + 48, left : left + 48]))
    return found
