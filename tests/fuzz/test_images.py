"""Damaged and hostile pictures: whatever the bytes, they are read or refused, and nothing else."""

import io
import os
import random
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from nst_ops.errors import InputError
from nst_ops.images.codec import FORMATS, READABLE, decode, encode, probe
from nst_ops.images.damage import is_whole

_MAX_PIXELS = 10_000


def check_image(data: bytes) -> bool:
    """Fails unless the reader keeps its word on these bytes; whether there was a picture."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert isinstance(is_whole(data), bool)
        try:
            header = probe(data, path="x", max_pixels=_MAX_PIXELS)
            picture = decode(data, path="x", max_pixels=_MAX_PIXELS)
        except InputError as error:
            assert error.path == "x"
            return False
    assert picture.pixels.shape == (*header.size, 3) and picture.pixels.dtype == np.float32
    assert 0.0 <= picture.pixels.min() and picture.pixels.max() <= 1.0
    return True


def seeds() -> list[bytes]:
    """A small file of every kind that is read, and of what a file can hold."""
    grey = np.arange(12 * 16, dtype=np.uint16).reshape(12, 16) * 300
    color = Image.effect_noise((16, 12), 90).convert("RGB")
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a sunset"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    found = [encode(np.asarray(color) / 255.0, format, provenance={"a": 1}) for format in FORMATS]
    images = [color, color.convert("P"), color.convert("L"), color.convert("1")]
    images += [color.convert("RGBA"), color.convert("CMYK"), Image.fromarray(grey)]
    for image in images:
        for format in READABLE:
            file = io.BytesIO()
            try:
                image.save(file, format, exif=exif, icc_profile=profile)
            except (OSError, ValueError):  # not all formats have all modes
                continue
            found.append(file.getvalue())
    return found


def mutate(data: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, runs cut out, repeated or filled: mostly in the first 200 bytes, where
    the headers are.
    """
    damaged = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4, 8])):
        at = rng.randrange(min(len(damaged), rng.choice([40, 200, 1 << 20])) or 1)
        length = rng.choice([1, 1, 2, 4, 16])
        kind = rng.choice(["byte", "fill", "cut", "repeat", "end"])
        if kind == "byte":
            damaged[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == "fill":
            damaged[at : at + length] = rng.choice([b"\0", b"\xff", b"\x7f"]) * length
        elif kind == "cut":
            del damaged[at : at + length]
        elif kind == "repeat":
            damaged[at:at] = damaged[at : at + length] * rng.choice([1, 1, 30])
        else:
            del damaged[max(at, len(damaged) - length * 8) :]
    return bytes(damaged)


def test_the_seeds_are_pictures():
    assert len(seeds()) > 20 and all(check_image(data) for data in seeds())


def test_mutated_pictures():
    rng = random.Random(0)
    read = [check_image(mutate(data, rng)) for data in seeds() for _ in range(30)]
    assert 0.05 < np.mean(read) < 0.95  # both ways were taken


@pytest.mark.slow
def test_many_mutated_pictures():
    rng = random.Random(1)
    read = [check_image(mutate(data, rng)) for data in seeds() for _ in range(2_000)]
    assert 0.05 < np.mean(read) < 0.95


@pytest.mark.slow
def test_guided_by_coverage(tmp_path):
    pytest.importorskip("atheris")
    for number, data in enumerate(seeds()):
        (tmp_path / str(number)).write_bytes(data)
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.fuzz.fuzz_images", "-max_total_time=60", "-seed=1"]
    done = subprocess.run(
        [*command, f"-artifact_prefix={tmp_path}/", "-rss_limit_mb=4000", tmp_path],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done" in done.stderr
