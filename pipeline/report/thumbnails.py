"""Makes thumbnails, small JPEGs as data URIs, of files that may be anything."""

import base64
import io
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import ImageOps

from nst_ops.images.codec import decode, encode, open_image
from pipeline.store import files

_SECONDS = 30.0  # for a whole report, which should not delay the end of a run
_MOST_BYTES = 200_000_000
_SIDE, _QUALITY = 128, 70
_MOST_PIXELS = 50_000_000  # decoded for a thumbnail; a JPEG counts after its cheap reduction


def thumbnails(paths: Sequence[str]) -> dict[str, str | None]:
    """Returns the thumbnail of each path; None for a path that there was no time left for."""
    deadline = time.monotonic() + _SECONDS
    with ThreadPoolExecutor(4) as pool:  # decoding and waiting for stores free the GIL
        made = pool.map(lambda p: thumbnail(p) if time.monotonic() < deadline else None, paths)
        return dict(zip(paths, made, strict=True))


def thumbnail(path: str) -> str:
    """Returns a JPEG of at most 128 px as a data URI; "" if the file is no usable picture."""
    try:
        data = files.read(path, _MOST_BYTES)
        with open_image(data) as image:
            image.draft(None, (_SIDE, _SIDE))  # JPEG: decodes a fraction
            if image.width * image.height > _MOST_PIXELS:
                return ""
            if image.mode in ("1", "P"):  # these modes do not resize smoothly
                image = image.convert("RGBA" if image.has_transparency_data else "RGB")
            image.thumbnail((_SIDE, _SIDE))
            small, profile = io.BytesIO(), image.info.get("icc_profile")
            ImageOps.exif_transpose(image).save(small, "TIFF", icc_profile=profile)
        # `decode` converts color profiles, CMYK, bit depths and alpha, now of few pixels only.
        pixels = decode(small.getvalue()).on_white()
        jpeg = encode(pixels, "jpeg", quality=_QUALITY)
    except Exception:  # whatever is wrong with a file, the report goes on
        return ""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
