"""Margins: what belongs to a scan's paper or frame, and what is the painting's own."""

import numpy as np
import pytest

from nst_ops.errors import InputError
from nst_ops.images.codec import encode
from nst_ops.images.margins import Margin, decode_scan, find_margin

CREAM, BLACK = (0.96, 0.94, 0.88), (0.02, 0.02, 0.03)


def framed(painting, sides, colour, seed=0):
    top, bottom, left, right = sides
    height, width = painting.shape[:2]
    image = np.ones((height + top + bottom, width + left + right, 3), np.float32) * colour
    image += np.random.default_rng(seed).normal(0, 0.012, image.shape)
    image[top : top + height, left : left + width] = painting
    return np.clip(image, 0.0, 1.0).astype(np.float32)


@pytest.mark.parametrize("colour", [CREAM, BLACK])
@pytest.mark.parametrize("sides", [(8, 8, 8, 8), (12, 0, 0, 0), (0, 20, 6, 0), (2, 2, 2, 2)])
def test_paper_and_frames_are_found(load, sides, colour):
    painting = load("pere_tanguy", 400)
    found = find_margin(framed(painting, sides, colour))
    for found_px, px in zip(found, sides, strict=True):
        assert px <= found_px <= (px + 2 if px else 0)


def test_a_frame_within_paper_is_found_whole(load):
    inner = framed(load("church_at_auvers", 400), (5, 5, 5, 5), BLACK)
    found = find_margin(framed(inner, (10, 10, 10, 10), CREAM))
    assert all(15 <= px <= 19 for px in found)


def test_a_scan_that_is_askew_loses_all_its_paper(load):
    scan = framed(load("pere_tanguy", 400), (10, 0, 0, 0), CREAM)
    for column in range(scan.shape[1]):  # down to 14 px at the right
        extra = 4 * column // scan.shape[1]
        scan[10 : 10 + extra, column] = CREAM
    assert 13 <= find_margin(scan).top <= 16


@pytest.mark.parametrize("name", ["pere_tanguy", "church_at_auvers", "cafe_terrace_at_night"])
def test_paintings_without_a_margin_stay_whole(load, name):
    assert not any(find_margin(load(name, 500)))


def test_a_plain_ground_is_the_paintings_own(load):
    painting = load("pere_tanguy", 300)
    wide = framed(painting, (90, 0, 90, 90), (0.8, 0.78, 0.7))
    assert not any(find_margin(wide))
    assert not any(find_margin(framed(painting, (12, 12, 12, 12), (0.1, 0.3, 0.8))))  # paint
    assert not any(find_margin(np.full((300, 200, 3), 0.9, np.float32)))
    fading = np.linspace(0.9, 0.2, 300, dtype=np.float32)[:, None, None]
    assert not any(find_margin(np.broadcast_to(fading, (300, 200, 3))))


def test_a_small_image_is_no_scan(load):
    assert not any(find_margin(framed(load("pere_tanguy", 60), (3, 3, 3, 3), CREAM)))


def test_a_painting_is_decoded_without_its_margin(load):
    painting = load("pere_tanguy", 400)
    data = encode(framed(painting, (10, 10, 10, 10), CREAM), "png")
    scan = decode_scan(data, long_side=200)
    assert max(scan.pixels.shape) in (200, 201) and all(10 <= px <= 12 for px in scan.margin)
    mask = np.zeros(scan.size, np.float32)
    mask[200:] = 1.0
    height, width = scan.cut(mask).shape
    assert height / width == pytest.approx(scan.pixels.shape[0] / scan.pixels.shape[1], rel=0.02)
    assert not any(decode_scan(data, long_side=200, trim="off").margin)
    assert decode_scan(data, long_side=200, trim=25).margin == Margin(25, 25, 25, 25)
    with pytest.raises(InputError, match=r"scan.png: trim: 300 px .* leave nothing"):
        decode_scan(data, path="scan.png", long_side=200, trim=300)
