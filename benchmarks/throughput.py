"""Pictures per hour: a folder of photos with one painting, by `nst run` and by a shell loop."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import pairs
from benchmarks.table import Table
from nst_ops.images import decode, encode

PHOTOS, SIZE, LOOPED = 32, 256, 4
_NST = (sys.executable, "-m", "pipeline.cli")
_SETTINGS = ("--set", f"size={SIZE}")


def main() -> Table:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        photos = _photos(root)
        painting = pairs.IMAGES / "cafe_terrace_at_night.jpg"
        manifest = root / "manifest.csv"
        manifest.write_text("content,style\n" + "".join(f"{p},{painting}\n" for p in photos))
        rows = []
        for processes in (1, 2):
            seconds, overhead = _run(manifest, root / f"out-{processes}", processes)
            rows.append(_row(f"nst run, {processes} process(es)", PHOTOS, seconds, overhead))
        started = time.perf_counter()
        for photo in photos[:LOOPED]:
            output = root / f"{photo.stem}.png"
            _call("stylize", photo, painting, "-o", output, *_SETTINGS)
        rows.append(_row("shell loop over nst stylize", LOOPED, time.perf_counter() - started, "-"))
    best = max(float(row["pictures per hour"]) for row in rows)  # type: ignore[arg-type]
    for row in rows:
        row["of the best"] = f"{float(row['pictures per hour']) / best:.0%}"  # type: ignore[arg-type]
        print(row, flush=True)
    return Table(
        f"Pictures per hour: {SIZE} px, one painting",
        rows,
        (
            "Whole commands, start of processes included.",
            "`outside`: share of the run's time not spent in the compiled step, start included.",
            f"The loop was measured over {LOOPED} photos.",
        ),
    )


def _run(manifest: Path, output: Path, processes: int) -> tuple[float, str]:
    beam = ("--direct_running_mode=multi_processing", f"--direct_num_workers={processes}")
    started = time.perf_counter()
    _call("run", "--manifest", manifest, "--output", output, *_SETTINGS, *beam[: 2 * processes - 2])
    seconds = time.perf_counter() - started
    import pyarrow.dataset

    rows = pyarrow.dataset.dataset(output / "metadata", format="parquet").to_table().to_pylist()
    optimising = sum(row["seconds_optimise"] / row["batch_size"] for row in rows) / processes
    return seconds, f"{1 - optimising / seconds:.0%}"


def _row(method: str, count: int, seconds: float, outside: str) -> dict[str, object]:
    return {
        "method": method,
        "pictures": count,
        "seconds": round(seconds, 1),
        "outside": outside,
        "pictures per hour": round(3600 * count / seconds),
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


def _call(*arguments: object) -> None:
    done = subprocess.run([*_NST, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(json.dumps(done.stderr[-2000:]))
