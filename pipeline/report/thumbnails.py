"""Thumbnails of files that may be anything: small JPEGs as data URIs."""

import base64
import io
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import ImageOps

from nst_ops.images.codec import decode, encode, open_image
from pipeline.store import files

_SECONDS = 30.0  # for all of a report: it should not hold up the end of a night
_MOST_BYTES = 200_000_000
_SIDE, _QUALITY = 128, 70
_MOST_PIXELS = 50_000_000  # decoded for a thumbnail; a JPEG counts after its cheap reduction


def thumbnails(paths: Sequence[str]) -> dict[str, str | None]:
    """By path; None for those that there was no time for."""
    deadline = time.monotonic() + _SECONDS
    with ThreadPoolExecutor(4) as pool:  # Pillow decodes, and stores are waited for, without GIL
        made = pool.map(lambda p: thumbnail(p) if time.monotonic() < deadline else None, paths)
        return dict(zip(paths, made, strict=True))


def thumbnail(path: str) -> str:
    """A JPEG of at most 128 px as a data URI, or "" if the file cannot be read as a picture."""
    try:
        data = files.read(path, _MOST_BYTES)
        with open_image(data) as image:
            image.draft(None, (_SIDE, _SIDE))  # JPEG: decodes a fraction
            if image.width * image.height > _MOST_PIXELS:
                return ""
            if image.mode in ("1", "P"):  # which do not resize smoothly
                image = image.convert("RGBA" if image.has_transparency_data else "RGB")
            image.thumbnail((_SIDE, _SIDE))
            small, profile = io.BytesIO(), image.info.get("icc_profile")
            ImageOps.exif_transpose(image).save(small, "TIFF", icc_profile=profile)
        # Profiles, inks, depths and alpha are dealt with on few pixels, by those who know how.
        pixels = decode(small.getvalue()).on_white()
        jpeg = encode(pixels, "jpeg", quality=_QUALITY)
    except Exception:  # whatever is wrong with a file, the report goes on
        return ""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
