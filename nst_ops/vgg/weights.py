"""VGG19's weights as arrays: from the package, from Keras's download, or from a file.

Weights are `{layer: (kernel [3, 3, in, out] float32, bias [out] float32)}` under Keras's layer
names, in Keras's order. This module needs no TensorFlow, so a launcher can hash and check weights
without starting it.
"""

import functools
import hashlib
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nst_ops.errors import InputError

EMBEDDED = Path(__file__).parent / "data" / "vgg19_block5_conv1.npz"
EMBEDDED_SHA256 = "42200b992f9ac709db784b5577507d2ec2cac850c5ae9f7432674181e36f1f1b"

# Simonyan & Zisserman 2014, configuration E: {layer: (input channels, output channels)}.
CHANNELS = {
    f"block{block}_conv{conv}": (before if conv == 1 else after, after)
    for block, (convs, before, after) in enumerate(
        [(2, 3, 64), (2, 64, 128), (4, 128, 256), (4, 256, 512), (4, 512, 512)], start=1
    )
    for conv in range(1, convs + 1)
}
LAYERS = tuple(CHANNELS)

Layer = tuple[np.ndarray, np.ndarray]


class Weights(NamedTuple):
    """Holds `layers` in the form that the module describes, and the SHA-256 of their file."""

    layers: Mapping[str, Layer]
    sha256: str


def known_layers(layers: dict[str, float]) -> dict[str, float]:
    """Returns layers and their weights as they are; validators of settings call it.

    Raises:
      ValueError: VGG19 has no such layer.
    """
    for layer in layers:
        if layer not in LAYERS:
            raise ValueError(f"no layer {layer!r} in VGG19; its layers are {', '.join(LAYERS)}")
    return layers


@functools.lru_cache(maxsize=2)
def load_weights(source: str = "embedded") -> Weights:
    """Loads weights; a process keeps the last two sources that it has loaded.

    Args:
      source: `embedded` (block1_conv1 to block5_conv1, part of this package), `imagenet` (all
        layers, by Keras's own download) or the path of a Keras `.h5` or `.weights.h5` or of an
        `.npz` such as the embedded one.

    Raises:
      InputError: the file is missing, damaged or not VGG19's, or Keras cannot download it.
    """
    if source == "imagenet":
        path = _download()
    else:
        path = EMBEDDED if source == "embedded" else Path(source)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot read the network weights ({error.strerror or error}); give `embedded`, "
            "`imagenet` or a path",
            path=str(path),
        ) from error
    sha256 = hashlib.sha256(data).hexdigest()
    if source == "embedded" and sha256 != EMBEDDED_SHA256:
        raise InputError(
            f"the embedded weights have SHA-256 {sha256}, expected {EMBEDDED_SHA256}; reinstall "
            "the package",
            path=str(path),
        )
    try:
        arrays = _read_npz(data) if path.suffix == ".npz" else _read_h5(data)
    except Exception as error:  # numpy, zipfile and h5py raise a dozen kinds for damaged files
        raise InputError(
            f"not readable as network weights ({type(error).__name__}: {error}); "
            "expected VGG19 weights in a Keras .h5 or .weights.h5, or an .npz such as the "
            "embedded one",
            path=str(path),
        ) from error
    return Weights(_checked(arrays, str(path)), sha256)


def layer_weights(weights: Weights, layer: str) -> Layer:
    """Returns kernel and bias of one layer.

    Raises:
      InputError: VGG19 has no such layer, or these weights lack it.
    """
    if layer not in CHANNELS:
        raise InputError(f"no layer {layer!r} in VGG19; its layers are {', '.join(LAYERS)}")
    if layer not in weights.layers:
        raise InputError(
            f"these weights end at {list(weights.layers)[-1]} and lack {layer}; use a layer up "
            "to there, or "
            "`weights: imagenet` (all layers, downloaded by Keras) or a file that has it"
        )
    return weights.layers[layer]


def _download() -> Path:
    # Keras is imported only here: it starts TensorFlow.
    import keras

    name = "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5"
    url = f"https://storage.googleapis.com/tensorflow/keras-applications/vgg19/{name}"
    try:
        # The same call, file and hash as keras.applications.VGG19(weights="imagenet",
        # include_top=False).
        return Path(
            keras.utils.get_file(
                name, url, cache_subdir="models", file_hash="253f8cb515780f3b799900260a226db6"
            )
        )
    except Exception as error:
        raise InputError(
            f"weights: imagenet: Keras could not download {url} ({error}); use `weights: "
            "embedded`, or download the "
            "file elsewhere and give its path"
        ) from error


def _read_npz(data: bytes) -> dict[str, Layer]:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        found = {}
        for name in LAYERS:
            if f"{name}/bias" not in arrays:
                continue
            if f"{name}/kernel" in arrays:
                kernel = arrays[f"{name}/kernel"]
            else:
                kernel = arrays[f"{name}/kernel_table"][arrays[f"{name}/kernel_codes"]]
            found[name] = (kernel, arrays[f"{name}/bias"])
        return found


def _read_h5(data: bytes) -> dict[str, Layer]:
    """Finds the convolutions in any of Keras's HDF5 layouts.

    Keras 2 files hold `[model_weights/]block1_conv1/.../kernel:0`, Keras 3 files
    `.../block1_conv1/vars/0` or, from models whose layers were renamed on saving,
    `.../conv2d_3/vars/0` (ours: `mirrored_conv2d_3`), which count in the network's order.
    """
    import h5py  # a dependency of Keras

    arrays: dict[str, list[np.ndarray]] = {}

    def visit(path: str, node: Any) -> None:
        # An optimizer's moments are named and shaped like the weights that they belong to.
        if not isinstance(node, h5py.Dataset) or path.startswith("optimizer"):
            return
        for part in path.split("/"):
            numbered = re.fullmatch(r"(?:mirrored_)?conv2d(?:_(\d+))?", part)
            if part in CHANNELS or (numbered and int(numbered[1] or 0) < len(LAYERS)):
                name = part if part in CHANNELS else LAYERS[int(numbered[1] or 0)]  # type: ignore[index]
                arrays.setdefault(name, []).append(np.asarray(node[()]))  # pyright: ignore[reportIndexIssue]
                return

    with h5py.File(io.BytesIO(data), "r") as file:
        file.visititems(visit)
    by_rank = {name: {a.ndim: a for a in found} for name, found in arrays.items()}
    return {name: (by_rank[name][4], by_rank[name][1]) for name in LAYERS if name in by_rank}


def _checked(arrays: Mapping[str, Layer], path: str) -> dict[str, Layer]:
    if not arrays:
        raise InputError(
            f"holds no layer of VGG19; expected names such as {LAYERS[0]}, {LAYERS[1]}", path=path
        )
    checked = {}
    for name, (kernel, bias) in arrays.items():
        expected = ((3, 3, *CHANNELS[name]), CHANNELS[name][1:])
        if (kernel.shape, bias.shape) != expected:
            raise InputError(
                f"{name} has kernel {kernel.shape} and bias {bias.shape}, VGG19's are "
                f"{expected[0]} and {expected[1]}; "
                "these are another network's weights",
                path=path,
            )
        kernel, bias = kernel.astype(np.float32), bias.astype(np.float32)
        if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
            raise InputError(
                f"{name} holds values that are not finite; the file is damaged", path=path
            )
        checked[name] = (kernel, bias)
    return checked
