import itertools

import pytest
from PIL import Image

from pipeline.machine import parallelism
from pipeline.planning.estimate import examine, measure_speed
from pipeline.store import file_index

from ..conftest import IMAGES
from .conftest import settings, write_manifest


@pytest.fixture
def manifest(tmp_path):
    (tmp_path / "page.jpg").write_text("<html>")
    Image.new("RGB", (300, 8)).save(tmp_path / "thin.png")
    Image.new("1", (60_000, 40_000)).save(tmp_path / "large.png")
    photos = ["rocket", "cat", "rocket"]
    photos += [tmp_path / name for name in ("gone.jpg", "page.jpg", "thin.png", "large.png")]
    sizes = ["", "", "32", "", "", "", ""]
    return write_manifest(tmp_path / "manifest.csv", photos, id="abcdefg", size=sizes)


def test_problems_by_kind_and_what_is_left(manifest):
    found = examine(str(manifest), settings(style_layers=["block5_conv1"]))
    assert {kind: [line for line, _ in rows] for kind, rows in found.problems.items()} == {
        "photos that cannot be read": [5],
        "photos that are no images": [6],
        "photos too small": [7],
        "photos too large": [8],
    }
    text = "\n".join([*found.lines(), found.time(speed=1.0)])
    assert "7 rows, 4 problems, 1 distinct shapes, 2 batches" in text
    assert "memory of a process: about" in text
    # The one of another size does not share a batch; but listed scales go before `size`.
    assert found.work == 3 * (48 * 32 * 3 + 64 * 43 * 2)
    assert "time of one process: about 0:00:00" in text


def test_no_more_than_headers_is_read(manifest, monkeypatch):
    read, amounts = file_index.files.read, []

    def spy(path, *arguments, **options):
        data = read(path, *arguments, **options)
        if path.endswith(".jpg"):
            amounts.append(len(data))
        return data

    monkeypatch.setattr(file_index.files, "read", spy)
    monkeypatch.setattr(file_index, "_HEADER_BYTES", 20_000)
    photos = write_manifest(manifest, ["rocket", "cat", "coffee", "astronaut"])
    assert not examine(str(photos), settings()).problems
    least = min(path.stat().st_size for path in IMAGES.glob("*.jpg"))
    assert max(amounts) == 20_000 < least and len(amounts) == 5


def test_processes_share_the_memory(tmp_path, monkeypatch):
    photos = write_manifest(tmp_path / "two.csv", ["rocket", "cat"])
    monkeypatch.setattr(parallelism, "default_memory_limit", lambda: 1_600_000_000)
    assert not examine(str(photos), settings(parallelism=1)).problems
    ((kind, problems),) = examine(str(photos), settings(parallelism=2)).problems.items()
    assert kind == "pictures too large for memory_limit"
    assert [line for line, _ in problems] == [2, 3]


def test_speed_is_measured(monkeypatch):
    """256 px x 4 steps, as long as a clock says that they take."""
    from nst_ops.engines import optimizer_session

    clock = itertools.count(10.0, 2.0)
    monkeypatch.setattr(optimizer_session.time, "perf_counter", lambda: next(clock))
    steps = []
    real = optimizer_session.run

    def run(*arguments):
        with monkeypatch.context() as apart:  # the clock is not theirs
            apart.setattr(optimizer_session.time, "perf_counter", lambda: 0.0)
            result = real(*arguments)
        steps.append(len(result.reports[0].curve))
        return result

    monkeypatch.setattr(optimizer_session, "run", run)
    assert measure_speed(settings()) == pytest.approx(256 * 256 * 4 / 2.0 / 1e6)
    assert steps == [4, 4]  # the first compiles
