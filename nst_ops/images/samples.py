"""The samples of an opened image file as sRGB planes and alpha. Palettes, inks, profiles, depths,
gamma and colour keys are dealt with here.

A plane is [H, W] float32 in [0, 1].
"""

import io
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageCms

from nst_ops.errors import InputError

_DISPLAY_GAMMA = 1 / 2.2  # the gAMA of a PNG that is shown as it is
_GAMMA_THRESHOLD = 0.05  # libpng's: smaller corrections are not made
_WHITE_IS_ZERO = 0  # TIFF's PhotometricInterpretation


class Samples(NamedTuple):
    """Holds an upright `L`, `RGB` or 16-bit grey image, and how its values become sRGB."""

    image: Image.Image
    alpha: np.ndarray | None  # a plane
    white: float = 255.0  # the value that becomes 1
    exponent: float = 1.0  # the power that turns the values into sRGB's
    inverted: bool = False  # whether 0 is white

    def planes(self) -> Iterator[np.ndarray]:
        """Yields red, green and blue one by one, so that a large picture is never whole in float32;
        a grey picture yields one plane only.
        """
        if self.image.mode not in ("L", "RGB"):
            yield self._corrected(np.asarray(self.image, np.float32))
            return
        for band in self.image.getbands():
            yield self._corrected(np.asarray(self.image.getchannel(band), np.float32))

    def _corrected(self, plane: np.ndarray) -> np.ndarray:
        plane = np.divide(plane, self.white, out=plane if plane.flags.writeable else None)
        if self.inverted:
            plane = 1.0 - plane
        return plane if self.exponent == 1.0 else plane**self.exponent


def read_samples(image: Image.Image, transpose: Image.Transpose | None, path: str) -> Samples:
    """Returns the samples of an image that is opened but not yet loaded.

    Args:
      image: as Pillow opened it.
      transpose: what sets it upright; None: it is upright.
      path: the file's name, for errors.

    Raises:
      InputError: it has 32-bit or signed samples, for which nothing says which value is white.
      OSError, SyntaxError, ...: Pillow finds that the file is damaged.
    """
    depth = _depth(image)
    if image.mode in ("I", "F"):
        kind = "float" if image.mode == "F" else "integer"
        sign = "signed " if image.mode == "I" and depth < 32 else ""
        raise InputError(
            f"{sign}{depth}-bit {kind} samples are not supported, as nothing says which value is "
            "white; save as 8 or 16 bits per channel, unsigned",
            path=path,
        )
    image.load()
    profile, exponent = image.info.get("icc_profile"), _exponent(image)
    photometric = _tag(image, ExifTags.Base.PhotometricInterpretation)
    inverted = _is_deep_grey(image) and photometric == _WHITE_IS_ZERO
    key_alpha = _color_key_alpha(image, depth)
    if transpose is not None:
        image = image.transpose(transpose)
        key_alpha = key_alpha and key_alpha.transpose(transpose)
    if key_alpha is None:
        image, alpha = _split_alpha(image)
    else:
        alpha = np.asarray(key_alpha, np.float32) / 255.0
    # Pillow does not stretch 12 bits, as scanners write them, to 16.
    white = 255.0 if not _is_deep_grey(image) else float(2**depth - 1)
    return Samples(_to_srgb(image, profile), alpha, white, exponent, inverted)


def _exponent(image: Image.Image) -> float:
    """Returns the power that turns the values into sRGB's. It is not 1 only for a PNG that has a
    gAMA and neither a profile nor an sRGB chunk.
    """
    gamma = image.info.get("gamma")
    if image.format != "PNG" or not gamma or {"srgb", "icc_profile"} & image.info.keys():
        return 1.0
    exponent = _DISPLAY_GAMMA / gamma
    # A gamma that nobody can have meant is ignored as damage.
    return exponent if _GAMMA_THRESHOLD < abs(exponent - 1.0) and 0.1 < exponent < 10.0 else 1.0


def _color_key_alpha(image: Image.Image, depth: int) -> Image.Image | None:
    """Returns the alpha of a file with one transparent colour, which PNG and GIF may have: an `L`
    image, 0 where that colour is. None if there is none.

    Pillow's own conversion compares the key, of the file's depth, with samples of 8 bits.

    Args:
      depth: bits of the file's samples.
    """
    key = image.info.get("transparency")
    if not (image.mode in ("1", "L", "RGB") or _is_deep_grey(image)):
        return None
    if not isinstance(key, int | tuple):
        return None
    if image.mode == "1":
        image = image.convert("L")
    elif image.mode == "L" and depth < 8:
        key = key * 255 // (2**depth - 1)
    elif isinstance(key, tuple) and depth == 16:
        key = tuple(value >> 8 for value in key)
    same = np.asarray(image) == np.asarray(key)
    return Image.fromarray(np.where(same.all(-1) if same.ndim == 3 else same, 0, 255).astype("u1"))


def _depth(image: Image.Image) -> int:
    """Returns the bits of a file's samples, by a TIFF's own tag or Pillow's name for how they are
    packed, such as `L;4`. Pillow forgets it when the image is loaded.
    """
    bits = _tag(image, ExifTags.Base.BitsPerSample)
    if isinstance(bits, tuple) and isinstance(bits[0], int):
        return bits[0]
    packed = re.search(r";(\d+)", str(image.tile[0].args)) if image.tile else None
    return int(packed[1]) if packed else 16 if _is_deep_grey(image) else 8


def _is_deep_grey(image: Image.Image) -> bool:
    return image.mode.startswith("I;16")


def _tag(image: Image.Image, number: int) -> object:
    return getattr(image, "tag_v2", {}).get(number)


def _split_alpha(image: Image.Image) -> tuple[Image.Image, np.ndarray | None]:
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode in ("LA", "RGBA", "La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode))
        alpha = np.asarray(image.getchannel("A"), np.float32) / 255.0
        return image.convert("L" if image.mode == "LA" else "RGB"), alpha
    return image, None


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Returns an `L`, `RGB` or 16-bit grey image; a profile is applied to the first two."""
    if _is_deep_grey(image):
        return image
    if image.mode == "1":
        image = image.convert("L")
    if profile and image.mode in ("RGB", "CMYK", "L"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(
                image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
            image = converted or image
        except (ImageCms.PyCMSError, OSError):
            pass  # a damaged profile, or another colour space's: viewers ignore those too
    return image if image.mode in ("L", "RGB") else image.convert("RGB")
