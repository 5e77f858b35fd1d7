"""Peak memory, whole and in tiles, beside what the planner predicts; and whether tiles leave
seams. Each case is a process of its own, and runs until L-BFGS remembers all it may. Further cases
begin with files, of many pixels or narrow, which have to be decoded and looked at first; the last
with many paintings, which fill what is kept of them.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

from benchmarks.table import Table
from nst_ops.engines.memory import MemoryPlan
from nst_ops.images.size import Size

# Long side, tile, optimizer, history, precision.
CASES: tuple[tuple[int, int | None, str, int, str], ...] = (
    (256, None, "lbfgs", 10, "float32"),
    (512, None, "lbfgs", 10, "float32"),
    (512, None, "lbfgs", 10, "bfloat16"),
    (1024, None, "lbfgs", 5, "bfloat16"),
    (1024, None, "adam", 5, "bfloat16"),
    (1024, 512, "lbfgs", 5, "bfloat16"),
    (2048, 512, "lbfgs", 5, "bfloat16"),
    (2048, 512, "adam", 5, "bfloat16"),
)
# The last makes one step only, which leaves no picture to look for seams in.
PRINTS: tuple[tuple[int, int | None, str, int, str], ...] = (
    (4096, 512, "lbfgs", 3, "bfloat16"),
    (4096, 512, "adam", 3, "bfloat16"),
    (8192, 512, "adam", 0, "bfloat16"),
)
# What the photo and the painting are, height and width in px, and settings.
PHOTO, SCAN = ((600, 800), "jpeg"), ((3000, 4000), "jpeg")
FILES: tuple[tuple[tuple[Size, str], tuple[Size, str], dict[str, Any]], ...] = (
    (PHOTO, SCAN, {"size": 128}),
    (PHOTO, ((3000, 4000), "png"), {"size": 128}),
    (PHOTO, SCAN, {"size": 128, "color": "match"}),
    (((3000, 4000), "png"), ((3000, 4000), "png"), {"size": 512, "color": "match"}),
    (((100, 1500), "jpeg"), ((1500, 1200), "jpeg"), {"size": 1500}),
    (((1500, 60), "png"), SCAN, {"size": 1500}),
)
# How many, and memory_limit.
PAINTINGS = ((190, 12 * 10**8),)


def main(
    cases: tuple = CASES + PRINTS, files: tuple = FILES, paintings: tuple = PAINTINGS
) -> Table:
    rows = [_measured("case", arguments) for arguments in cases]
    rows += [_measured("case_of_files", arguments) for arguments in files]
    rows += [_measured("case_of_paintings", arguments) for arguments in paintings]
    return Table(
        "Peak memory of a process, measured and predicted",
        rows,
        (
            "`error`: predicted over measured, less one.",
            "`seam`: mean change of what the optimization added between neighbouring pixels on"
            " tile borders, over that on other multiples of 16 px; 1.0 is no seam.",
            "Squares of noise-like pixels, default octaves, one scale. With two sizes: from the"
            " files of a photo and a painting, default settings, two steps a scale.",
            "Of many paintings, each for a picture of its own, `predicted` is memory_limit.",
        ),
    )


def _measured(name: str, arguments: tuple) -> dict[str, Any]:
    """One row, from a process of its own."""
    call = f"from benchmarks.memory import {name}; {name}(*{arguments!r})"
    done = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    row = json.loads(done.stdout.splitlines()[-1])
    print(row, flush=True)
    return row


def case(size: int, tile: int | None, optimizer: str, history: int, precision: str) -> None:
    """Prints one row as JSON."""
    from nst_ops.coarse_to_fine.loop import run
    from nst_ops.engines.memory import predict_bytes
    from nst_ops.settings import Settings

    settings = Settings(
        optimizer=optimizer,  # type: ignore[arg-type]
        precision=precision,  # type: ignore[arg-type]
        scales=[{"size": size, "steps": history + 1}],  # type: ignore[list-item]
        tolerance=0.0,
    )
    random = np.random.default_rng(0)
    painting = random.random((500, 400, 3), np.float32)
    photo = random.random((size, size, 3), np.float32) * 0.2 + 0.4
    started = time.perf_counter()
    result = run(photo, [painting], settings, tile=tile, history=history)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    predicted = predict_bytes((size, size), settings, tile=tile, history=history)
    row: dict[str, Any] = {
        "size": size,
        "tile": tile or "whole",
        "optimizer": f"{optimizer}, {history}" if optimizer == "lbfgs" else optimizer,
        "precision": precision,
        "measured, GB": round(peak / 1e9, 2),
        "predicted, GB": round(predicted / 1e9, 2),
        "error": f"{predicted / peak - 1:+.0%}",
        "s/step": round(seconds / (history + 1), 1),
        "seam": round(_seam(result.images[0] - photo, tile), 3) if tile and history else "-",
    }
    print(json.dumps(row))


def case_of_files(
    photo: tuple[Size, str], painting: tuple[Size, str], settings: dict[str, Any]
) -> None:
    """Prints one row as JSON."""
    words = " x ".join(f"{kind} {h}x{w}" for (h, w), kind in (photo, painting))
    words += "".join(f", {key} {value}" for key, value in settings.items())
    # The second is read while TensorFlow has what it takes for the first.
    _print_case(words, photo, painting, 2, settings | {"memory_limit": 8 * 10**9})


def case_of_paintings(count: int, limit: int) -> None:
    """Prints one row as JSON."""
    words = f"{count} paintings, size 256, at memory_limit={limit / 1e9:g}GB"
    settings = {"size": 256, "memory_limit": limit}
    _print_case(words, PHOTO, ((1200, 900), "jpeg"), count, settings, limit)


def _print_case(
    words: str,
    photo: tuple[Size, str],
    painting: tuple[Size, str],
    count: int,
    settings: dict[str, Any],
    predicted: int = 0,
) -> None:
    """So many pictures, each of files of its own; prints the row of the last as JSON.

    Args:
      words: for the column of sizes.
      predicted: bytes; 0: the planner's.
    """
    from pipeline.config.run_config import RunConfig
    from pipeline.jobs.job import Job
    from pipeline.planning.planner import Planner
    from pipeline.workers.stylizer import Stylizer

    config = RunConfig.model_validate({"steps": 2} | settings)
    with tempfile.TemporaryDirectory() as folder:
        planner = Planner(config, config.engine.assets())
        batches = []
        for number in range(count):
            content, style = (
                _file(folder, f"{number}{role}", *of)
                for role, of in (("photo", photo), ("painting", painting))
            )
            job = Job(1, str(number), content, ((style, 1.0),), f"{number}.png")
            batches.append([planner.plan(job)])
        plans: list[MemoryPlan] = []
        started = time.perf_counter()
        stylizer = Stylizer(folder, "run", config, single=True, announce=plans.append)
        rows = list(stylizer.stylize_batches(batches))
    for made in rows:
        if made["status"] != "ok":
            raise RuntimeError(made["error_message"])
    made = rows[-1]
    peak, predicted = made["peak_memory_bytes"], predicted or plans[0].bytes
    steps = count * sum(scale["steps"] for scale in made["scales"])
    row: dict[str, Any] = {
        "size": words,
        "tile": made["tile"] or "whole",
        "optimizer": f"{made['optimizer']}, {made['history']}",
        "precision": made["precision"],
        "measured, GB": round(peak / 1e9, 2),
        "predicted, GB": round(predicted / 1e9, 2),
        "error": f"{predicted / peak - 1:+.0%}",
        "s/step": round((time.perf_counter() - started) / steps, 1),
        "seam": "-",
    }
    print(json.dumps(row))


def _file(folder: str, name: str, size: Size, kind: str) -> str:
    """A picture of so many px, made in a process of its own, which takes its memory with it."""
    path = os.path.join(folder, f"{name}.{kind}")
    call = (
        "from PIL import Image;"
        f"Image.effect_noise({size[::-1]!r}, 60).convert('RGB').save({path!r}, {kind!r})"
    )
    subprocess.run([sys.executable, "-c", call], check=True)
    return path


def _seam(added: np.ndarray, tile: int) -> float:
    """Vertical borders only; horizontal ones are made the same way."""
    from nst_ops.losses.tile_grid import tiles
    from nst_ops.settings import Settings
    from nst_ops.vgg.geometry import margin, vgg19_geometry

    change = np.abs(np.diff(added, axis=1)).mean(axis=(0, 2))  # [W - 1]
    cut = tiles(added.shape[:2], tile, margin(map(vgg19_geometry, Settings().style_layers)))
    borders = {t.columns.start + t.inner[2] - 1 for t in cut} - {-1}
    # The network's pooling makes columns differ by their place in its grid of 16 px.
    others = set(range(15, len(change), 16)) - borders
    return float(change[sorted(borders)].mean() / change[sorted(others)].mean())
