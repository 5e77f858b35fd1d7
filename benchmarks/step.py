"""Speed of the compiled step against the machine's own matrix multiplication, in one run."""

import time

import numpy as np
import tensorflow as tf

import nst_ops
from benchmarks.table import Table
from nst_ops.images.size import Size
from nst_ops.vgg.geometry import vgg19_geometry
from nst_ops.vgg.weights import CHANNELS

_STEPS = 6
CASES = ((128, 1), (128, 4), (256, 1), (256, 4), (512, 1), (1024, 1))


def main() -> Table:
    rows = []
    for precision in ("float32", "bfloat16"):
        peak = _matrix_peak(precision)
        for size, batch in CASES:
            seconds = _step_seconds(size, batch, precision)
            speed = step_flops((size, size)) * batch / seconds / 1e9
            rows.append(
                {
                    "precision": precision,
                    "size": size,
                    "batch": batch,
                    "ms a step": round(1e3 * seconds),
                    "GFLOP/s": round(speed),
                    "of matrix peak": f"{speed / peak:.0%}",
                }
            )
            print(rows[-1], flush=True)
    return Table(
        "The compiled step (loss, gradient and L-BFGS)",
        rows,
        (
            "One octave. FLOP are the network's: twice its convolutions up to block5_conv1.",
            "Matrix peak: the best of five 4096 x 4096 products in the same precision, same run.",
            "Best of the steps, as the machine may be shared.",
        ),
    )


def step_flops(size: Size) -> float:
    """Of one evaluation: convolutions up to block5_conv1, forward and back to the pixels."""
    layers = list(CHANNELS.items())
    layers = layers[: [name for name, _ in layers].index("block5_conv1") + 1]
    pixels = size[0] * size[1]
    return sum(
        2 * 2 * 9 * cin * cout * pixels / vgg19_geometry(name).stride ** 2
        for name, (cin, cout) in layers
    )


def _matrix_peak(precision: str) -> float:
    matrix = tf.cast(tf.random.stateless_normal([4096, 4096], [0, 1]), precision)
    multiply = tf.function(lambda a: tf.matmul(a, a))
    multiply(matrix)
    best = np.inf
    for _ in range(5):
        started = time.perf_counter()
        multiply(matrix)[0, 0].numpy()
        best = min(best, time.perf_counter() - started)
    return 2 * 4096**3 / best / 1e9


def _step_seconds(size: int, batch: int, precision: str) -> float:
    random = np.random.default_rng(0)
    photos = random.random((batch, size, size, 3), np.float32)
    settings = nst_ops.Settings(
        precision=precision,  # type: ignore[arg-type]
        octaves=[1.0],
        scales=[{"size": size, "steps": _STEPS}],  # type: ignore[list-item]
        tolerance=0.0,
    )
    marks = [i.seconds for i in nst_ops.stylize(photos, [photos[0]] * batch, settings)]
    return float(np.diff(marks).min())
