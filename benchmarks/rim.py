"""The rim of pictures: how the outermost pixels differ from those inside, with the network's
mirrored border and with zeros there, as is usual.
"""

from collections.abc import Mapping

import keras
import numpy as np

import nst_ops
from benchmarks import pairs
from benchmarks.table import Table, means
from nst_ops.images.codec import Picture, shrink
from nst_ops.losses.octaves import layers_in_use
from nst_ops.vgg.network import vgg19

SIZE = 256
_PATCH = 5  # px, side of the patches whose colours are compared
_RIM = 8  # px


def main() -> Table:
    settings = nst_ops.Settings(size=SIZE, tolerance=0.0, precision="float32")
    mirrored = vgg19(layers_in_use(settings))
    rows = []
    for number in range(len(pairs.NAMES)):
        pair = pairs.load(number, SIZE)
        for border, network in (("zeros", with_zeros(mirrored)), ("mirrored", mirrored)):
            picture = nst_ops.run(pair.photo, [pair.painting], settings, model=network).images[0]
            rows.append({"pair": pair.name, "border": border, **_figures(picture, pair)})
            print(*rows[-1].values(), flush=True)
    return Table(
        f"The rim of pictures, {SIZE} px",
        [*rows, *(_mean(rows, border) for border in ("zeros", "mirrored"))],
        (
            "`light`: mean brightness of the outermost 2 px less that of the 6th to 13th, in % of"
            " white, and less the same of the photo. `colour`: the same of chroma.",
            f"`swd rim`: distance of the {_PATCH} x {_PATCH} px patches in the outermost {_RIM} px"
            f" from the painting's (sliced Wasserstein); `swd inside`: of the next {_RIM} px.",
        ),
    )


def with_zeros(network: keras.Model) -> keras.Model:
    """The same network that sees zeros beyond the border."""

    def plain(layer: keras.Layer) -> keras.Layer:
        kind = keras.layers.Conv2D if isinstance(layer, keras.layers.Conv2D) else type(layer)
        return kind.from_config(layer.get_config())

    copy = keras.models.clone_model(network, clone_function=plain)
    copy.set_weights(network.get_weights())
    return copy


def _figures(picture: np.ndarray, pair: pairs.Pair) -> Mapping[str, float]:
    painting = _patches(shrink(Picture(pair.painting), SIZE).pixels, np.inf, 0)
    mine, theirs = _differences(picture), _differences(pair.photo)
    return {
        "light": 100 * (mine[0] - theirs[0]),
        "colour": 100 * (mine[1] - theirs[1]),
        "swd rim": _distance(_patches(picture, _RIM, 0), painting),
        "swd inside": _distance(_patches(picture, 2 * _RIM, _RIM), painting),
    }


def _depths(image: np.ndarray) -> np.ndarray:
    """Of each pixel from the nearest border, [H, W]."""
    rows, columns = (np.minimum(np.arange(n), np.arange(n)[::-1]) for n in image.shape[:2])
    return np.minimum(rows[:, None], columns)


def _differences(image: np.ndarray) -> tuple[float, float]:
    """Of brightness and of chroma, between the rim and what is inside."""
    depths = _depths(image)
    rim, inside = image[depths < 2], image[(depths >= 6) & (depths < 14)]
    light, colour = (
        [float(of(pixels).mean()) for pixels in (rim, inside)]
        for of in (lambda p: p.mean(axis=-1), lambda p: p.max(axis=-1) - p.min(axis=-1))
    )
    return light[0] - light[1], colour[0] - colour[1]


def _patches(image: np.ndarray, outer: float, inner: int) -> np.ndarray:
    """Patches that lie between two depths, [N, 75]."""
    windows = np.lib.stride_tricks.sliding_window_view(image, (_PATCH, _PATCH), axis=(0, 1))
    depths = np.lib.stride_tricks.sliding_window_view(_depths(image), (_PATCH, _PATCH))
    inside = (depths.min(axis=(2, 3)) >= inner) & (depths.max(axis=(2, 3)) < outer)
    return windows[inside].reshape(int(inside.sum()), -1)


def _distance(found: np.ndarray, wanted: np.ndarray) -> float:
    """Sliced Wasserstein, over the painting's own spread."""
    directions = np.random.default_rng(0).standard_normal((found.shape[1], 128))
    directions /= np.linalg.norm(directions, axis=0)
    levels = (np.arange(128) + 0.5) / 128
    mine, goal = (np.quantile(patches @ directions, levels, axis=0) for patches in (found, wanted))
    return float(np.mean(np.abs(mine - goal)) / np.mean(goal.std(axis=0)))


def _mean(rows: list, border: str) -> Mapping[str, object]:
    chosen = [row for row in rows if row["border"] == border]
    return {"pair": "mean", "border": border, **means(chosen)}
