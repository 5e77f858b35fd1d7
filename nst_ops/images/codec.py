"""Image files: from bytes to pixels and back, with colour management and provenance.

THE image convention: float32 [H, W, 3] (batches [B, H, W, 3]), sRGB, in [0, 1]. Everything a file
may hold beside that (profiles, orientation, alpha, palettes, 16 bits, inks) is dealt with here, in
`samples` and nowhere else.
"""

import functools
import io
import json
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageFile, UnidentifiedImageError

from nst_ops import __version__
from nst_ops.errors import InputError
from nst_ops.images.samples import read_samples
from nst_ops.images.size import Size, fit

# Extensions of each format; the first is the one that we write.
_NAMES = {
    "png": (".png",),
    "jpeg": (".jpg", ".jpeg"),
    "webp": (".webp",),
    "tiff": (".tif", ".tiff"),
}
FORMATS = {format: names[0] for format, names in _NAMES.items()}
EXTENSIONS = {name: format for format, names in _NAMES.items() for name in names}
READABLE = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
# px; the other formats can hold more than any memory.
LONGEST_SIDE = {"jpeg": 65_500, "webp": 16_383}
MAX_PIXELS = 200_000_000
_STRIP = 256  # rows that are rounded at a time
SOFTWARE = f"nst {__version__}"
# The transposition that sets a picture upright, by its EXIF orientation; from 5 on, height and
# width are swapped.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Picture(NamedTuple):
    """Holds a decoded picture.

    Attributes:
      pixels: [H, W, 3] float32, sRGB in [0, 1], not multiplied by alpha. Where alpha is 0 they are
        white, so that hidden colours do not show.
      alpha: [H, W] float32 in [0, 1], 0 where nothing is seen; None if the picture is opaque.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None

    def on_white(self) -> np.ndarray:
        """Returns the picture as it looks on white, [H, W, 3] float32, sRGB in [0, 1]."""
        if self.alpha is None:
            return self.pixels
        return _blend_with_white(self.pixels, self.alpha[..., None])


class Header(NamedTuple):
    """Holds what a file's header says, before pixels are read."""

    size: Size  # after EXIF orientation
    format: str  # Pillow's name
    provenance: Mapping[str, Any] | None  # as `encode` embedded it; None in others' files

    def decoded_pixels(self, long_side: int) -> int:
        """Returns how many px `decode` decodes for a picture of this long side: all of them; but of
        a JPEG only a half, a quarter or an eighth of each side if that still is at least twice what
        is wanted.
        """
        height, width = self.size
        if self.format not in ("JPEG", "MPO"):
            return height * width
        wanted = fit(self.size, long_side)
        spare = min(height // (2 * wanted[0]), width // (2 * wanted[1]))
        factor = next(factor for factor in (8, 4, 2, 1) if spare >= factor or factor == 1)
        return -(-height // factor) * -(-width // factor)


def probe(data: bytes, *, path: str = "<bytes>", max_pixels: int = MAX_PIXELS) -> Header:
    """Reads only the header of a file.

    Raises:
      InputError: it is no image of a readable format, or has more than `max_pixels`.
    """
    with _opened(data, path, max_pixels) as image:
        tags = _tags(image, data)
        size = _upright_size(image, _orientation(image, tags))
        return Header(size, str(image.format), _provenance(tags))


def decode(
    data: bytes,
    *,
    path: str = "<bytes>",
    max_pixels: int = MAX_PIXELS,
    long_side: int | None = None,
    enlarge: bool = False,
) -> Picture:
    """Decodes PNG, JPEG, WebP, TIFF, BMP or a GIF's first frame.

    EXIF orientation is applied and an ICC profile or a PNG's gamma converted to sRGB. Grey,
    palette, CMYK, 16-bit grey and alpha are understood; 16-bit colour is read at 8 bits, all that
    Pillow gives.

    Args:
      data: the file's bytes.
      path: its name, for errors.
      max_pixels: how many px the file may have; checked on the header, before anything is decoded.
      long_side: of the result, in px, at most, as for `shrink`. It takes a fraction of the memory,
        since colours are resized one by one, and a JPEG is decoded at a reduced size of at least
        twice the result's. None: the picture keeps its size.
      enlarge: as for `shrink`.

    Returns:
      The `Picture`, upright; its `on_white()` is what `stylize` takes.

    Raises:
      InputError: the file is empty, damaged, truncated, too large or of another kind.
    """
    with _opened(data, path, max_pixels) as image:
        try:
            orientation = _orientation(image, _tags(image, data))
            own = _upright_size(image, orientation)
            size = own if long_side is None else fit(own, long_side, enlarge=enlarge)
            height, width = size if orientation < 5 else size[::-1]
            image.draft(None, (2 * width, 2 * height))  # a JPEG is halved until near this size
            samples = read_samples(image, _UPRIGHT.get(orientation), path)
            alpha = samples.alpha
            if alpha is not None and alpha.min() == 1.0:
                alpha = None
            return _resized(samples.planes(), alpha, size)
        except InputError:
            raise
        except (
            Exception
        ) as error:  # decoders raise OSError, SyntaxError, struct.error, zlib.error, ...
            raise InputError(
                f"damaged or truncated {image.format or 'image'} ({type(error).__name__}: "
                f"{error}); "
                "export or download it again",
                path=path,
            ) from error


def encode(
    pixels: np.ndarray,
    format: str = "png",
    *,
    quality: int = 92,
    alpha: np.ndarray | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> bytes:
    """Encodes a picture as an sRGB-tagged file; the same picture gives the same bytes.

    Args:
      pixels: [H, W, 3], sRGB in [0, 1]; values outside are clipped. They are rounded to 8 bits.
      format: `png`, `jpeg`, `webp` or `tiff`.
      quality: 1 to 100, of `jpeg` and `webp`; 100 makes WebP lossless.
      alpha: [H, W] in [0, 1], not multiplied into the pixels, as in `Picture`. JPEG has no alpha
        and gets the picture on white.
      provenance: values that JSON can hold, embedded as EXIF ImageDescription and read back by
        `probe`. EXIF Software names this package in any case.

    Returns:
      The file's bytes.

    Raises:
      InputError: the format is unknown, or cannot hold a picture of this size.
    """
    if format not in FORMATS:
        raise InputError(f"format: {format!r} is unknown; use {', '.join(FORMATS)}")
    check_format(pixels.shape[:2], format)
    if alpha is not None and format == "jpeg":
        pixels, alpha = _blend_with_white(pixels, np.clip(alpha, 0.0, 1.0)[..., None]), None
    levels = _levels(pixels)
    if alpha is not None:
        levels = np.concatenate([levels, _levels(alpha[..., None])], axis=-1)
    exif = Image.Exif()
    exif[ExifTags.Base.Software] = SOFTWARE
    if provenance is not None:
        exif[ExifTags.Base.ImageDescription] = json.dumps(
            provenance, sort_keys=True
        )  # ASCII, as EXIF asks
    options: dict[str, Any] = {
        "png": {"compress_level": 6},
        "jpeg": {"quality": quality, "subsampling": 0 if quality >= 90 else 2},
        "webp": {"quality": quality, "lossless": quality == 100, "method": 4},
        "tiff": {"compression": "tiff_adobe_deflate"},
    }[format]
    image = Image.fromarray(levels)

    def save(**more: Any) -> bytes:
        file = io.BytesIO()
        image.save(file, format, exif=exif, icc_profile=_srgb_profile(), **options, **more)
        return file.getvalue()

    data = save()
    # Pillow optimizes a JPEG only if it fits into a buffer of a byte a pixel, and fails if not.
    if format == "jpeg" and len(data) < max(ImageFile.MAXBLOCK, levels.shape[0] * levels.shape[1]):
        data = save(optimize=True)
    return data


def _levels(values: np.ndarray) -> np.ndarray:
    """Returns values [H, W, C] in [0, 1] as 8 bits, strip by strip, since a large picture is held
    only once.
    """
    levels = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), _STRIP):
        strip = np.clip(values[top : top + _STRIP], 0.0, 1.0)
        levels[top : top + _STRIP] = np.round(strip * 255.0)
    return levels


def check_format(size: Size, format: str) -> None:
    """Checks that the format can hold a picture of this size.

    Raises:
      InputError: it cannot.
    """
    longest = LONGEST_SIDE.get(format)
    if longest is not None and max(size) > longest:
        raise InputError(
            f"{size[0]}x{size[1]} px is more than {format} can hold, sides of {longest} px; use "
            "`format: png` or `tiff`, or a smaller size",
            code="format_limit",
        )


def shrink(picture: Picture, long_side: int, *, enlarge: bool = False) -> Picture:
    """Makes a picture smaller and keeps its aspect, with an antialiased Lanczos filter.

    Args:
      picture: as `decode` gives it.
      long_side: of the result, in px, at most.
      enlarge: whether a smaller picture is enlarged to that.

    Returns:
      A picture of that size; the same object if it has that size already.
    """
    size = fit(picture.pixels.shape[:2], long_side, enlarge=enlarge)
    if size == picture.pixels.shape[:2]:
        return picture
    return _resized(iter(np.moveaxis(picture.pixels, -1, 0)), picture.alpha, size)


def _resized(planes: Iterator[np.ndarray], alpha: np.ndarray | None, size: Size) -> Picture:
    """Resizes a picture plane by plane: red, green and blue, or one grey plane.

    Colours of transparent pixels must not bleed into their neighbours. So colours are blended with
    white, which weighs them by alpha, then resized and unblended.
    """
    resized_alpha = None if alpha is None else _resize_plane(alpha, size)
    resized = []
    for plane in planes:
        if alpha is None or resized_alpha is None:
            resized.append(_resize_plane(plane, size))
        elif plane.shape == size:
            resized.append(np.where(alpha > 0.0, plane, np.float32(1.0)))
        else:
            blended = _resize_plane(_blend_with_white(plane, alpha), size)
            resized.append(_unblend_from_white(blended, resized_alpha))
    pixels = np.empty((*size, 3), np.float32)
    for channel in range(3):
        pixels[..., channel] = resized[channel % len(resized)]
    return Picture(pixels, resized_alpha)


def _resize_plane(plane: np.ndarray, size: Size) -> np.ndarray:
    if plane.shape == size:
        return plane
    image = Image.fromarray(np.ascontiguousarray(plane, np.float32))  # mode F
    height, width = size
    return np.clip(np.asarray(image.resize((width, height), Image.Resampling.LANCZOS)), 0.0, 1.0)


def _blend_with_white(colors: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return 1.0 - alpha * (1.0 - colors)


def _unblend_from_white(blended: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    # Where alpha rounds to 0 in 8 bits, no colour can be recovered.
    visible = alpha > 0.5 / 255.0
    darkness = np.where(visible, (1.0 - blended) / np.where(visible, alpha, 1.0), 0.0)
    return np.clip(1.0 - darkness, 0.0, 1.0).astype(np.float32)


class _LiftedLimit:
    """Lifts Pillow's limit on pixels while any thread reads an image through this module.

    That limit is a global of Pillow, lower than what a user may allow here. It is put back
    afterwards, for others that use Pillow in this process.
    """

    def __init__(self) -> None:
        self._lock, self._readers, self._limit = threading.Lock(), 0, Image.MAX_IMAGE_PIXELS

    def __enter__(self) -> None:
        with self._lock:
            if not self._readers:
                self._limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self._readers += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._readers -= 1
            if not self._readers:
                Image.MAX_IMAGE_PIXELS = self._limit


_lifted_limit = _LiftedLimit()


def open_image(data: bytes, *formats: str) -> Any:
    """Opens an image like `PIL.Image.open`, but with any number of pixels.

    Args:
      data: the file's bytes.
      formats: Pillow's names of the formats to try; all of `READABLE` if there are none.
    """
    with warnings.catch_warnings(), _lifted_limit:
        warnings.simplefilter("ignore")  # about odd metadata: only pixels matter
        return Image.open(io.BytesIO(data), formats=formats or READABLE)


@contextmanager
def _opened(data: bytes, path: str, max_pixels: int) -> Iterator[Image.Image]:
    if not data:
        raise InputError("the file is empty", path=path)
    try:
        image = open_image(data)
    except UnidentifiedImageError as error:
        page = data.lstrip()[:1] == b"<"
        hint = "it looks like a web page" if page else f"it begins with {data[:8]!r}"
        raise InputError(
            f"not a PNG, JPEG, WebP, TIFF, BMP or GIF image ({hint}); convert it to one of these",
            path=path,
        ) from error
    except Exception as error:
        raise InputError(
            f"damaged header ({type(error).__name__}: {error}); export it again", path=path
        ) from error
    with _lifted_limit, image:  # Pillow checks its limit again when it decodes a TIFF
        width, height = image.size
        if not width * height:
            raise InputError("has no pixels; export it again", path=path)
        if width * height > max_pixels:
            raise InputError(
                f"{height}x{width} px is more than max_pixels = {max_pixels}; raise the setting "
                "or shrink the image",
                path=path,
                code="too_large",
            )
        yield image


def _tags(image: Image.Image, data: bytes) -> dict[int, Any]:
    """Returns EXIF's orientation, software and description as far as they can be read, without
    decoding pixels. Damaged EXIF is ignored, since the pixels may be fine.
    """
    try:
        if image.format == "PNG" and (late := _png_chunk(data, b"eXIf")):
            image.info.setdefault("exif", b"Exif\0\0" + late)
        # The PNG plugin's own `getexif` would decode the picture to look for EXIF behind it.
        exif = Image.Image.getexif(image)
        names = (ExifTags.Base.Orientation, ExifTags.Base.Software, ExifTags.Base.ImageDescription)
        return {name: exif[name] for name in names if name in exif}
    except Exception:
        return {}


def _png_chunk(data: bytes, kind: bytes) -> bytes:
    at = 8
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4])
        if data[at + 4 : at + 8] == kind:
            return data[at + 8 : at + 8 + length]
        at += 12 + length
    return b""


def _orientation(image: Image.Image, tags: Mapping[int, Any]) -> int:
    if image.format == "TIFF":
        return 1  # Pillow sets these upright itself
    found = tags.get(ExifTags.Base.Orientation)
    return found if isinstance(found, int) and found in _UPRIGHT else 1


def _upright_size(image: Image.Image, orientation: int) -> Size:
    width, height = image.size
    return (width, height) if orientation >= 5 else (height, width)


@functools.cache
def _srgb_profile() -> bytes:
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = np.array(
        [2000, 1, 1, 0, 0, 0], ">u2"
    ).tobytes()  # its date of creation would be now, and the same picture would give other bytes
    return bytes(profile)


def _provenance(tags: Mapping[int, Any]) -> Mapping[str, Any] | None:
    if not str(tags.get(ExifTags.Base.Software, "")).startswith("nst "):
        return None
    try:
        found = json.loads(tags.get(ExifTags.Base.ImageDescription, ""))
    except (ValueError, TypeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
