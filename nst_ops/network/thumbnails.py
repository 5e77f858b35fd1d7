"""The paintings of a network, small: kept in its file, for people who choose a style by eye."""

import io
import zipfile
from collections.abc import Mapping

import numpy as np

from nst_ops.images.codec import Picture, encode, shrink
from nst_ops.network.facts import read_network

SIDE = 160  # px, of the longer side
_FOLDER = "thumbnails"  # in a network's file


def thumbnail(painting: np.ndarray) -> bytes:
    """Returns a painting [H, W, 3], sRGB in [0, 1], as a small JPEG file."""
    return encode(shrink(Picture(painting), SIDE).pixels, "jpeg", quality=80)


def entry_name(number: int) -> str:
    """Returns the name that the thumbnail of style `number` has in a network's file."""
    return f"{_FOLDER}/{number}.jpg"


def read_thumbnails(path: str) -> Mapping[str, bytes]:
    """Returns the paintings of a network, {style: JPEG file}; of older networks, none.

    Args:
      path: of a `.keras` file that `nst train` wrote, or `embedded`.

    Raises:
      InputError: it is not there, is damaged, or is no network of ours.
    """
    facts, data = read_network(path)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        there = set(archive.namelist())
        return {
            name: archive.read(entry_name(number))
            for number, name in enumerate(facts.names)
            if entry_name(number) in there
        }
