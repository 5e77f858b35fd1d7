"""The page in headless Chromium: bytes to load, seconds to the first picture, milliseconds a frame,
on one and two threads.
"""

import gzip
import tempfile
import time
from pathlib import Path

from benchmarks.network import timed_photo
from benchmarks.table import Table
from nst_ops.export.onnx import to_onnx
from nst_ops.network.facts import EMBEDDED
from nst_ops.network.model import load_network
from nst_ops.network.painter import Painter
from nst_ops.network.thumbnails import read_thumbnails
from pipeline.web.server import serve
from pipeline.web.site import make_site
from tests.web.conftest import FAKE_CAMERA, open_page, serving

SIZES = (256, 512, 1024)
_TIMES = """
const [size, threads, done] = arguments;
(async () => {
  const { Painter } = await import('./painter.js');
  const network = await (await fetch('network.json')).json();
  const painter = new Painter(network);
  painter.threads = threads;
  const [width, height] = [size, Math.round(size * 2 / 3)];
  const photo = new ImageData(width, height);
  photo.data.forEach((_, i) => { photo.data[i] = i % 4 === 3 ? 255 : (i * 7919) % 256; });
  const style = network.styles.map((_, i) => Number(i === 0));
  const times = [];
  for (let i = 0; i < 8; i += 1) {
    const started = performance.now();
    await painter.paint(photo, style, size);
    times.push(performance.now() - started);
  }
  painter.worker.terminate();
  return Math.min(...times.slice(1));
})().then(done, (error) => done(String(error)));
"""


def main() -> Table:
    model, facts = load_network(EMBEDDED)
    painter = Painter(model)
    onnx = to_onnx(model, facts, tiles=True)
    site = make_site(onnx, facts, painter, read_thumbnails(EMBEDDED))
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path, data in site.items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_bytes(data)
        with serving(serve(folder, "127.0.0.1", 0)) as address:
            for threads in (1, 2):
                row: dict[str, object] = {"threads": threads}
                with open_page(folder / "saved", *FAKE_CAMERA) as page:
                    page.browser.set_script_timeout(300)
                    started = time.perf_counter()
                    page.open(address)
                    row["s to load"] = time.perf_counter() - started
                    for size in SIZES:
                        found = page.browser.execute_async_script(_TIMES, size, threads)
                        row[f"ms, {size} px"] = round(float(found))
                    if threads == 2:
                        started = time.perf_counter()
                        page.choose(timed_photo(512))
                        page.painted((341, 512))
                        row["s from photo to picture, 512 px"] = time.perf_counter() - started
                        page.find("camera").click()
                        page.wait_for("speed", "frames a second")
                        time.sleep(10)
                        row["camera, frames a second"] = page.text("speed").split()[0]
                    else:
                        row["s from photo to picture, 512 px"] = "-"
                        row["camera, frames a second"] = "-"
                rows.append(row)
                print(row, flush=True)
    packed = sum(len(gzip.compress(data)) for data in site.values())
    total = sum(map(len, site.values()))
    return Table(
        "The page in Chromium",
        rows,
        (
            f"{len(site)} files, {total / 1e6:.1f} MB, {packed / 1e6:.1f} as gzip sends them; of "
            f"these the network {len(onnx) / 1e6:.2f}.",
            "ms: of one picture of 3 : 2, from asking to having it, the fastest of seven. The "
            "camera's pictures are of 256 px.",
        ),
    )
