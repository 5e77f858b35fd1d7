"""A picture that was interrupted is taken up where it was, and ends as if it never had been."""

import re
import threading
import warnings

import numpy as np
import pytest

from nst_ops.engines.memory import predict_bytes
from nst_ops.images.codec import decode
from pipeline.machine import parallelism
from pipeline.store.progress import clear
from pipeline.store.stop_requests import request_stop
from pipeline.workers import stylizer as stylizer_module
from pipeline.workers.stylizer import Stylizer

from .conftest import plans, settings, stylizer, write_manifest

TIMES = ("seconds_total", "seconds_optimize", "started_at", "finished_at", "peak_memory_bytes")


class Killed(BaseException):
    """Stands for a process that ends on the spot."""


def timeless(rows):
    return [
        {
            **{name: value for name, value in row.items() if name not in TIMES},
            "scales": [scale | {"seconds": 0.0} for scale in row["scales"]],
        }
        for row in rows
    ]


def stylize(folder, batch, after=None, end=None):
    """Rows of a batch; after so many steps, `end` is called."""
    seen = []

    def show(step):
        seen.append(step)
        if len(seen) == after:
            end()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = list(stylizer(folder, batch, show=show).stylize_batches([batch]))
    return rows, [scale_and_step(step) for step in seen]


def scale_and_step(step):
    found = re.match(r"scale (\d+)/.*, step (\d+)/", step.text)
    return int(found[1]) - 1, int(found[2])


def kill():
    raise Killed


@pytest.fixture
def no_caches(monkeypatch):
    """All of `memory_limit` is for the picture."""
    monkeypatch.setattr(parallelism, "_CACHE", 0)


@pytest.fixture
def one(tmp_path):
    manifest = write_manifest(tmp_path / "one.csv", ["rocket"])
    return plans(manifest, settings(batch_size=1, checkpoint_seconds=0))


@pytest.mark.parametrize("after", [1, 2, 4])  # within a scale, and within the next
@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_same_bytes_and_rows_as_uninterrupted(one, tmp_path, after, how):
    whole, all_steps = stylize(tmp_path / "whole", one)
    assert all_steps == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2)]
    folder = tmp_path / "out"
    if how == "killed":
        with pytest.raises(Killed):
            stylize(folder, one, after, kill)
    else:
        rows, _ = stylize(
            folder, one, after, lambda: request_stop(str(folder), "run", "signal", "now")
        )
        assert [(row["status"], row["error_message"]) for row in rows] == [("deferred", "now")]
        clear(str(folder), "run")
    assert not list(folder.glob("images/*"))

    rows, steps = stylize(folder, one)
    # Who is killed during a step has to make it again.
    assert steps == all_steps[after if how == "stopped" else after - 1 :]
    assert timeless(rows) == timeless(whole) and rows[0]["status"] == "ok"
    (mine,), (theirs,) = (list(f.glob("images/*")) for f in (folder, tmp_path / "whole"))
    assert mine.read_bytes() == theirs.read_bytes()
    assert not list(folder.glob("work/checkpoints/*"))


def test_between_checkpoints_only_ends_of_scales_are_kept(tmp_path):
    manifest = write_manifest(tmp_path / "one.csv", ["rocket"])
    one = plans(manifest, settings(checkpoint_seconds=3600))
    with pytest.raises(Killed):
        stylize(tmp_path, one, 5, kill)
    _, steps = stylize(tmp_path, one)
    assert steps == [(1, 1), (1, 2)]


def test_no_checkpoints(tmp_path):
    manifest = write_manifest(tmp_path / "one.csv", ["rocket"])
    one = plans(manifest, settings(checkpoint_seconds=None))
    with pytest.raises(Killed):
        stylize(tmp_path, one, 5, kill)
    assert not (tmp_path / "work").exists()


def test_rest_of_a_batch_goes_on_alone(tmp_path):
    """Killed while its pictures were being written."""
    manifest = write_manifest(tmp_path / "two.csv", ["rocket", "cat"], id="ab")
    batch = plans(manifest, settings(checkpoint_seconds=0))
    with pytest.raises(Killed):
        stylize(tmp_path, batch, 4, kill)
    (tmp_path / "images").mkdir()
    done, _ = stylize(tmp_path / "other", batch[:1])
    picture = tmp_path / "other/images" / done[0]["output"]
    (tmp_path / "images" / picture.name).write_bytes(picture.read_bytes())

    rows, steps = stylize(tmp_path, batch)
    assert [row["status"] for row in rows] == ["cached", "ok"]
    assert steps == [(1, 1), (1, 2)]


def test_every_picture_gets_its_own_state_in_whatever_order(tmp_path):
    """Lines of a manifest may be moved between a kill and the next run."""
    names = ["rocket", "cat", "rocket"]
    config = settings(checkpoint_seconds=0)
    batch = plans(write_manifest(tmp_path / "a.csv", names, id="abc"), config)
    whole, _ = stylize(tmp_path / "whole", batch)
    with pytest.raises(Killed):
        stylize(tmp_path / "out", batch, 4, kill)
    stylize(tmp_path / "out", [batch[1], batch[0], batch[2]])
    for row in whole:
        mine, other = (
            decode((tmp_path / run / "images" / row["output"]).read_bytes()).pixels
            for run in ("out", "whole")
        )
        np.testing.assert_allclose(mine, other, atol=0.05)


@pytest.mark.parametrize("fault", ["damaged", "other settings"])
def test_unusable_checkpoints_are_ignored_with_a_warning(one, tmp_path, fault):
    with pytest.raises(Killed):
        stylize(tmp_path, one, 4, kill)
    (path,) = tmp_path.glob("work/checkpoints/*.npz")
    if fault == "damaged":
        path.write_bytes(path.read_bytes()[:1000])
    else:
        one = plans(tmp_path / "one.csv", settings(tv_weight=50, checkpoint_seconds=0))
    with pytest.warns(UserWarning, match=f"ignored: .*{fault}.*begin anew"):
        rows = list(stylizer(tmp_path, one).stylize_batches([one]))
    assert rows[0]["status"] == "ok" and len(rows[0]["loss_curve"]) == 5


@pytest.mark.parametrize("setting", ["memory_limit", "tiling"])
def test_less_memory_is_taken_seriously(tmp_path, setting, no_caches):
    """The picture is the same with it, but a run that died for its memory would die again."""
    manifest = write_manifest(tmp_path / "one.csv", ["rocket"])
    large = {"scales": [{"size": 48, "steps": 3}, {"size": 96, "steps": 2}]}
    large["checkpoint_seconds"] = 0
    one = plans(manifest, settings(**large))
    with pytest.raises(Killed):
        stylize(tmp_path, one, 5, kill)
    whole = predict_bytes(one[0].size, settings(**large).engine.settings, sources=one[0].sources)
    change = {"memory_limit": whole - 1, "tiling": 64}[setting]
    one = plans(manifest, settings(**large, **{setting: change}))
    with pytest.warns(UserWarning, match=f"ignored: .*{setting}.*begin anew"):
        rows = list(stylizer(tmp_path, one).stylize_batches([one]))
    assert rows[0]["status"] == "ok" and len(rows[0]["loss_curve"]) == 5
    assert rows[0]["tile"] == (64 if setting == "tiling" else None)


def test_neighbours_of_a_failing_picture_are_made_once(tmp_path, monkeypatch):
    """A loss that is no number costs its own picture, after a second try, and no other."""
    from nst_ops.engines import optimizer_session

    manifest = write_manifest(tmp_path / "two.csv", ["rocket", "rocket"], id="ab")
    batch = plans(manifest, settings())
    real, tried = optimizer_session.stylize, []

    def stylize_badly(contents, *arguments, **options):
        tried.append((len(contents), arguments[1].optimizer, options["resume"]))
        for iterate in real(contents, *arguments, **options):
            if iterate.last:
                scales = iterate.reports[0].scales
                scales[0] = scales[0]._replace(stop_reason="non-finite")
            yield iterate

    monkeypatch.setattr(optimizer_session, "stylize", stylize_badly)
    rows, _ = stylize(tmp_path, batch)
    assert [row["status"] for row in rows] == ["failed", "ok"]
    assert rows[0]["error_type"] == "NonFiniteError"
    assert tried == [(2, "lbfgs", None), (1, "adam", None)]


def test_a_second_try_leaves_no_checkpoint_of_its_own(tmp_path, monkeypatch):
    """It is of one picture, and would be taken for that of the batch."""
    from nst_ops.engines import optimizer_session

    manifest = write_manifest(tmp_path / "two.csv", ["rocket", "rocket"], id="ab")
    batch = plans(manifest, settings(checkpoint_seconds=0))
    real = optimizer_session.stylize

    def stylize_badly(contents, *arguments, **options):
        for iterate in real(contents, *arguments, **options):
            if iterate.last and len(contents) == 2:
                scales = iterate.reports[0].scales
                scales[0] = scales[0]._replace(stop_reason="non-finite")
            yield iterate

    monkeypatch.setattr(optimizer_session, "stylize", stylize_badly)
    with pytest.raises(Killed):
        stylize(tmp_path, batch, 8, kill)  # five steps of both, and three of one
    rows, _ = stylize(tmp_path, batch)
    assert [(row["status"], row["optimizer"]) for row in rows] == [("ok", "adam"), ("ok", "lbfgs")]
    assert rows[0]["spec_hash"] == batch[0].spec_hash  # the method's own way out


def test_exhausted_memory_halves_the_batch_then_tiles(tmp_path, monkeypatch):
    from nst_ops.engines import optimizer_session

    manifest = write_manifest(tmp_path / "two.csv", ["rocket", "rocket"], id="ab")
    batch = plans(manifest, settings())
    monkeypatch.setattr(optimizer_session, "_SMALL_TILE", 48)
    real, tried = optimizer_session.stylize, []

    def exhaust(contents, *arguments, **options):
        tried.append((len(contents), options["tile"]))
        for iterate in real(contents, *arguments, **options):
            yield iterate  # of which a checkpoint is kept, of a way that leads nowhere
            if options["tile"] is None and iterate.scale == 1:
                raise MemoryError

    monkeypatch.setattr(optimizer_session, "stylize", exhaust)
    rows, _ = stylize(tmp_path, batch)
    assert [row["status"] for row in rows] == ["ok", "ok"]
    assert tried == [(2, None), (1, None), (1, 48), (1, None), (1, 48)]


def test_parts_of_a_batch_that_is_too_large_go_on_too(tmp_path, no_caches):
    manifest = write_manifest(tmp_path / "two.csv", ["rocket", "rocket"], id="ab")
    (plan, _) = plans(manifest, settings())
    one = predict_bytes(plan.size, settings().engine.settings, sources=plan.sources)
    config = settings(memory_limit=one, checkpoint_seconds=0)
    with pytest.raises(Killed):
        stylize(tmp_path, plans(manifest, config), 8, kill)  # within the second picture
    rows, steps = stylize(tmp_path, plans(manifest, config))
    assert [(row["status"], row["batch_size"]) for row in rows] == [("ok", 1), ("ok", 1)]
    # The first is as good as done: it was to be written with the second.
    assert steps == [(1, 2), (0, 3), (1, 1), (1, 2)]


@pytest.mark.parametrize("large", [False, True])
def test_a_batch_is_read_while_another_is_optimized(tmp_path, monkeypatch, large):
    if large:  # whose pixels would take memory
        monkeypatch.setattr(stylizer_module, "_READ_AHEAD_PIXELS", 0)
    manifest = write_manifest(tmp_path / "three.csv", ["rocket", "cat", "coffee"])
    batches = [[plan] for plan in plans(manifest, settings())]
    opened, ahead = threading.Event(), []
    read = Stylizer._load

    def spy(self, batch):
        if batch is batches[1]:
            opened.set()
        return read(self, batch)

    monkeypatch.setattr(Stylizer, "_load", spy)

    def show(iterate):
        if not ahead:
            ahead.append(opened.wait(timeout=1.0 if large else 60.0))

    rows = list(stylizer(tmp_path, batches[0], show=show).stylize_batches(batches))
    assert [(row["status"], row["manifest_line"]) for row in rows] == [
        ("ok", 2),
        ("ok", 3),
        ("ok", 4),
    ]
    assert ahead == [not large]


def test_photo_that_changes_after_planning_is_not_stylized(tmp_path):
    photo = tmp_path / "photo.png"
    manifest = write_manifest(tmp_path / "one.csv", [photo])
    from PIL import Image

    Image.new("RGB", (80, 60), "red").save(photo)
    one = plans(manifest, settings())
    Image.new("RGB", (80, 60), "blue").save(photo)
    (row,), _ = stylize(tmp_path, one)
    assert row["status"] == "failed" and "has changed since the run began" in row["error_message"]


def test_a_photo_that_grows_after_planning_takes_no_memory_that_was_not_planned(tmp_path):
    photo = tmp_path / "photo.png"
    manifest = write_manifest(tmp_path / "one.csv", [photo])
    from PIL import Image

    Image.new("RGB", (80, 60), "red").save(photo)
    one = plans(manifest, settings(), identify=False)
    Image.new("RGB", (800, 600), "red").save(photo)
    (row,), _ = stylize(tmp_path, one)
    assert row["status"] == "failed" and "has changed since the run began" in row["error_message"]
