"""What a network is exported to: the files of each format, and how each is run and judged."""

import hashlib
import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from nst_ops.errors import InputError
from nst_ops.export.graph import geometry
from nst_ops.export.onnx import onnx_passes, to_onnx
from nst_ops.export.tflite import tflite_passes, to_tflite
from nst_ops.export.verification import FLOAT, INT8, Comparison, Tolerance, check, compare
from nst_ops.network.facts import NetworkFacts
from nst_ops.network.layout import is_whole
from nst_ops.network.painter import Painter, Passes

# What is imported for each format, beside TensorFlow: converters and the runtimes of the targets.
NEEDED: Mapping[str, Sequence[str]] = {
    "tflite": ("ai_edge_litert",),
    "onnx": ("tf2onnx", "onnxruntime"),
    "web": ("tf2onnx", "onnxruntime"),
}
# Of TFLite's weights, and how near their pictures must come.
PRECISIONS: Mapping[str, Tolerance] = {"float16": FLOAT, "int8": INT8}


class ExportedFile(NamedTuple):
    """Holds a network in the form of another runtime."""

    name: str
    data: bytes
    load: Callable[[bytes, int], Passes]  # (data, threads) -> what paints with it
    tiles: bool  # whether it paints pictures of any size
    tolerance: Tolerance


def missing_packages(format: str) -> list[str]:
    """Returns what is not installed of what a format needs."""
    return [name for name in NEEDED[format] if importlib.util.find_spec(name) is None]


def check_installed(format: str) -> None:
    """Checks that a network can be exported to a format here.

    Raises:
      InputError: it cannot.
    """
    missing = missing_packages(format)
    if missing:
        raise InputError(
            f"--to {format} needs {' and '.join(missing)}, to make the files and to try them; "
            "install 'nst[export]'"
        )


def exported(
    format: str,
    stem: str,
    model: keras.Model,
    facts: NetworkFacts,
    precisions: Sequence[str] = tuple(PRECISIONS),
) -> list[ExportedFile]:
    """Returns a network as the files of a format, not yet verified.

    Args:
      format: one of `NEEDED`; for `web` it is the file that the page holds.
      stem: the beginning of the files' names.
      model: as `load_network` gives it.
      facts: what is known of it.
      precisions: of `tflite`, some of `PRECISIONS`.
    """
    if format == "tflite":
        return [
            ExportedFile(
                f"{stem}.{precision}.tflite",
                to_tflite(model, int8=precision == "int8"),
                tflite_passes,
                True,
                PRECISIONS[precision],
            )
            for precision in precisions
        ]
    tiled = to_onnx(model, facts, tiles=True)
    files = [ExportedFile(f"{stem}.tiles.onnx", tiled, onnx_passes, True, FLOAT)]
    if format == "onnx":
        plain = to_onnx(model, facts)
        files.insert(0, ExportedFile(f"{stem}.onnx", plain, onnx_passes, False, FLOAT))
    return files


def verified(
    file: ExportedFile, painter: Painter, styles: int, photos: Sequence[np.ndarray], threads: int
) -> list[Comparison]:
    """Returns what the comparison of a file with its network has shown, a photo each.

    Args:
      file: as `exported` gives it.
      painter: paints with the network.
      styles: how many it has.
      photos: to paint, [H, W, 3] each.
      threads: of the file's runtime.

    Raises:
      InputError: they differ by more than is allowed.
    """
    passes = file.load(file.data, threads)
    found = [
        compare(passes, painter, photo, styles)
        for photo in photos
        if file.tiles or is_whole(photo.shape[:2])
    ]
    check(file.name, found, file.tolerance)
    return found


def description(
    model: keras.Model,
    facts: NetworkFacts,
    files: Sequence[tuple[ExportedFile, Sequence[Comparison]]],
) -> str:
    """Returns, as JSON, what a program needs to know that paints with these files.

    Args:
      model: the network.
      facts: what is known of it.
      files: each with what its comparison with the network has shown.
    """
    return json.dumps(
        {
            "styles": [style._asdict() for style in facts.styles],
            "geometry": geometry(model),
            "files": {file.name: _told(file, found) for file, found in files},
            "network": {"sha256": facts.sha256, "licence": facts.licence},
        },
        indent=1,
    )


def _told(file: ExportedFile, found: Sequence[Comparison]) -> dict[str, Any]:
    return {
        "bytes": len(file.data),
        "sha256": hashlib.sha256(file.data).hexdigest(),
        "largest_error": max(each.error for each in found),
        "least_psnr_db": round(min(each.psnr for each in found), 1),
    }
