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
from nst_ops.images.codec import FORMATS, Picture, check_format, decode, encode, probe, shrink
from nst_ops.images.damage import is_whole

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


def test_transparency_comes_back_as_it_was():
    """A cut-out keeps the colour of its soft edge: no halo of the page it was seen on."""
    levels = np.array([[[255, 0, 0, 255], [255, 0, 0, 128], [10, 200, 30, 3]]], np.uint8)
    picture = decode(saved(Image.fromarray(levels), "PNG"))
    for format in ("png", "tiff"):
        again = encode(picture.pixels, format, alpha=picture.alpha)
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(again))), levels)
    page = np.asarray(Image.open(io.BytesIO(encode(picture.pixels, "jpeg", alpha=picture.alpha))))
    np.testing.assert_allclose(page[0, 1], [255, 127, 127], atol=12)


def test_a_shrunk_cut_out_has_the_colour_of_what_is_seen():
    """A red disc in what is hidden green."""
    y, x = np.mgrid[:128, :128] - 63.5
    alpha = np.clip(50.0 - np.hypot(x, y), 0.0, 1.0)
    levels = np.zeros((128, 128, 4), np.uint8)
    levels[..., 0], levels[..., 1] = 255 * (alpha > 0), 255 * (alpha == 0)
    levels[..., 3] = np.round(255 * alpha)
    whole = saved(Image.fromarray(levels), "PNG")
    for picture in (shrink(decode(whole), 32), decode(whole, long_side=32)):
        edge = (picture.alpha > 0.02) & (picture.alpha < 0.98)
        assert edge.sum() > 20
        np.testing.assert_allclose(picture.pixels[edge], [[1.0, 0.0, 0.0]] * edge.sum(), atol=0.02)
        assert picture.pixels[picture.alpha == 0.0].min() == 1.0


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_decoding_small_is_decoding_and_shrinking(mode, orientation):
    noise = np.random.default_rng(0).integers(0, 256, (61, 90, 4), np.uint8)
    if mode == "I;16":
        image = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(noise).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(image, "PNG", exif=exif)
    for long_side in (33, 200):
        for enlarge in (False, True):
            small = decode(data, long_side=long_side, enlarge=enlarge)
            other = shrink(decode(data), long_side, enlarge=enlarge)
            np.testing.assert_allclose(small.pixels, other.pixels, atol=1e-5)
            if other.alpha is not None:
                np.testing.assert_array_equal(small.alpha, other.alpha)


@pytest.mark.parametrize("shape", [(6, 8, 3), (8, 6, 3)])
def test_a_jpeg_is_not_decoded_much_larger_than_needed(shape, monkeypatch):
    smooth = Picture(np.random.default_rng(0).random(shape, np.float32))
    data = encode(shrink(smooth, 1001, enlarge=True).pixels, "jpeg", quality=95)
    seen = []
    load = ImageFile.ImageFile.load
    monkeypatch.setattr(
        ImageFile.ImageFile, "load", lambda image: (seen.append(image.size), load(image))[1]
    )
    small = decode(data, long_side=100)
    assert 200 <= max(seen[0]) <= 260
    monkeypatch.undo()
    whole = shrink(decode(data), 100)
    assert small.pixels.shape == whole.pixels.shape
    np.testing.assert_allclose(small.pixels, whole.pixels, atol=0.03)


@pytest.mark.parametrize("size", [(1001, 751), (999, 133), (64, 801)])
def test_what_is_decoded_of_a_jpeg_is_known_before(size, monkeypatch):
    """Memory is planned with it."""
    data = saved(Image.new("RGB", size[::-1]), "JPEG")
    seen = []
    load = ImageFile.ImageFile.load
    monkeypatch.setattr(
        ImageFile.ImageFile, "load", lambda image: (seen.append(image.size), load(image))[1]
    )
    for long_side in (32, 62, 125, 250, 500, 2000):
        seen.clear()
        picture = decode(data, long_side=long_side)
        assert probe(data).decoded_pixels(long_side) == np.prod(seen[0])
        assert max(picture.pixels.shape) == min(long_side, max(size))


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
    data = saved(Image.fromarray(grey), "PNG", transparency=int(grey[3, 4]))
    picture = decode(data)
    assert np.argwhere(picture.alpha == 0.0).tolist() == [[3, 4]] and picture.alpha.max() == 1.0
    visible = picture.alpha > 0.0
    np.testing.assert_allclose(picture.pixels[visible, 0], grey[visible] / 65535, atol=1e-4)


@pytest.mark.parametrize("format", FORMATS)
def test_a_cut_file_is_not_whole(format):
    data = encode(PIXELS, format)
    assert is_whole(data) and not is_whole(data[:-30])


@pytest.mark.parametrize("quality", [50, 90, 94, 95, 100])
def test_a_jpeg_of_noise(quality, capfd):
    """More than a byte a pixel."""
    noise = np.random.default_rng(0).random((200, 300, 3), np.float32)
    assert is_whole(encode(noise, "jpeg", quality=quality)) and capfd.readouterr() == ("", "")


@pytest.mark.parametrize("format", FORMATS)
def test_a_damaged_file_is_not_whole(format, capfd):
    """One byte is another, in the middle of the pixels; of JPEG and WebP decoders find few."""
    noise = np.random.default_rng(0).random((90, 120, 1), np.float32) * 0.2
    data = encode(noise + np.linspace(0.1, 0.7, 120 * 3).reshape(1, 120, 3), format, quality=80)
    assert is_whole(data)
    found = []
    for at in range(len(data) // 3, len(data) * 4 // 5, 1 if format == "jpeg" else 41):
        damaged = bytearray(data)
        damaged[at] ^= 0xFF
        found.append(not is_whole(bytes(damaged)))
    assert all(found) if format in ("png", "tiff") else any(found)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("format", FORMATS)
def test_a_hole_is_found(format):
    """A block of zeros, as a disk leaves that lost its power."""
    noise = np.random.default_rng(0).random((150, 200, 3), np.float32) * 0.2 + 0.4
    data = bytearray(encode(noise, format, quality=80))
    data[len(data) // 2 : len(data) // 2 + 4096] = bytes(4096)
    assert is_whole(bytes(data)) is (format == "webp")  # whose decoder sees a picture in it


@pytest.mark.parametrize("part", [b"IHDR", b"IDAT", b"IEND"])
def test_a_png_of_sound_parts_lacks_one(part):
    data = encode(PIXELS)
    at = data.index(part) - 4
    lacking = data[:at] + data[at + 12 + int.from_bytes(data[at : at + 4]) :]
    assert not is_whole(lacking) and not is_whole(data + b"\0") and not is_whole(b"")


def test_alpha_is_whole():
    for format in ("png", "webp", "tiff"):
        assert is_whole(encode(PIXELS, format, alpha=PIXELS[..., 0]))


@pytest.mark.parametrize(("format", "longest"), [("jpeg", 65_500), ("webp", 16_383)])
def test_what_a_format_cannot_hold(format, longest):
    assert probe(encode(np.zeros((1, longest, 3), np.float32), format)).size == (1, longest)
    for size in ((longest + 1, 1), (1, longest + 1)):
        with pytest.raises(InputError, match=f"{size[0]}x{size[1]} px.*{longest} px; use.*png"):
            encode(np.zeros((*size, 3), np.float32), format)
    check_format((longest + 1, 1), "png")


def test_limits_hold_before_decoding():
    with pytest.raises(InputError, match="max_pixels = 100"):
        probe(encode(PIXELS), path="a.png", max_pixels=100)


def test_shrink_keeps_aspect():
    assert shrink(Picture(PIXELS), 16).pixels.shape == (12, 16, 3)
    assert shrink(Picture(PIXELS), 64).pixels.shape == (24, 32, 3)
    assert shrink(Picture(PIXELS), 64, enlarge=True).pixels.shape == (48, 64, 3)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)


def png(*chunks: bytes, size=(16, 16), depth=8, color=0, rows=bytes(17 * 16)) -> bytes:
    """A PNG, black and of 8-bit grey, with more chunks before its pixels."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, color, 0, 0, 0))
    rows = png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + rows + png_chunk(b"IEND", b"")


def test_the_hand_made_png_is_one():
    assert decode(png()).pixels.shape == (16, 16, 3)


@pytest.mark.parametrize(
    ("depth", "row", "key", "levels"),
    [
        (1, "50", "0001", [0, 1, 0, 1]),
        (2, "1b", "0002", [0, 1 / 3, 2 / 3, 1]),
        (4, "0f7f", "000f", [0, 1, 7 / 15, 1]),
        (8, "00ff7fff", "00ff", [0, 1, 127 / 255, 1]),
        (16, "0000ffff7fffffff", "ffff", [0, 1, 32767 / 65535, 1]),
    ],
)
def test_the_transparent_grey_of_a_png_of_any_depth(depth, row, key, levels):
    rows = b"\0" + bytes.fromhex(row)
    picture = decode(
        png(png_chunk(b"tRNS", bytes.fromhex(key)), size=(4, 1), depth=depth, rows=rows)
    )
    hidden = np.array([level == (2 / 3 if depth == 2 else 1) for level in levels])
    np.testing.assert_array_equal(picture.alpha[0], np.where(hidden, 0.0, 1.0))
    expected = np.where(hidden, 1.0, levels)
    np.testing.assert_allclose(picture.pixels[0, :, 0], expected, atol=0.003)


def test_the_transparent_colour_of_a_16_bit_png():
    rows = b"\0" + bytes.fromhex("ffff 8080 0101  0000 8080 0101")
    key = png_chunk(b"tRNS", bytes.fromhex("ffff 8080 0101"))
    picture = decode(png(key, size=(2, 1), depth=16, color=2, rows=rows))
    assert picture.alpha.tolist() == [[0.0, 1.0]]
    np.testing.assert_allclose(picture.pixels[0, 1], [0.0, 128 / 255, 1 / 255], atol=1e-6)


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([], 0.5),
        ([(b"gAMA", 100_000)], 0.5 ** (1 / 2.2)),  # linear light
        ([(b"gAMA", 45_455)], 0.5),  # as shown on a screen
        ([(b"gAMA", 45_000)], 0.5),  # a difference that libpng leaves out too
        ([(b"gAMA", 0)], 0.5),
        ([(b"gAMA", 1)], 0.5),  # damage
        ([(b"sRGB", None), (b"gAMA", 100_000)], 0.5),
    ],
)
def test_gamma_of_a_png(chunks, expected):
    found = [
        png_chunk(kind, b"\0" if value is None else value.to_bytes(4)) for kind, value in chunks
    ]
    data = png(*found, size=(1, 1), depth=16, rows=b"\0\x7f\xff")
    assert decode(data).pixels[0, 0, 0] == pytest.approx(expected, abs=1e-4)


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
