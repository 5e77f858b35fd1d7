"""The example pairs that every benchmark uses."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from nst_ops.images.codec import decode, shrink

IMAGES = Path(__file__).parents[1] / "examples" / "images"

NAMES = (
    ("rocket", "cafe_terrace_at_night"),
    ("cat", "church_at_auvers"),
    ("coffee", "pere_tanguy"),
    ("astronaut", "langlois_bridge"),
)


class Pair(NamedTuple):
    """A photo [H, W, 3] and a painting [h, w, 3], float32 sRGB in [0, 1]."""

    name: str
    photo: np.ndarray
    painting: np.ndarray


def load(index: int, size: int) -> Pair:
    """One of `NAMES`, photo and painting each at most `size` px long."""
    return pair(*NAMES[index], size)


def pair(photo: str, painting: str, size: int) -> Pair:
    """Any photo with any painting of the examples."""
    return Pair(f"{photo} x {painting}", _pixels(photo, size), _pixels(painting, size))


def _pixels(name: str, size: int) -> np.ndarray:
    path = IMAGES / f"{name}.jpg"
    return shrink(decode(path.read_bytes(), path=path.name), size).pixels
