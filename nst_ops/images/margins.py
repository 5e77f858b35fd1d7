"""Margins of scans: the uniform band of paper, canvas edge or frame around a painting.

Left in, a white margin becomes a white band at the border of every picture made after the scan.
"""

import math
from typing import Literal, NamedTuple

import numpy as np

from nst_ops.errors import InputError
from nst_ops.images.codec import MAX_PIXELS, decode, probe
from nst_ops.images.size import Size

_LARGEST = 0.08  # of a side; a wider uniform band is the painting's own ground
_MOST_CHROMA = 0.25  # of a margin; what has more colour is paint
_LEAST_LEFT = 64  # px; a smaller image is no scan, and its pixels are all needed
_SPREAD = 0.1  # of a band: nine tenths of its pixels are at most so far from its colour
_STEP = 0.2  # between a band's colour and what is behind it, at a tenth of the pixels at least
_EDGE = 4  # lines in which the step must be
_STILL_PAPER = 0.2  # share of a line in the band's colour
_FRAMES = 3  # bands inside each other: paper, then a printed frame, then a white line
_SEARCHED = 1024  # px; long side at which a margin is looked for, whatever size is needed


class Margin(NamedTuple):
    """Holds how wide a margin is at each side, in px."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    def cut(self, image: np.ndarray) -> np.ndarray:
        """Returns an image [h, w, ...] without its margin."""
        height, width = image.shape[:2]
        return image[self.top : height - self.bottom, self.left : width - self.right]

    def inside(self, size: Size) -> Size:
        """Returns the size of what is left of an image."""
        return size[0] - self.top - self.bottom, size[1] - self.left - self.right

    def scaled(self, own: Size, other: Size) -> "Margin":
        """Returns the margin of the same image in another size, rounded up."""
        down, across = other[0] / own[0], other[1] / own[1]
        sides = (self.top * down, self.bottom * down, self.left * across, self.right * across)
        return Margin(*(int(np.ceil(side - 1e-6)) for side in sides))

    def __str__(self) -> str:
        sides = zip(("top", "bottom", "left", "right"), self, strict=True)
        return ", ".join(f"{name} {px} px" for name, px in sides if px) or "none"


def find_margin(image: np.ndarray) -> Margin:
    """Returns the margin of a scan.

    A band counts if it is of one colour along the whole side, up to the noise of paper, and ends
    with a step; and if it is at most a twelfth of the side and has little colour, as a painting may
    itself have a plain ground.

    Args:
      image: [h, w, 3] float32, sRGB in [0, 1].
    """
    height, width = image.shape[:2]
    found = Margin()
    for _ in range(_FRAMES):
        inner = found.cut(image)
        top = _band(inner)
        bottom = _band(inner[::-1])
        middle = inner[top : len(inner) - bottom].swapaxes(0, 1)
        more = Margin(top, bottom, _band(middle), _band(middle[::-1]))
        if not any(more):
            break
        found = Margin(*(sum(sides) for sides in zip(found, more, strict=True)))
    inside = found.inside((height, width))
    most = 1.0 - 2.0 * _LARGEST
    wide = inside[0] < most * height or inside[1] < most * width
    return Margin() if wide or min(inside) < _LEAST_LEFT else found


def _band(lines: np.ndarray) -> int:
    """Returns how many of the first lines [n, length, 3] are a margin."""
    most = int(_LARGEST * len(lines))
    if most < 1:
        return 0
    colour = np.median(lines[0], axis=0)
    distances = np.abs(lines[: most + _EDGE + 1] - colour).max(axis=2)
    plain = np.quantile(distances, 0.9, axis=1) <= _SPREAD
    coloured = colour.max() - colour.min() > _MOST_CHROMA
    if coloured or not plain[0] or plain[: most + 1].all():
        return 0
    count = int(np.argmin(plain))
    beyond = distances[count : count + _EDGE + 1]
    if np.quantile(beyond, 0.9, axis=1).max() < _STEP:
        return 0  # it fades, as a sky does
    # A scan that is a little askew ends in lines of which a part is still paper; and the last line
    # of all is a blend of both sides.
    askew = (beyond <= _SPREAD).mean(axis=1) > _STILL_PAPER
    return min(count + int(np.argmin(askew)) + 1, most)


def fixed_margin(px: int, size: Size) -> Margin:
    """Returns a margin of so many px at each side of an image of this size.

    Raises:
      InputError: it leaves nothing.
    """
    margin = Margin(px, px, px, px)
    if min(margin.inside(size)) < 1:
        raise InputError(
            f"trim: {px} px at each side leave nothing of {size[0]}x{size[1]} px; use less"
        )
    return margin


class Scan(NamedTuple):
    """Holds a painting without the margin of its file."""

    pixels: np.ndarray  # [h, w, 3] float32, sRGB in [0, 1]
    margin: Margin  # in px of the file
    size: Size  # of the file

    def cut(self, mask: np.ndarray) -> np.ndarray:
        """Returns what is left of a mask [h, w] that was drawn on the whole file."""
        height, width = mask.shape
        return self.margin.scaled(self.size, (height, width)).cut(mask)


def decode_scan(
    data: bytes,
    *,
    path: str = "<bytes>",
    max_pixels: int = MAX_PIXELS,
    long_side: int,
    trim: Literal["auto", "off"] | int = "auto",
) -> Scan:
    """Decodes a painting and leaves out its margin.

    Args:
      data: the file's bytes.
      path: its name, for errors.
      max_pixels: how many px the file may have.
      long_side: of what is left, in px, at most.
      trim: `auto`: what `find_margin` finds; `off`: nothing; or px of the file, at each side.

    Raises:
      InputError: as for `decode`; or nothing would be left.
    """
    size = probe(data, path=path, max_pixels=max_pixels).size
    margin = Margin()
    if trim == "auto":
        seen = decode(data, path=path, max_pixels=max_pixels, long_side=_SEARCHED).on_white()
        margin = find_margin(seen).scaled((seen.shape[0], seen.shape[1]), size)
    elif trim != "off":
        try:
            margin = fixed_margin(trim, size)
        except InputError as error:
            raise InputError(str(error), path=path) from error
    whole_side = math.ceil(long_side * max(size) / max(margin.inside(size)))
    whole = decode(data, path=path, max_pixels=max_pixels, long_side=whole_side).on_white()
    here = margin.scaled(size, (whole.shape[0], whole.shape[1]))
    return Scan(np.ascontiguousarray(here.cut(whole)), margin, size)
