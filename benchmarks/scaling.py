"""Cost against pixels and against pictures: both should be straight lines through the origin."""

import time

import numpy as np

import nst_ops
from benchmarks import pairs
from benchmarks.table import Table


def main() -> Table:
    rows = []
    for size in (128, 256, 384, 512):
        pair = pairs.load(0, size)
        rows.append(_row(f"{size} px", pair, 1, pair.photo.shape[0] * pair.photo.shape[1]))
    pair = pairs.load(0, 128)
    for batch in (2, 4, 8):
        rows.append(_row(f"{batch} of 128 px", pair, batch, batch * pair.photo[..., 0].size))
    return Table(
        "Cost against pixels and pictures",
        rows,
        ("10 steps at one scale, after tracing; one line a batch.",),
    )


def _row(case: str, pair: pairs.Pair, batch: int, pixels: int) -> dict[str, object]:

    settings = nst_ops.Settings(
        scales=[{"size": max(pair.photo.shape), "steps": 10}],  # type: ignore[list-item]
        tolerance=0.0,
    )
    photos = np.stack([pair.photo] * batch)
    cache = nst_ops.TargetCache()
    nst_ops.run(photos, [pair.painting] * batch, settings, cache=cache)
    started = time.perf_counter()
    nst_ops.run(photos, [pair.painting] * batch, settings, cache=cache)
    seconds = time.perf_counter() - started
    return {"case": case, "px": pixels, "seconds": seconds, "us per px": 1e6 * seconds / pixels}
