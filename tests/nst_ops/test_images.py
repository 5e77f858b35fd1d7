import contextlib
import io
import struct
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile

from nst_ops.errors import InputError
from nst_ops.images import FORMATS, Picture, decode, encode, is_whole, probe, shrink

PIXELS = np.linspace(0, 1, 24 * 32 * 3, dtype=np.float32).reshape(24, 32, 3)
TOLERANCE = {"png": 0.002, "tiff": 0.002, "jpeg": 0.05, "webp": 0.08}


def saved(image: Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


@pytest.mark.parametrize("format", FORMATS)
def test_round_trip(format):
    alpha = np.linspace(0.5, 1, 24 * 32, dtype=np.float32).reshape(24, 32)
    provenance = {"spec_hash": "abc", "content": "Große Reise.jpg"}
    data = encode(PIXELS, format, quality=95, alpha=alpha, provenance=provenance)
    assert data == encode(PIXELS, format, quality=95, alpha=alpha, provenance=provenance)
    header = probe(data)
    assert header.size == (24, 32) and header.provenance == provenance
    assert Image.open(io.BytesIO(data)).info["icc_profile"]
    picture = decode(encode(PIXELS, format, quality=95))
    assert np.abs(picture.pixels - PIXELS).mean() < TOLERANCE[format]
    if format != "jpeg":
        np.testing.assert_allclose(decode(data).alpha, alpha, atol=0.003)


def test_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    data = saved(Image.fromarray((PIXELS * 255).astype(np.uint8)), "PNG", exif=exif)
    assert probe(data).size == (32, 24)
    np.testing.assert_allclose(decode(data).pixels, np.rot90(PIXELS, -1), atol=0.005)


def test_modes():
    grey = np.linspace(0, 65535, 100).astype(np.uint16).reshape(10, 10)
    deep = decode(saved(Image.fromarray(grey), "PNG")).pixels
    np.testing.assert_allclose(deep[..., 1], grey / 65535, atol=1e-4)
    red = Image.new("RGB", (8, 8), (200, 30, 40))
    for mode, format, color, tolerance in (
        ("P", "GIF", (200, 30, 40), 0.1),  # of a palette of 216 colours
        ("CMYK", "JPEG", (200, 30, 40), 0.05),
        ("L", "BMP", (82, 82, 82), 0.005),
    ):
        pixels = decode(saved(red.convert(mode), format)).pixels
        assert pixels.shape == (8, 8, 3)
        np.testing.assert_allclose(pixels[4, 4], np.array(color) / 255, atol=tolerance)


def test_transparent_pixels_show_white():
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    picture = decode(saved(image, "PNG"))
    assert picture.pixels.min() == 1.0 and picture.alpha.max() == 0.0


def test_profile_is_converted():
    """Another profile changes the pixels, sRGB does not."""
    image = Image.new("RGB", (8, 8), (100, 150, 200))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    same = decode(saved(image, "PNG", icc_profile=srgb)).pixels[0, 0]
    np.testing.assert_allclose(same, np.array([100, 150, 200]) / 255, atol=0.005)
    swapped = bytearray(srgb)
    # Exchange the red and blue primaries' tags: the profile of a screen with the wires crossed.
    red, blue = swapped.index(b"rXYZ"), swapped.index(b"bXYZ")
    swapped[red : red + 4], swapped[blue : blue + 4] = b"bXYZ", b"rXYZ"
    moved = decode(saved(image, "PNG", icc_profile=bytes(swapped))).pixels[0, 0]
    np.testing.assert_allclose(moved, np.array([200, 150, 100]) / 255, atol=0.02)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"<!doctype html><html>", "web page"),
        (encode(PIXELS, "png")[:200], "damaged or truncated|damaged header"),
        (encode(np.repeat(PIXELS, 9, 0), "jpeg")[:-500], "damaged or truncated"),
        (b"\x89PNG\r\n\x1a\n", "damaged|not a PNG"),
    ],
)
def test_bad_files(data, message):
    with pytest.raises(InputError, match=f"photo.jpg: .*({message})"):
        decode(data, path="photo.jpg")


def test_16_bit_grey_with_a_transparent_colour():
    grey = np.linspace(0, 65535, 100).astype(np.uint16).reshape(10, 10)
    data = saved(Image.fromarray(grey), "PNG", transparency=0)
    np.testing.assert_allclose(decode(data).pixels[..., 0], grey / 65535, atol=1e-4)


@pytest.mark.parametrize("format", FORMATS)
def test_a_cut_file_is_not_whole(format):
    data = encode(PIXELS, format)
    assert is_whole(data) and not is_whole(data[:-30])


def test_limits_hold_before_decoding():
    with pytest.raises(InputError, match="max_pixels = 100"):
        probe(encode(PIXELS), path="a.png", max_pixels=100)


def test_shrink_keeps_aspect():
    assert shrink(Picture(PIXELS), 16).pixels.shape == (12, 16, 3)
    assert shrink(Picture(PIXELS), 64).pixels.shape == (24, 32, 3)
    assert shrink(Picture(PIXELS), 64, enlarge=True).pixels.shape == (48, 64, 3)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)


def png(*chunks: bytes, size=(16, 16)) -> bytes:
    """A grey 8-bit PNG with more chunks before its pixels."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0))
    rows = png_chunk(b"IDAT", zlib.compress(bytes(17 * 16)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + rows + png_chunk(b"IEND", b"")


def test_the_hand_made_png_is_one():
    assert decode(png()).pixels.shape == (16, 16, 3)


BOMB = zlib.compress(bytes(100_000_000), 9)  # 97 KB


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"iCCP", b"x\0\0" + BOMB),
        png_chunk(b"zTXt", b"x\0\0" + BOMB),
        png_chunk(b"iTXt", b"x\0\1\0\0\0" + BOMB),
    ],
    ids=["iCCP", "zTXt", "iTXt"],
)
def test_bombs_in_metadata_are_not_unpacked(chunk):
    tracemalloc.start()
    try:
        with contextlib.suppress(InputError):
            probe(png(chunk), path="bomb.png")
            decode(png(chunk), path="bomb.png")
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


HEADERS = {
    "png": png(size=(50_000, 50_000)),
    "gif": b"GIF89a" + struct.pack("<HH", 50_000, 50_000) + bytes(3) + b"," + bytes(9) + b"\x08\0;",
    "bmp": b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, *[50_000] * 2, 1, 24, *[0] * 6),
    "jpeg": bytes.fromhex("ffd8 ffc0 0011 08 c350 c350 03 011100 021100 031100 ffda 0000"),
}


@pytest.mark.parametrize("kind", HEADERS)
@pytest.mark.parametrize("read", [probe, decode])
def test_a_huge_header_is_refused_before_decoding(kind, read):
    with pytest.raises(InputError, match="big: 50000x50000 px is more than max_pixels = 200000000"):
        read(HEADERS[kind], path="big")


def test_probing_decodes_no_pixels(monkeypatch):
    """Pillow itself decodes a PNG when it is asked for EXIF that is not there."""
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("decoded"))
    for format in ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF"):
        assert probe(saved(Image.new("RGB", (32, 24)), format)).size == (24, 32)


def test_png_orientation_behind_the_pixels():
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = saved(Image.fromarray((PIXELS * 255).astype(np.uint8)), "PNG")
    late = whole[:-12] + png_chunk(b"eXIf", exif.tobytes()[6:]) + whole[-12:]
    assert probe(late).size == decode(late).pixels.shape[:2] == (32, 24)


@pytest.mark.parametrize("size", [(0, 16), (16, 0), (0, 0)])
def test_pictures_without_pixels(size):
    for read in (probe, decode):
        with pytest.raises(InputError, match="x.png: (has no pixels|not a PNG|damaged)"):
            read(png(size=size), path="x.png")


@pytest.mark.parametrize("description", ["[" * 100_000, b"\xff\xfe", 7, (1, 2), ""])
def test_hostile_provenance_is_none(description):
    exif = Image.Exif()
    exif[0x0131], exif[0x010E] = "nst 0.0", description
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of the tag's kind
        data = saved(Image.new("RGB", (4, 4)), "TIFF", exif=exif)
    assert probe(data).provenance is None


@pytest.mark.parametrize("damage", [b"", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff"])
def test_damaged_exif_does_not_hide_the_pixels(damage):
    data = png(png_chunk(b"eXIf", damage))
    assert probe(data).size == decode(data).pixels.shape[:2] == (16, 16)


def test_wrong_extensions_do_not_matter():
    data = saved(Image.new("RGB", (4, 4)), "PNG")
    assert probe(data, path="photo.jpg").format == "PNG"
    assert decode(data, path="photo.jpg").pixels.shape == (4, 4, 3)
