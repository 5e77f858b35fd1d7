"""Checks that image files that we wrote are still whole."""

import warnings
import zlib

from PIL import ExifTags

from nst_ops.images.codec import open_image


def is_whole(data: bytes) -> bool:
    """Tells whether a file that `encode` wrote can be decoded to its end.

    A changed byte is always found in a PNG, which has checksums of all that it holds, and in a
    TIFF's pixels. JPEG and WebP have no checksums. They are decoded, which finds a file that is cut
    short or that the decoder cannot read, such as a JPEG with a hole. Most changes of one byte, and
    a hole in a WebP, only change the picture and are not found; nor are changes of a profile or
    of EXIF in any format but PNG.
    """
    try:
        if data[:4] == b"\x89PNG":
            return _is_whole_png(data)
        if data[:2] == b"\xff\xd8":
            return data.endswith(b"\xff\xd9") and _can_be_decoded(data)
        if data[:4] == b"RIFF":
            whole = len(data) == 8 + int.from_bytes(data[4:8], "little")
            return whole and _can_be_decoded(data)
        return _is_whole_tiff(data)
    except Exception:  # decoders raise many kinds
        return False


def _can_be_decoded(data: bytes) -> bool:
    """Returns True if Pillow can decode the file; else Pillow's error is raised."""
    with warnings.catch_warnings(), open_image(data) as image:
        warnings.simplefilter("ignore")  # about odd metadata: only pixels matter
        image.load()
    return True


def _is_whole_png(data: bytes) -> bool:
    view, kind, at = memoryview(data), b"", 8
    seen = set()
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(view[at : at + 4])
        kind = bytes(view[at + 4 : at + 8])
        if zlib.crc32(view[at + 4 : end]).to_bytes(4) != view[end : end + 4]:
            return False
        seen.add(kind)
        at = end + 4
    return at == len(data) and kind == b"IEND" and seen >= {b"IHDR", b"IDAT"}


def _is_whole_tiff(data: bytes) -> bool:
    """Tells whether a TIFF is whole. Its strips are inflated here, because libtiff prints damage to
    standard error and misses some of it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about tags beyond the end, which are missing below
        tags = open_image(data, "TIFF").tag_v2
    if ExifTags.Base.InterColorProfile not in tags:
        return False
    names = (ExifTags.Base.StripOffsets, ExifTags.Base.StripByteCounts)
    strips = zip(*(tags[name] for name in names), strict=True)
    lengths = [_inflated_length(data[start : start + length]) for start, length in strips]
    row = tags[ExifTags.Base.ImageWidth] * tags[ExifTags.Base.SamplesPerPixel]
    return sum(lengths) == row * tags[ExifTags.Base.ImageLength]


def _inflated_length(data: bytes) -> int:
    """Returns how many bytes zlib data inflates to.

    Raises:
      zlib.error: it is damaged or cut short.
    """
    packed, length = zlib.decompressobj(), 0
    while not packed.eof:
        part = packed.decompress(data, 1 << 20)  # in parts: damaged data may inflate to any size
        data = packed.unconsumed_tail
        if not part:
            raise zlib.error("cut")
        length += len(part)
    return length
