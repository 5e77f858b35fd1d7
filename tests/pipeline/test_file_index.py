"""Files that have not changed are not read again, and none is trusted that has."""

import io
import os
import random
import shutil

import numpy as np
import pyarrow.dataset
import pytest
from PIL import ExifTags, Image

from nst_ops.images.codec import decode, probe
from pipeline.store import file_index, files

from ..conftest import IMAGES
from .conftest import settings, write_manifest

PLAIN = {"batch_size": 1}


@pytest.fixture
def manifest(tmp_path):
    for name in ("rocket", "cat"):
        shutil.copy(IMAGES / f"{name}.jpg", tmp_path)
    photos = [tmp_path / "rocket.jpg", tmp_path / "cat.jpg"]
    return write_manifest(tmp_path / "m.csv", photos, id=["r", "c"])


@pytest.fixture
def read(monkeypatch):
    """Names of the images that were read."""
    monkeypatch.setattr(file_index, "_SETTLED", -1.0)  # the copies are a moment old
    names, real = [], files.read

    def spy(path, *arguments, **options):
        if path.endswith((".jpg", ".png")):
            names.append(os.path.basename(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(files, "read", spy)
    monkeypatch.setattr("pipeline.report.page.thumbnails", lambda paths: {})
    return names


def test_a_night_over_finished_work_reads_no_image(run_manifest, manifest, tmp_path, read):
    assert run_manifest(manifest, settings(**PLAIN))["ok"] == 2
    read.clear()
    assert run_manifest(manifest, settings(**PLAIN))["cached"] == 2
    assert read == []
    assert run_manifest(manifest, settings(**PLAIN), check_full=True)["cached"] == 2
    assert {"rocket.jpg", "cat.jpg", "r.png", "c.png"} <= set(read)


def test_what_was_changed_is_noticed(run_manifest, manifest, tmp_path, read):
    run_manifest(manifest, settings(**PLAIN))
    # In place, of the same length, and with the time that it had.
    picture = tmp_path / "out/images/r.png"
    before, data = os.stat(picture), bytearray(picture.read_bytes())
    data[len(data) // 2] ^= 1
    picture.write_bytes(data)
    os.utime(picture, ns=(before.st_atime_ns, before.st_mtime_ns))
    shutil.copy(IMAGES / "coffee.jpg", tmp_path / "cat.jpg")
    read.clear()
    assert run_manifest(manifest, settings(**PLAIN))["ok"] == 2
    assert "rocket.jpg" in read  # for its new picture
    decode(picture.read_bytes())


def test_a_file_that_was_just_written_is_not_yet_trusted(manifest, tmp_path):
    index = file_index.FileIndex(str(tmp_path), "run")
    index.facts(str(tmp_path / "cat.jpg"))
    index.flush()
    assert not list((tmp_path / "work").glob("*"))


def test_a_damaged_index_costs_time_and_no_more(run_manifest, manifest, tmp_path, read):
    run_manifest(manifest, settings(**PLAIN))
    path = tmp_path / "out/work/files.sqlite"
    whole = path.read_bytes()
    chance = random.Random(0)
    for _ in range(8):
        data = bytearray(whole)
        for _ in range(20):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        assert run_manifest(manifest, settings(**PLAIN))["cached"] == 2
    path.write_bytes(b"")
    assert run_manifest(manifest, settings(**PLAIN))["cached"] == 2
    path.unlink()
    assert run_manifest(manifest, settings(**PLAIN))["cached"] == 2


def test_metadata_is_read_with_the_partitions_of_hive(run_manifest, manifest, tmp_path):
    first, second = (run_manifest(manifest, settings(**PLAIN))["run_id"] for _ in range(2))
    data = pyarrow.dataset.dataset(tmp_path / "out/metadata", partitioning="hive")
    rows = data.to_table(columns=["run_id", "status", "output"]).to_pylist()
    assert {(row["run_id"], row["status"]) for row in rows} == {(first, "ok"), (second, "cached")}
    assert len(rows) == 4


def test_a_photo_is_turned_by_exif_behind_its_pixels(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG", exif=exif)
    data = file.getvalue()
    begin = data.index(b"eXIf") - 4
    end = begin + 12 + int.from_bytes(data[begin : begin + 4])
    last = data.index(b"IEND") - 4
    path = tmp_path / "late.png"
    path.write_bytes(data[:begin] + data[end:last] + data[begin:end] + data[last:])
    assert len(data) > 2**18 and probe(path.read_bytes()).size == (400, 300)
    assert file_index.FileIndex().header(str(path)).size == (400, 300)
