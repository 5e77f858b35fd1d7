"""A picture's hash says what made it, and only that."""

import shlex
import shutil

import numpy as np
import pytest
from PIL import Image

from nst_ops.engines.memory import predict_bytes
from nst_ops.images.codec import probe
from nst_ops.vgg import weights
from pipeline.cli.main import _parser
from pipeline.config.loading import load_config
from pipeline.machine import parallelism
from pipeline.manifest.reader import read_manifest
from pipeline.planning import estimate
from pipeline.planning.planner import Planner
from pipeline.store.metadata import row

from ..conftest import IMAGES
from .conftest import plans, settings, stylizer, write_manifest


@pytest.fixture
def own_files(tmp_path):
    """A manifest of one photo and painting that may be changed."""
    for name in ("rocket", "cafe_terrace_at_night", "pere_tanguy"):
        shutil.copy(IMAGES / f"{name}.jpg", tmp_path)
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("content,style\nrocket.jpg,cafe_terrace_at_night.jpg\n")
    return manifest


def stylize(folder, *batches, **options):
    return list(stylizer(folder, batches[0], **options).stylize_batches(batches))


def test_a_painting_that_changes_gives_no_picture_under_its_old_hash(own_files, tmp_path):
    painting = tmp_path / "cafe_terrace_at_night.jpg"
    before = plans(own_files, settings())
    worker = stylizer(tmp_path / "out", before)
    (first,) = worker.stylize_batches([before])
    shutil.copy(tmp_path / "pere_tanguy.jpg", painting)
    after = plans(own_files, settings())
    (second,) = worker.stylize_batches([after])  # which has the old pixels in memory
    assert first["spec_hash"] != second["spec_hash"] and second["status"] == "ok"
    assert first["loss_last"] != second["loss_last"]
    (alone,) = stylize(tmp_path / "alone", after)
    assert alone["loss_last"] == second["loss_last"]
    (late,) = stylize(tmp_path / "late", before)
    assert late["status"] == "failed" and late["error_path"] == str(painting)
    assert "has changed since the run began" in late["error_message"]


def test_a_first_picture_or_network_that_changes_is_noticed(own_files, tmp_path, monkeypatch):
    first = tmp_path / "first.png"
    Image.new("RGB", (40, 30), "red").save(first)
    network = tmp_path / "network.npz"
    shutil.copy(weights.EMBEDDED, network)
    config = settings(init=str(first), weights=str(network))
    batch = plans(own_files, config)
    assert stylize(tmp_path / "a", batch)[0]["status"] == "ok"
    Image.new("RGB", (40, 30), "blue").save(first)
    (failed,) = stylize(tmp_path / "b", batch)
    assert failed["error_path"] == str(first) and "has changed" in failed["error_message"]
    Image.new("RGB", (40, 30), "red").save(first)
    arrays = dict(np.load(network))
    arrays["block1_conv1/bias"] = arrays["block1_conv1/bias"] + 1.0
    np.savez(network, **arrays)
    weights.load_weights.cache_clear()  # as in a worker process
    (failed,) = stylize(tmp_path / "c", batch)
    assert failed["error_path"] == str(network) and "has changed" in failed["error_message"]


def test_what_adam_makes_for_want_of_memory_says_so(own_files, tmp_path, monkeypatch):
    monkeypatch.setattr(parallelism, "_CACHE", 0)
    plenty = settings()
    (planned,) = plans(own_files, plenty)
    needed = predict_bytes(planned.size, plenty.engine.settings, history=3, sources=planned.sources)
    (short,) = plans(own_files, settings(memory_limit=needed - 1))
    adam_hash = plans(own_files, settings(optimizer="adam"))[0].spec_hash
    assert short.spec_hash == planned.spec_hash != adam_hash
    assert dict(short.spec_hashes)["adam"] == adam_hash

    def statuses(*batches):
        rows = stylize(tmp_path / "out", *batches)
        path = tmp_path / "out/images" / rows[-1]["output"]
        assert probe(path.read_bytes()).provenance["spec_hash"] == rows[-1]["spec_hash"]
        return [(r["status"], r["optimizer"], r["history"], r["spec_hash"]) for r in rows]

    assert statuses([short]) == [("ok", "adam", None, adam_hash)]
    # As long as memory is short, it is the best there is.
    assert statuses([short]) == [("cached", None, None, adam_hash)]
    assert statuses([planned]) == [("ok", "lbfgs", 10, planned.spec_hash)]
    # And a better one is never replaced by a lesser.
    assert statuses([short]) == [("cached", None, None, planned.spec_hash)]


def test_a_checkpoint_of_a_lesser_way_is_left_where_there_is_memory(
    own_files, tmp_path, monkeypatch
):
    monkeypatch.setattr(parallelism, "_CACHE", 0)
    config = settings(checkpoint_seconds=0)
    (planned,) = plans(own_files, config)
    needed = predict_bytes(planned.size, config.engine.settings, history=3, sources=planned.sources)
    (short,) = plans(own_files, settings(checkpoint_seconds=0, memory_limit=needed - 1))

    class Killed(BaseException):
        pass

    def kill(step):
        if "step 2/" in step.text:
            raise Killed

    with pytest.raises(Killed):
        stylize(tmp_path, [short], show=kill)
    with pytest.warns(UserWarning, match="begun with adam, for want of memory"):
        (row,) = stylize(tmp_path, [planned])
    assert (row["optimizer"], row["spec_hash"]) == ("lbfgs", planned.spec_hash)


def test_a_row_says_what_its_bytes_depend_on(own_files, tmp_path):
    (row,) = stylize(tmp_path, plans(own_files, settings()))
    assert row["threads"] >= 1 and row["history"] == 10 and row["tile"] is None


@pytest.mark.parametrize(
    "inert", [{"learning_rate": 0.7}, {"seed": 5}, {"size": 77}, {"quality": 50}, {"steps": 3}]
)
def test_settings_without_effect_leave_pictures_cached(own_files, inert):
    (planned,) = plans(own_files, settings())
    assert plans(own_files, settings(**inert))[0].spec_hash == planned.spec_hash


def test_quality_counts_where_the_format_has_one(own_files):
    hashes = {plans(own_files, settings(format="jpeg", quality=q))[0].spec_hash for q in (50, 60)}
    assert len(hashes) == 2


def test_a_column_that_the_metadata_lacks_is_an_error(own_files):
    (planned,) = plans(own_files, settings())
    with pytest.raises(ValueError, match="no column colour; add it to Row"):
        row("run", planned.job, "ok", colour="red")


def test_the_command_at_the_head_of_a_recorded_config_runs(run_manifest, tmp_path, monkeypatch):
    manifest = write_manifest(tmp_path / "a manifest.csv", ["rocket"])
    config = settings(notify_url="http://127.0.0.1:9/secret")
    summary = run_manifest(manifest, config)
    record = tmp_path / "out/runs" / summary["run_id"]
    text = (record / "config.yaml").read_text()
    assert "secret" in text.splitlines()[1] and "127.0.0.1" not in text
    command = shlex.split(text.splitlines()[0].removeprefix("# "))
    monkeypatch.chdir(record)
    options, rest = _parser().parse_known_args(command[1:])
    assert not rest
    again = load_config(options.config)
    assert again == config.model_copy(update={"notify_url": None})
    repeated = run_manifest(options.manifest, again, folder=options.output)
    assert (repeated["cached"], repeated["ok"]) == (1, 0)


def test_what_a_format_cannot_hold_is_refused_at_planning(tmp_path):
    Image.new("RGB", (16_400, 40)).save(tmp_path / "long.png")
    manifest = write_manifest(tmp_path / "long.csv", [tmp_path / "long.png"])
    config = settings(scales=[{"size": 16_400, "steps": 1}], format="webp")
    found = estimate.examine(str(manifest), config)
    ((line, message),) = found.problems["pictures too large for their format"]
    assert line == 2 and "long.png: 40x16400 px is more than webp can hold" in message
    planner = Planner(config, {})
    with pytest.raises(ValueError, match="webp can hold"):
        planner.plan(next(read_manifest(str(manifest), config)))


def test_paintings_that_are_too_small_are_told_from_photos(tmp_path):
    Image.new("RGB", (300, 2)).save(tmp_path / "tiny.png")
    manifest = tmp_path / "m.csv"
    manifest.write_text(f"content,style\n{IMAGES / 'rocket.jpg'},tiny.png\n")
    found = estimate.examine(str(manifest), settings())
    ((_, message),) = found.problems["paintings too small"]
    assert "tiny.png: a painting of 2x300 px" in message
