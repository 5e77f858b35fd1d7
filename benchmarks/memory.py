"""Peak memory, whole and in tiles, beside what the planner predicts; and whether tiles leave
seams. Each case is a process of its own, and runs until L-BFGS remembers all it may.
"""

import json
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np

from benchmarks.table import Table

# Long side, tile, optimiser, history, precision.
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


def main(cases: tuple = CASES + PRINTS) -> Table:
    rows = []
    for arguments in cases:
        call = f"from benchmarks.memory import case; case(*{arguments!r})"
        done = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    return Table(
        "Peak memory of a process, measured and predicted",
        rows,
        (
            "`error`: predicted over measured, less one.",
            "`seam`: mean change of what the optimisation added between neighbouring pixels on"
            " tile borders, over that on other multiples of 16 px; 1.0 is no seam.",
            "Squares of noise-like pixels, default octaves, one scale.",
        ),
    )


def case(size: int, tile: int | None, optimizer: str, history: int, precision: str) -> None:
    """Prints one row as JSON."""
    from nst_ops.coarse_to_fine import run
    from nst_ops.memory import predict_bytes
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


def _seam(added: np.ndarray, tile: int) -> float:
    """Vertical borders only; horizontal ones are made the same way."""
    from nst_ops.settings import Settings
    from nst_ops.tiles import margin, tiles

    change = np.abs(np.diff(added, axis=1)).mean(axis=(0, 2))  # [W - 1]
    cut = tiles(added.shape[:2], tile, margin(Settings().style_layers))
    borders = {t.columns.start + t.inner[2] - 1 for t in cut} - {-1}
    # The network's pooling makes columns differ by their place in its grid of 16 px.
    others = set(range(15, len(change), 16)) - borders
    return float(change[sorted(borders)].mean() / change[sorted(others)].mean())
