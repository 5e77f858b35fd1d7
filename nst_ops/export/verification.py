"""Compares exported networks with Keras, on real photos and in the runtime of their target."""

import functools
import math
import time
from collections.abc import Callable, Sequence
from importlib import resources
from typing import NamedTuple

import numpy as np

from nst_ops.errors import InputError
from nst_ops.images.codec import decode
from nst_ops.network.layout import is_whole
from nst_ops.network.painter import Painter, Passes, paint

SIZES = (256, 512, 1024, 1280)  # px, of the long side; the last is painted in tiles
_MOST_STYLES = 8
_PHOTOS = ("cat.jpg", "coffee.jpg")


class Tolerance(NamedTuple):
    """Says how far a picture may be from that of Keras."""

    error: float = math.inf  # largest, of a pixel's value in [0, 1]
    psnr: float = 0.0  # dB, least

    def __str__(self) -> str:
        return f"{self.psnr:g} dB" if self.psnr else f"an error of {self.error:g}"


FLOAT, INT8 = Tolerance(error=1e-3), Tolerance(psnr=40.0)


class Comparison(NamedTuple):
    """Holds what one size of photo has shown."""

    size: tuple[int, int]  # of the photo
    error: float  # the largest, of any pixel in any style
    psnr: float  # dB, the least of any style; infinite if all are equal
    milliseconds: float  # of one picture, the least
    keras_milliseconds: float

    def within(self, tolerance: Tolerance) -> bool:
        """Tells whether the pictures are as near as they must be; what is not a number is not."""
        return self.error <= tolerance.error and self.psnr >= tolerance.psnr


def sample_photo(name: str) -> bytes:
    """Returns one of the photos that come with the package, as a file."""
    return resources.files("nst_ops.export").joinpath("photos", name).read_bytes()


def sample_photos() -> list[np.ndarray]:
    """Returns a photo for each of `SIZES`, [H, W, 3]. Its sides are no multiples of 4."""
    found = []
    for number, size in enumerate(SIZES):
        name = _PHOTOS[number % len(_PHOTOS)]
        found.append(decode(sample_photo(name), path=name, long_side=size, enlarge=True).pixels)
    return [photo[:-1, :-1] for photo in found]


def compare(passes: Passes, painter: Painter, photo: np.ndarray, styles: int) -> Comparison:
    """Compares a network's file with the network, in every style (of very many, in some) and in the
    blend of all; a picture that is painted in tiles, in the blend.

    Args:
      passes: of the file.
      painter: paints with the network.
      photo: [H, W, 3].
      styles: how many the network has.
    """
    errors, noises, theirs, ours = [], [], [], []
    for style in _weights(styles)[0 if is_whole(photo.shape[:2]) else -1 :]:
        expected, seconds = _timed(painter.paint, photo[None], [style])
        ours.append(seconds)
        picture, seconds = _timed(functools.partial(paint, passes), photo[None], [style])
        theirs.append(seconds)
        difference = picture.astype(np.float64) - expected
        errors.append(np.abs(difference).max())
        noises.append(np.square(difference).mean())
    noise = float(np.max(noises))  # not a number if any is not
    psnr = math.inf if noise == 0.0 else -10.0 * math.log10(noise)
    fastest = [1000.0 * min(seconds) for seconds in (theirs, ours)]
    return Comparison(photo.shape[:2], float(np.max(errors)), psnr, *fastest)


def check(name: str, found: Sequence[Comparison], tolerance: Tolerance) -> None:
    """Checks that a file paints what the network paints.

    Raises:
      InputError: it does not.
    """
    for each in found:
        if not each.within(tolerance):
            raise InputError(
                f"{name} differs from the network at {each.size[0]}x{each.size[1]} px by up to "
                f"{each.error:.2g}, {each.psnr:.1f} dB; allowed is {tolerance}. It was not "
                "written: export another precision or format, or train the network longer"
            )


def _weights(styles: int) -> list[list[float]]:
    chosen = np.unique(np.linspace(0, styles - 1, min(styles, _MOST_STYLES)).round().astype(int))
    single = [np.eye(styles)[number].tolist() for number in chosen]
    return [*single, [1.0 / styles] * styles] if styles > 1 else single


def _timed(
    paint: Callable[[np.ndarray, Sequence[Sequence[float]]], np.ndarray],
    photos: np.ndarray,
    style: Sequence[Sequence[float]],
) -> tuple[np.ndarray, float]:
    started = time.perf_counter()
    picture = paint(photos, style)
    return picture, time.perf_counter() - started
