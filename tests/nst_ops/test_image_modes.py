"""Images of all modes: transparency in its many forms, orientations, foreign metadata."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from nst_ops.errors import InputError
from nst_ops.images.codec import Picture, decode, encode, probe, shrink

COLORS = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)


def saved(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF", "JPEG", "WEBP"])
def test_all_eight_orientations(format, orientation):
    image = Image.fromarray(COLORS)
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = {
        1: COLORS,
        2: COLORS[:, ::-1],
        3: COLORS[::-1, ::-1],
        4: COLORS[::-1],
        5: COLORS.transpose(1, 0, 2),
        6: np.rot90(COLORS, -1),
        7: COLORS.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(COLORS),
    }[orientation]
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}
    data = saved(image, format, exif=exif, **options.get(format, {}))
    difference = np.abs(decode(data).pixels - upright / 255.0)
    assert difference.mean() < (0.02 if format == "JPEG" else 1e-6)
    assert probe(data).size == upright.shape[:2]


def test_palette_with_a_transparent_entry():
    image = Image.new("P", (4, 4), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 2), 1)
    picture = decode(saved(image, transparency=0))
    assert picture.alpha[2, 1] == 1.0 and picture.alpha.sum() == 1.0
    np.testing.assert_allclose(picture.pixels[2, 1], [0, 0, 1])
    np.testing.assert_allclose(picture.pixels[0, 0], [1, 1, 1])


def test_palette_without_transparency_is_opaque():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    picture = decode(saved(image))
    assert picture.alpha is None
    np.testing.assert_allclose(picture.pixels[0, 0], [0, 0, 1])


def test_half_transparent_is_half_white():
    for mode, color in (("RGBA", (0, 100, 0, 51)), ("LA", (100, 51))):
        picture = decode(saved(Image.new(mode, (4, 4), color)))
        np.testing.assert_allclose(picture.alpha, 0.2, atol=1e-3)
        assert picture.pixels[0, 0, 1] == pytest.approx(100 / 255, abs=1e-3)
        assert picture.on_white()[0, 0, 1] == pytest.approx(0.2 * 100 / 255 + 0.8, abs=1e-3)


def test_full_alpha_is_none():
    assert decode(saved(Image.new("RGBA", (4, 4), (1, 2, 3, 255)))).alpha is None


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bit_grey_keeps_its_levels(format):
    grey = np.array([[0, 1000, 32768, 65535]], np.uint16)
    picture = decode(saved(Image.fromarray(grey), format))
    np.testing.assert_allclose(picture.pixels[0, :, 0], grey[0] / 65535.0, atol=1e-6)
    assert picture.pixels.shape == (1, 4, 3)


def test_black_and_white():
    image = Image.new("1", (3, 2), 0)
    image.putpixel((2, 1), 1)
    pixels = decode(saved(image)).pixels
    assert pixels.sum() == 3.0 and pixels[1, 2, 0] == 1.0


def test_cmyk():
    data = saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF")
    np.testing.assert_allclose(decode(data).pixels[0, 0], [1, 0, 0], atol=0.02)


def test_profiles_that_cannot_apply_are_ignored():
    image = Image.new("RGB", (4, 4), (128, 128, 128))
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for profile in (b"not a profile", lab):
        np.testing.assert_allclose(
            decode(saved(image, icc_profile=profile)).pixels[0, 0], 128 / 255, atol=1e-3
        )


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (np.float32, "32-bit float"),
        (np.int32, "32-bit integer"),
        (np.uint32, "32-bit integer"),
        (np.int16, "signed 16-bit integer"),
    ],
)
def test_samples_without_a_known_white_are_refused(kind, message):
    depth = 8 * np.dtype(kind).itemsize
    sign = {"u": 1, "i": 2, "f": 3}[np.dtype(kind).kind]
    data = tiff(np.zeros((4, 4), kind), {258: depth, 339: sign})
    with pytest.raises(InputError, match=f"a.tif: {message} samples are not supported"):
        decode(data, path="a.tif")


def test_sixteen_bit_grey_whose_zero_is_white():
    grey = np.array([[0, 1000, 65535]], np.uint16)
    pixels = decode(tiff(grey, {258: 16, 262: 0})).pixels
    np.testing.assert_allclose(pixels[0, :, 0], 1.0 - grey[0] / 65535.0, atol=1e-6)


def test_twelve_bits_are_not_sixteen():
    """Four samples in six bytes, as scanners write them."""
    packed = np.frombuffer(bytes.fromhex("fff000 7ff800"), np.uint8)[None]
    data = tiff(packed, {256: 4, 258: 12})
    found = decode(data).pixels[0, :, 0]
    np.testing.assert_allclose(found, np.array([4095, 0, 2047, 2048]) / 4095.0, atol=1e-6)


def tiff(samples, tags):
    """A grey TIFF of one strip, with these tags beside those that it needs."""
    height, width = samples.shape
    tags = {256: width, 257: height, 259: 1, 262: 1, 273: 8, 277: 1, 278: height} | tags
    tags[279] = samples.nbytes
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + samples.nbytes) + samples.tobytes() + directory


def test_provenance_is_only_ours():
    assert probe(encode(np.zeros((4, 4, 3)), provenance={"a": [1, 2]})).provenance == {"a": [1, 2]}
    assert probe(encode(np.zeros((4, 4, 3)))).provenance is None
    exif = Image.Exif()
    exif[0x0131], exif[0x010E] = "Camera 1.0", '{"a": 1}'
    assert probe(saved(Image.fromarray(COLORS), exif=exif)).provenance is None
    exif[0x0131], exif[0x010E] = "nst 0.0", "a sunset"
    assert probe(saved(Image.fromarray(COLORS), exif=exif)).provenance is None


def test_header_of_a_file():
    header = probe(saved(Image.fromarray(COLORS), "BMP"))
    assert (header.size, header.format, header.provenance) == ((12, 20), "BMP", None)


def test_lossless_formats_keep_every_level():
    for format, quality in (("png", 92), ("tiff", 92), ("webp", 100)):
        pixels = decode(encode(COLORS / 255.0, format, quality=quality)).pixels
        np.testing.assert_array_equal(np.round(pixels * 255), COLORS)


def test_quality_matters():
    sizes = [len(encode(COLORS / 255.0, "jpeg", quality=q)) for q in (30, 95)]
    assert sizes[0] < sizes[1]


def test_values_out_of_range_are_clipped():
    pixels = decode(encode(np.array([[[-1.0, 0.5, 2.0]]]))).pixels
    np.testing.assert_allclose(pixels[0, 0], [0.0, 0.5, 1.0], atol=0.003)


def test_unknown_format():
    with pytest.raises(InputError, match="'bmp' is unknown; use png"):
        encode(np.zeros((4, 4, 3)), "bmp")


@pytest.mark.parametrize("format", ["png", "jpeg", "webp", "tiff"])
def test_truncation_is_noticed(format):
    noise = np.random.default_rng(1).random((64, 64, 3))
    data = encode(noise, format)
    # A TIFF's directory is at its end: without it Pillow knows the file no more.
    message = "not a PNG" if format == "tiff" else "damaged"
    for part in (0.3, 0.7):
        with pytest.raises(InputError, match=f"cut.img: {message}"):
            decode(data[: int(part * len(data))], path="cut.img")


def test_max_pixels_is_exact():
    data = encode(np.zeros((10, 20, 3)))
    assert decode(data, max_pixels=200).pixels.shape == (10, 20, 3)
    with pytest.raises(InputError, match="10x20 px is more than max_pixels = 199"):
        decode(data, max_pixels=199)


def test_only_max_pixels_limits():
    """Pillow's own limit is 179 million, which a scan of a painting may well have."""
    data = saved(Image.new("1", (13_400, 13_400)), "TIFF", compression="group4")
    with pytest.raises(InputError, match="max_pixels = 179000000"):
        probe(data, max_pixels=179_000_000)
    assert probe(data).size == (13_400, 13_400)
    assert decode(data, long_side=64).pixels.shape == (64, 64, 3)  # Pillow looks twice at a TIFF
    assert Image.MAX_IMAGE_PIXELS is not None  # for whoever else uses Pillow
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(data))


def test_shrink_is_antialiased_and_takes_alpha_along():
    board = np.indices((64, 64)).sum(0) % 2
    picture = Picture(
        np.repeat(board[..., None], 3, -1).astype(np.float32), np.full((64, 64), 0.3, np.float32)
    )
    small = shrink(picture, 16)
    assert small.alpha.shape == (16, 16)
    np.testing.assert_allclose(small.pixels[4:-4, 4:-4], 0.5, atol=0.05)


def test_shrink_against_pillow():
    image = Image.fromarray(COLORS)
    expected = np.asarray(ImageOps.scale(image, 0.5, Image.Resampling.LANCZOS)) / 255.0
    np.testing.assert_allclose(shrink(decode(saved(image)), 10).pixels, expected, atol=0.005)
