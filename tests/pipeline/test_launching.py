"""Whole runs, through the real engine in this process."""

import http.server
import json
import threading

import pytest
from apache_beam.options.pipeline_options import DirectOptions

from nst_ops.errors import InputError
from pipeline.errors import ConfigError
from pipeline.jobs.row import STATUSES
from pipeline.jobs.shard import Shard
from pipeline.manifest.parts import JobParts
from pipeline.runs.beam_options import beam_options
from pipeline.runs.merge import merge_shards
from pipeline.runs.preparation import new_spec
from pipeline.store import metadata, records
from pipeline.store.journal import keep_rows
from pipeline.workers.stylizer import Stylizer

from .conftest import settings, write_manifest


def lines(folder, run_id, *columns):
    table = metadata.read_metadata(str(folder), run_id, ["manifest_line", *columns])
    return sorted(tuple(row.values()) for row in table.to_pylist())


def counts(summary):
    return {status: summary[status] for status in STATUSES if summary[status]}


@pytest.fixture
def manifest(tmp_path):
    photos = ["rocket", "cat", tmp_path / "gone.jpg", "coffee", "astronaut"]
    return write_manifest(tmp_path / "manifest.csv", photos)


def test_record_of_a_run(run_manifest, manifest, tmp_path):
    summary = run_manifest(manifest)
    assert counts(summary) == {"ok": 4, "failed": 1} and summary["errors"] == {"InputError": 1}
    record = tmp_path / "out/runs" / summary["run_id"]
    assert {path.name for path in record.iterdir()} == {
        "config.yaml",
        "run.json",
        "summary.json",
        "report.html",
        "_SUCCESS",
    }
    text = (record / "summary.json").read_text()
    assert "Infinity" not in text and json.loads(text) == json.loads(json.dumps(summary))
    assert [path.name for path in (tmp_path / "out/work").rglob("*.*")] == ["files.sqlite"]
    assert not list((tmp_path / "out/runs").rglob("*.gz"))  # the rows on their way to the workers
    assert records.summaries(str(tmp_path / "out"))[0]["run_id"] == summary["run_id"]


def test_rows_that_would_write_one_picture(run_manifest, tmp_path):
    """The first has it, whoever is done first, and in whichever shard."""
    manifest = write_manifest(tmp_path / "m.csv", ["rocket", "cat", "coffee"], id=["a", "a", "b"])
    for shard, expected in ((Shard(1, 2), ["failed"]), (Shard(2, 2), ["ok", "ok"])):
        summary = run_manifest(manifest, shard=shard)
        rows = lines(tmp_path / "out", summary["run_id"], "status", "output", "error_message")
        assert [status for _, status, *_ in rows] == expected
        for line, status, output, message in rows:
            if status == "failed":
                assert (line, output) == (3, "")
                assert message.startswith("'a.png' is written by line 2 already; give")


def test_shards_together_are_the_whole(run_manifest, manifest, tmp_path):
    folder = tmp_path / "out"
    with pytest.raises(InputError, match="nothing to merge"):
        merge_shards(str(folder))
    parts = [run_manifest(manifest, shard=Shard(number, 3)) for number in (1, 3)]
    with pytest.raises(InputError, match="no run of --shard 2/3 has ended"):
        merge_shards(str(folder))
    parts.append(run_manifest(manifest, shard=Shard(2, 3)))
    seen = [line for part in parts for (line,) in lines(folder, part["run_id"])]
    assert sorted(seen) == [2, 3, 4, 5, 6] and min(map(len, map(counts, parts))) > 0

    merged = merge_shards(str(folder))
    assert counts(merged) == {"ok": 4, "failed": 1} and merged["rows"] == 5
    assert lines(folder, merged["run_id"], "status", "run_id") == [
        (line, "failed" if line == 4 else "ok", merged["run_id"]) for line in (2, 3, 4, 5, 6)
    ]
    assert set(merged["merged"]) == {part["run_id"] for part in parts}
    assert (folder / "runs" / merged["run_id"] / "report.html").exists()
    assert counts(run_manifest(manifest)) == {"cached": 4, "failed": 1}


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "1/0", ""])
def test_shards_that_are_none(text):
    with pytest.raises(ConfigError, match="expected NUMBER/COUNT"):
        Shard.parse(text)


def test_failures_are_tried_again_unless_told_not_to(run_manifest, manifest):
    slow = settings(timeout_seconds=1e-6)
    assert counts(run_manifest(manifest, slow)) == {"failed": 5}
    again = run_manifest(manifest, retry_failed=False)
    # The missing photo may have come back: that is known only by looking.
    assert counts(again) == {"failed": 5} and again["errors"] == {
        "InputError": 1,
        "TooSlowError": 4,
    }
    assert counts(run_manifest(manifest)) == {"ok": 4, "failed": 1}
    assert counts(run_manifest(manifest, retry_failed=False)) == {"cached": 4, "failed": 1}


def test_killed_runs_get_a_record(run_manifest, manifest, tmp_path):
    folder = str(tmp_path / "out")
    summary = run_manifest(manifest)
    dead = "20200101T000000Z-abcdef"
    job = metadata.read_metadata(folder, summary["run_id"]).to_pylist()[0] | {"run_id": dead}
    keep_rows(folder, dead, [job])
    (tmp_path / "out/runs" / dead).mkdir()
    begun = json.loads((tmp_path / "out/runs" / summary["run_id"] / "run.json").read_text())
    (tmp_path / "out/runs" / dead / "run.json").write_text(json.dumps(begun | {"run_id": dead}))
    half = tmp_path / "out/images/.nst-0123456789abcdef"
    half.write_text("a part of a picture")
    mine = half.with_name(".nst-mine.png")  # a name that a manifest may give
    mine.write_text("")
    run_manifest(manifest)
    assert mine.exists() and not half.exists()
    first = records.summaries(folder)[0]
    assert (first["run_id"], first["stopped"]) == (dead, "it was killed")
    assert sum(first[status] for status in STATUSES) == 1


@pytest.mark.parametrize(("launcher", "kept"), [("", False), ("123-abc", True)])
def test_a_cluster_may_end_what_a_dead_launcher_began(
    run_manifest, manifest, tmp_path, launcher, kept
):
    out, dead = tmp_path / "out", "20200101T000000Z-abcdef"
    summary = run_manifest(manifest)
    begun = json.loads((out / "runs" / summary["run_id"] / "run.json").read_text())
    begun |= {"run_id": dead, "launcher": launcher}
    part = out / "runs" / dead / "jobs/00000.jsonl.gz"
    half = out / "metadata" / f"run_id={dead}" / "beam-temp-part-made-1/2.parquet"
    for path in (part, half):
        path.parent.mkdir(parents=True)
        path.touch()
    records.write_record(str(out), dead, "run.json", begun)
    run_manifest(manifest)
    assert (part.exists(), half.exists()) == (kept, kept)
    run_manifest(manifest)
    assert not part.exists() and not half.exists()


@pytest.mark.parametrize("answer", [200, 500, None])
def test_summary_is_posted_and_nobody_has_to_listen(run_manifest, manifest, tmp_path, answer):
    received = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(answer)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/secret"
        if answer is None:
            url = "http://127.0.0.1:1/secret"
        warnings = []
        summary = run_manifest(manifest, settings(notify_url=url), warnings=warnings)
        server.shutdown()
    if answer is not None:
        assert received == [json.loads(json.dumps(summary))]
    assert bool(warnings) == (answer != 200)
    written = (tmp_path / "out/runs" / summary["run_id"] / "config.yaml").read_text()
    assert "secret" in written and url not in written


def test_few_failures_among_many_rows_do_not_end_a_run(run_manifest, tmp_path):
    photos = [tmp_path / f"{index}.jpg" for index in range(30)] + ["rocket"] * 40
    ids = [str(index) for index in range(70)]
    manifest = write_manifest(tmp_path / "manifest.csv", photos, id=ids)
    summary = run_manifest(manifest, settings(max_failure_ratio=0.5))
    assert counts(summary) == {"ok": 40, "failed": 30} and not summary["stopped"]
    # Judged at the end too, however short the run was.
    assert "max_failure_ratio" in run_manifest(manifest, settings(max_failure_ratio=0.4))["stopped"]


def test_failed_run_says_so(run_manifest, manifest, tmp_path, monkeypatch):
    def broken(*arguments):
        raise TypeError("of ours")

    monkeypatch.setattr("pipeline.workers.stylizer.Stylizer.stylize_batches", broken)
    with pytest.raises(RuntimeError, match="of ours"):
        run_manifest(manifest)
    (summary,) = records.summaries(str(tmp_path / "out"))
    assert summary["stopped"].startswith("failed: ") and "of ours" in summary["stopped"]
    assert not list((tmp_path / "out/runs").rglob("*.gz"))
    monkeypatch.undo()
    assert counts(run_manifest(manifest)) == {"ok": 4, "failed": 1}


def test_failed_run_says_what_it_made(run_manifest, manifest, tmp_path, monkeypatch):
    real = Stylizer.stylize_batches

    def broken(*arguments):
        yield from real(*arguments)
        raise TypeError("of ours")

    monkeypatch.setattr(Stylizer, "stylize_batches", broken)
    with pytest.raises(RuntimeError, match="of ours"):
        run_manifest(manifest)
    (summary,) = records.summaries(str(tmp_path / "out"))
    assert counts(summary) == {"ok": 4, "failed": 1}
    monkeypatch.undo()
    run_manifest(manifest)
    rows = lines(tmp_path / "out", summary["run_id"], "status")
    assert [status for _, status in rows] == ["ok"] * 4


def test_checkpoints_stay_until_all_shards_are_done(run_manifest, manifest, tmp_path):
    checkpoint = tmp_path / "out/work/checkpoints/some.npz"
    first, second = Shard(1, 2), Shard(2, 2)
    run_manifest(manifest, shard=first, deadline=0.0)
    checkpoint.parent.mkdir()
    checkpoint.touch()
    run_manifest(manifest, shard=second)
    assert checkpoint.exists()
    run_manifest(manifest, shard=first)
    assert not checkpoint.exists()


@pytest.mark.parametrize(
    ("arguments", "processes", "mode"),
    [
        ([], 3, "multi_processing"),
        (["--direct_num_workers=1"], 1, "in_memory"),
        (["--direct_num_workers=5"], 5, "multi_processing"),
        (["--direct_num_workers=0"], 4, "multi_processing"),
        (["--direct_running_mode=in_memory", "--direct_num_workers=5"], 1, "in_memory"),
        (["--direct_running_mode=multi_threading", "--direct_num_workers=5"], 1, None),
        (["--direct_running_mode=multi_processing", "--direct_num_workers=2"], 2, None),
    ],
)
def test_beams_own_options_decide(monkeypatch, arguments, processes, mode):
    monkeypatch.setattr("pipeline.runs.beam_options.cores", lambda: 4)
    config = settings(parallelism=3)
    options = beam_options(arguments, config, 100)
    assert new_spec("m.csv", "out", config, JobParts([]), {}, options).processes == processes
    direct = options.view_as(DirectOptions)
    assert mode is None or direct.direct_running_mode == mode


def test_wrong_mount_does_not_burn_a_night(run_manifest, tmp_path):
    photos = [tmp_path / f"{index}.jpg" for index in range(40)] + ["rocket", "cat"]
    manifest = write_manifest(tmp_path / "manifest.csv", photos)
    long = [{"size": 64, "steps": 100_000}]
    summary = run_manifest(manifest, settings(max_failure_ratio=0.5, scales=long))
    assert summary["stop_reason"] == "failures" and "max_failure_ratio" in summary["stopped"]
    assert counts(summary) == {"failed": 40, "deferred": 2}


def test_all_slots_of_a_flink_cluster_are_taken():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802  # http.server's name
            self.send_response(200 if self.path == "/overview" else 404)
            self.end_headers()
            self.wfile.write(b'{"taskmanagers": 2, "slots-total": 6}')

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        flink = ["--runner=FlinkRunner", f"--flink_master=127.0.0.1:{server.server_port}"]

        def workers(rows, *arguments):
            options = beam_options([*flink, *arguments], settings(), rows)
            return new_spec("m.csv", "out", settings(), JobParts([]), {}, options).workers

        assert (workers(100), workers(4), workers(100, "--parallelism=3")) == (6, 4, 3)
        server.shutdown()
    assert workers(100) == 1  # nobody answers: Flink's default


def test_traces_of_java_are_left_out(run_manifest, tmp_path, monkeypatch):
    java = "job-1 failed: JobException: suppressed\n\tat a.B.c(B.java:1)\nCaused by: java.X: a\n"
    java += "\tat d.E\nCaused by: java.io.IOException: lost it\n\t... 7 more"
    manifest = write_manifest(tmp_path / "one.csv", ["rocket"])

    def fail(self):
        raise RuntimeError(java)

    monkeypatch.setattr("apache_beam.Pipeline.run", fail)
    expected = "job-1 failed: JobException: suppressed; Caused by: java.io.IOException: lost it"
    with pytest.raises(RuntimeError, match=f"^{expected}$"):
        run_manifest(manifest)
    (summary,) = records.summaries(str(tmp_path / "out"))
    assert summary["stopped"].endswith(expected)
