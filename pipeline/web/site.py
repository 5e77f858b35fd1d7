"""The folder of static files that is a page: any web server can serve it, at any address."""

import hashlib
import json
import lzma
from collections.abc import Mapping
from importlib import resources

import numpy as np

from nst_ops.export.graph import geometry
from nst_ops.export.verification import sample_photo, sample_photos
from nst_ops.images.codec import Picture, shrink
from nst_ops.network.facts import NetworkFacts
from nst_ops.network.painter import Painter
from nst_ops.network.thumbnails import SIDE, thumbnail

MODEL, FACTS = "network.onnx", "network.json"
RUNTIME = "onnxruntime-web 1.30.0"
_EXAMPLE = "cat.jpg"
_FILES = "files.js"  # what the service worker keeps
_NOT_SERVED = ".md"


def make_site(
    onnx: bytes, facts: NetworkFacts, painter: Painter, thumbnails: Mapping[str, bytes]
) -> dict[str, bytes]:
    """Returns all files of a page, {name in its folder: content}.

    Args:
      onnx: the network, with tiles.
      facts: what is known of it.
      painter: paints with it, where a thumbnail is missing.
      thumbnails: {style: its painting as a small JPEG file}.
    """
    site = {f"runtime/{name}": data for name, data in _package_files("runtime").items()}
    site |= _package_files("page")
    site[f"photos/{_EXAMPLE}"] = sample_photo(_EXAMPLE)
    site[MODEL] = onnx
    styles = []
    for number, name in enumerate(facts.names):
        path = f"styles/{number}.jpg"
        site[path] = thumbnails.get(name) or _swatch(painter, facts, name)
        styles.append({"name": name, "label": _label(name), "thumbnail": path})
    site[FACTS] = json.dumps(
        {
            "styles": styles,
            "model": MODEL,
            "model_bytes": len(onnx),
            "runtime": RUNTIME,
            "example": f"photos/{_EXAMPLE}",
            "geometry": geometry(painter.model),
            "sha256": facts.sha256,
            "licence": facts.licence,
        },
        indent=1,
    ).encode()
    version = hashlib.sha256(b"".join(site[name] for name in sorted(site))).hexdigest()[:16]
    kept = ["./", *sorted(name for name in site if name != "service_worker.js")]
    site[_FILES] = f"self.PAGE = {json.dumps({'version': version, 'files': kept})};\n".encode()
    return site


def _package_files(folder: str) -> dict[str, bytes]:
    """Returns the files of a folder of this package, unpacked."""
    found = {}
    for file in resources.files("pipeline.web").joinpath(folder).iterdir():
        if file.name.endswith(".xz"):
            found[file.name.removesuffix(".xz")] = lzma.decompress(file.read_bytes())
        elif not file.name.endswith(_NOT_SERVED):
            found[file.name] = file.read_bytes()
    return found


def _swatch(painter: Painter, facts: NetworkFacts, style: str) -> bytes:
    """Returns what a style makes of a photo, where its painting is not known."""
    photo = shrink(Picture(sample_photos()[0]), SIDE).pixels
    painted = painter.paint(photo[None], [facts.weights_of([(style, 1.0)])])
    return thumbnail(np.asarray(painted[0]))


def _label(name: str) -> str:
    words = name.replace("_", " ").strip() or name
    return words[0].upper() + words[1:]
