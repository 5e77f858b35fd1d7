"""How much of a run's time is spent in the compiled step; Python and NumPy cost the rest."""

import time

import nst_ops
from benchmarks import pairs
from benchmarks.table import Table

SIZE = 256


def main() -> Table:
    pair = pairs.load(0, SIZE)
    settings = nst_ops.Settings(size=SIZE)
    known = nst_ops.TargetCache()
    nst_ops.run(pair.photo, [pair.painting], settings, cache=known)  # traces
    rows = [
        # A painting's Gram matrices are computed once per process: both without and with them.
        _timed(pair, settings, "painting new", nst_ops.TargetCache()),
        _timed(pair, settings, "painting known", known),
    ]
    return Table(
        f"Share of the time of one {SIZE} px picture spent in the compiled step",
        rows,
        (
            "`seconds` is the wall time of `nst_ops.run` from photo to picture, `in step` its"
            " `Result.seconds_optimize`; everything was traced before.",
        ),
    )


def _timed(
    pair: pairs.Pair, settings: nst_ops.Settings, case: str, cache: nst_ops.TargetCache
) -> dict[str, object]:
    started = time.perf_counter()
    result = nst_ops.run(pair.photo, [pair.painting], settings, cache=cache)
    seconds = time.perf_counter() - started
    steps = sum(scale.evaluations for scale in result.reports[0].scales)
    return {
        "case": case,
        "steps": steps,
        "seconds": seconds,
        "in step": result.seconds_optimize,
        "share": f"{result.seconds_optimize / seconds:.1%}",
        "outside, ms a step": 1e3 * (seconds - result.seconds_optimize) / steps,
    }
