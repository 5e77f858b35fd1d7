"""`nst sweep` as a user runs it, and what it refuses."""

import json
import subprocess
import sys

import pytest
from PIL import Image

from nst_ops.images.codec import probe
from pipeline.cli.sweep import variants
from pipeline.config.run_config import RunConfig
from pipeline.errors import ConfigError

from ..conftest import IMAGES

SMALL = ("--set", "size=64", "--set", "steps=2", "--set", "precision=float32")


def sweep(folder, *vary, styles=("church_at_auvers.jpg",), settings=SMALL):
    words = ["sweep", IMAGES / "cat.jpg", *(IMAGES / style for style in styles), *settings]
    for axis in vary:
        words += ["--vary", axis]
    command = [sys.executable, "-m", "pipeline", *map(str, words), "-o", str(folder)]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_sheet_of_all_combinations_that_can_be_widened(tmp_path):
    done = sweep(tmp_path, "content_weight=1e3,1e4", "octaves=[1,1],[1]")
    assert done.returncode == 0, done.stderr
    assert "4 ok" in done.stderr and str(tmp_path / "sheet.png") in done.stderr
    names = sorted(path.name for path in tmp_path.glob("images/*"))
    assert len(names) == 4 and "content_weight=1000 octaves=[1].png" in names
    sheet = Image.open(tmp_path / "sheet.png")
    assert sheet.width == 2 * (64 + 6) + 6 and sheet.height > 2 * 43  # a row has the last's values
    page = (tmp_path / "sheet.html").read_text()
    assert page.count("<figure>") == 4 and "cat.jpg x church_at_auvers.jpg" in page
    done = sweep(tmp_path, "content_weight=1e3,1e4,1e5", "octaves=[1,1],[1]")
    assert "2 ok, 4 cached" in done.stderr


def test_pictures_are_judged_where_they_are_large_enough(tmp_path):
    done = sweep(
        tmp_path,
        "tv_weight=10,1000",
        settings=(
            "--set",
            "size=192",
            "--set",
            "steps=1",
            "--set",
            "scales=[{size: 192, steps: 2}]",
        ),
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    hashes = {
        probe(path.read_bytes()).provenance["spec_hash"] for path in tmp_path.glob("images/*")
    }
    assert figures.keys() == hashes and len(hashes) == 2
    assert all(0.0 < each["swd"] < 1.0 and 0.0 < each["patch4"] < 1.0 for each in figures.values())
    assert "patch3" in (tmp_path / "sheet.html").read_text()


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        (["stepps=1,2"], "'stepps' cannot vary; what can is size"),
        (["weights=a.npz,b.npz"], "'weights' cannot vary"),
        (["steps"], "expected KEY=VALUE,VALUE"),
        (["steps=1,2", "steps=3"], "steps stands twice"),
        (["octaves=[1,1"], "--vary octaves=\\[1,1: "),
        (["seed=" + ",".join(map(str, range(1001)))], "1001 pictures; at most 1000"),
    ],
)
def test_what_cannot_vary_is_told(vary, message):
    with pytest.raises(ConfigError, match=message):
        variants(vary, RunConfig())


def test_nothing_to_vary_is_one_picture():
    (one,) = variants([], RunConfig())
    assert one.name == "defaults" and one.settings == {}


def test_values_out_of_range_fail_their_picture_alone(tmp_path):
    done = sweep(tmp_path, "steps=0,2")
    assert done.returncode == 3 and "steps: 0 is not usable" in done.stderr
    assert len(list(tmp_path.glob("images/*"))) == 1 and (tmp_path / "sheet.png").exists()
