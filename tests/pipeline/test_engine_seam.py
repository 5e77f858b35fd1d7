"""An engine of another package goes through all that the program does, unknown to it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.dataset
import pytest

from nst_ops.images.codec import decode, probe

from ..conftest import IMAGES

PHOTOS = ("rocket", "cat", "coffee", "astronaut")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The environment of a machine on which the engine's package is installed."""
    site = tmp_path_factory.mktemp("site")
    shutil.copy(Path(__file__).parent / "recolor.py", site)
    facts = site / "recolor-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: recolor\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[nst.engines]\nrecolor = recolor:RecolorEngine\n")
    return {**os.environ, "PYTHONPATH": str(site)}


@pytest.fixture
def manifest(tmp_path):
    rows = [f"{IMAGES / photo}.jpg,{IMAGES}/pere_tanguy.jpg,,{photo}" for photo in PHOTOS[:2]]
    rows += [f"{IMAGES / photo}.jpg,sepia,0.25,{photo}" for photo in PHOTOS[2:]]
    path = tmp_path / "m.csv"
    path.write_text("\n".join(["content,style,strength,id", *rows, ""]))
    return path


@pytest.fixture
def nst(installed):
    def nst(*words, code=0):
        command = [sys.executable, "-m", "pipeline", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, env=installed)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return nst


def run_words(manifest, folder, *settings):
    words = ["run", "--manifest", manifest, "--output", folder]
    for setting in ("engine=recolor", "size=64", *settings):
        words += ["--set", setting]
    return words


def metadata(folder):
    runs = sorted((folder / "metadata").iterdir())
    return pyarrow.dataset.dataset(runs[-1]).to_table().sort_by("manifest_line").to_pylist()


def test_run_report_and_another_night(nst, manifest, tmp_path):
    folder = tmp_path / "out"
    assert "4 ok" in nst(*run_words(manifest, folder))
    rows = metadata(folder)
    assert [(r["engine"], r["status"], r["passes_done"]) for r in rows] == [
        ("recolor", "ok", 4)
    ] * 4
    assert rows[2]["styles"] == [{"path": "sepia", "weight": 1.0}]
    assert {row["batch_size"] for row in rows} <= {1, 2} and not rows[0]["loss_curve"]
    picture = decode((folder / "images/coffee.png").read_bytes()).pixels
    photo = decode((IMAGES / "coffee.jpg").read_bytes(), long_side=64).pixels
    moved = picture.mean((0, 1)) - photo.mean((0, 1))
    wanted = 0.25 * (np.array([0.55, 0.45, 0.3]) - photo.mean((0, 1)))
    np.testing.assert_allclose(moved, wanted, atol=0.03)
    provenance = probe((folder / "images/coffee.png").read_bytes()).provenance
    assert provenance["spec_hash"] == rows[2]["spec_hash"]
    report = next((folder / "runs").glob("*/report.html")).read_text()
    assert "passes_done" in report
    assert "4 cached" in nst(*run_words(manifest, folder))
    assert "4 ok" in nst(*run_words(manifest, folder, "passes=2"))


def test_a_picture_that_was_begun_goes_on(nst, manifest, installed, tmp_path):
    folder = tmp_path / "out"
    slow = ("passes=400", "pause=0.02", "checkpoint_seconds=0.1", "parallelism=1")
    command = [sys.executable, "-m", "pipeline", *map(str, run_words(manifest, folder, *slow))]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=installed) as process:
        until = time.monotonic() + 60
        while not list(folder.glob("work/checkpoints/*")) and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert process.returncode == 4
    assert "4 ok" in nst(*run_words(manifest, folder, "passes=400", "pause=0"))
    assert any(row["passes_done"] < 400 for row in metadata(folder))


def test_shards_make_one_run(nst, manifest, tmp_path):
    folder = tmp_path / "out"
    for shard in ("1/2", "2/2"):
        nst(*run_words(manifest, folder), "--shard", shard)
    assert "4 ok" in nst("merge", folder)
    nst(*run_words(manifest, folder, "strength=0.1"), "--shard", "2/2")
    assert "strength was" in nst("merge", folder, code=2)


def test_validate_and_stylize(nst, manifest, tmp_path):
    settings = ("--set", "engine=recolor", "--set", "size=64")
    said = nst("validate", "--manifest", manifest, *settings)
    assert "4 rows, 0 problems" in said and "time of one process" in said
    styles = ("night=2", IMAGES / "pere_tanguy.jpg")
    nst("stylize", IMAGES / "cat.jpg", *styles, "-o", tmp_path / "x.jpg", *settings)
    assert probe((tmp_path / "x.jpg").read_bytes()).size == (43, 64)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ("steps=3",),
            "'steps' is a setting of `engine: optimizer` and `engine: hybrid`, and this is "
            "`engine: recolor`",
        ),
        (("strengt=1",), "unknown key 'strengt'; did you mean 'strength'?"),
        (("strength=7",), "strength: 7 is not usable"),
        (("engine=recolour",), "engine: 'recolour' is not usable: there is no such engine; use "),
    ],
)
def test_keys_of_another_engine_are_errors(nst, manifest, tmp_path, settings, message):
    assert message in nst(*run_words(manifest, tmp_path, *settings), code=2)


def test_columns_of_another_engine_are_errors(nst, tmp_path):
    path = tmp_path / "m.csv"
    path.write_text(f"content,style,steps\n{IMAGES}/cat.jpg,sepia,3\n")
    assert "unknown column 'steps'" in nst(*run_words(path, tmp_path / "out"), code=2)
    path.write_text(f"content,style,pause\n{IMAGES}/cat.jpg,sepia,3\n")
    assert "unknown column 'pause'" in nst(*run_words(path, tmp_path / "out"), code=2)


def test_a_style_that_is_neither_name_nor_file_fails_its_row(nst, tmp_path):
    path = tmp_path / "m.csv"
    path.write_text(f"content,style\n{IMAGES}/cat.jpg,sepai\n{IMAGES}/cat.jpg,sepia\n")
    said = nst(*run_words(path, tmp_path / "out"), code=3)
    assert "1 ok" in said and "sepai" in said and "cannot be read" in said


def test_its_settings_are_told(nst):
    """Beside those of the engine that has some of the same names."""
    both = nst("settings", "size")
    assert "`engine: optimizer`" in both and "`engine: recolor`" in both
    strength = nst("settings", "strength")
    assert "range     0 to 1" in strength and "a column `strength`" in strength
    assert "no column" in nst("settings", "pause")
    assert "strength=" in nst("completion", "bash")
