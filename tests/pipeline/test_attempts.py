"""A run goes on when its workers die, hang or are starved: `nst run` as users start it."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from nst_ops.images.codec import decode
from pipeline.jobs.job import Job, StyleSource
from pipeline.manifest.parts import JobParts
from pipeline.manifest.reader import checked_rows
from pipeline.runs import attempts
from pipeline.runs.beam_options import beam_options
from pipeline.runs.launcher import execute
from pipeline.runs.preparation import PreparedRun, new_spec
from pipeline.store import metadata, records
from pipeline.store.journal import count_deaths, deaths, keep_rows

from .conftest import settings, write_manifest

# Code that every Python process of a run executes when it starts, by PYTHONPATH.
HOOK = """
import os, sys
COMMAND = " ".join(sys.orig_argv)
if "pipeline.runs.attempts" in COMMAND or "pipeline.workers.sdk_worker" in COMMAND:
    import signal
    import nst_ops.images.codec as images
    real = images.decode
    def decode(data, *arguments, path="", **options):
        if "{photo}" in path and {condition}:
            os.kill(os.getpid(), signal.{signal})
        return real(data, *arguments, path=path, **options)
    images.decode = decode
"""


@pytest.fixture
def hooked(tmp_path, monkeypatch):
    """Makes the processes of a run die, or stop, when they decode a photo."""

    def hook(photo, signal="SIGKILL", condition="True"):
        folder = tmp_path / "hook"
        folder.mkdir()
        text = textwrap.dedent(HOOK).format(photo=photo, signal=signal, condition=condition)
        (folder / "sitecustomize.py").write_text(text)
        monkeypatch.setenv("PYTHONPATH", str(folder))

    return hook


def run(manifest, folder, processes=2, **changes):
    """As `nst run` does, in processes of its own."""
    config = settings(parallelism=processes, batch_size=1, **changes)
    beam = beam_options([], config, 10)
    parts = JobParts(checked_rows(str(manifest), config))
    spec = new_spec(str(manifest), str(folder), config, parts, config.engine.assets(), beam)
    said = []
    prepared = PreparedRun(spec, parts, beam, [])
    summary = execute(prepared, lambda progress: None, said.append)
    rows = metadata.read_metadata(str(folder), spec.run_id).to_pylist()
    return summary, {row["job_id"]: row for row in rows}, said


@pytest.fixture
def manifest(tmp_path):
    names = ["rocket", "cat", "coffee", "astronaut"]
    return write_manifest(tmp_path / "m.csv", names, id=["r", "c", "f", "a"])


@pytest.mark.parametrize("processes", [1, 2])
def test_a_photo_that_kills_its_worker_fails_alone(tmp_path, manifest, hooked, processes):
    # It dies after a second, so that the picture before it is written and its row kept: one killed
    # between the two is found made by the next attempt, as `cached`.
    hooked("coffee", condition="not __import__('time').sleep(1)")
    summary, rows, said = run(manifest, tmp_path / "out", processes)
    assert {key: row["status"] for key, row in rows.items()} == {
        "r": "ok",
        "c": "ok",
        "f": "failed",
        "a": "ok",
    }
    assert rows["f"]["error_type"] == "WorkerDiedError"
    assert "2 workers died while they made it" in rows["f"]["error_message"]
    assert summary["failed"] == 1 and summary["ok"] == 3 and len(said) == 2
    # Their figures are not lost with the process that made them.
    assert all(row["loss_last"] is not None for row in rows.values() if row["status"] == "ok")
    for row in rows.values():
        if row["status"] == "ok":
            decode((tmp_path / "out/images" / row["output"]).read_bytes())
    assert (tmp_path / "out/runs" / summary["run_id"] / "summary.json").exists()
    assert [path.name for path in (tmp_path / "out/work").glob("*.*")] == ["files.sqlite"]


def test_a_worker_that_dies_once_costs_nothing(tmp_path, manifest, hooked):
    mark = tmp_path / "died"
    hooked(
        "cat",
        condition=f"not os.path.exists({str(mark)!r}) and not open({str(mark)!r}, 'w').close()",
    )
    summary, rows, said = run(manifest, tmp_path / "out")
    assert {row["status"] for row in rows.values()} == {"ok"} and len(said) == 1
    assert "going on without it" in said[0]


def test_a_worker_that_hangs_does_not_keep_the_deadline(tmp_path, manifest, hooked, monkeypatch):
    monkeypatch.setattr(attempts, "GRACE", 3.0)
    hooked("coffee", "SIGSTOP")
    config = settings(parallelism=2, batch_size=1)
    beam = beam_options([], config, 10)
    deadline = time.time() + 45.0
    assets = config.engine.assets()
    parts = JobParts(checked_rows(str(manifest), config))
    spec = new_spec(
        str(manifest), str(tmp_path / "out"), config, parts, assets, beam, deadline=deadline
    )
    prepared = PreparedRun(spec, parts, beam, [])
    summary = execute(prepared, lambda progress: None, lambda text: None)
    assert time.time() < deadline + 150.0
    assert summary["deferred"] >= 1 and summary["ok"] >= 1 and summary["stopped"]
    assert summary["ok"] + summary["deferred"] == 4


def test_workers_take_their_code_from_where_nst_is_installed(tmp_path, manifest):
    """Not from files that lie in the current folder."""
    for name in ("queue.py", "pipeline.py", "nst_ops.py"):
        (tmp_path / name).write_text("raise SystemExit('the wrong file')")
    command = [sys.executable, "-P", "-m", "pipeline", "run", "--manifest", str(manifest)]
    command += ["--output", "out", "--set", "size=48", "--set", "steps=1"]
    command += ["--set", "parallelism=2", "--quiet"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out/images").iterdir())) == 4


def test_a_launcher_that_is_killed_takes_its_processes_along(tmp_path, manifest):
    command = [sys.executable, "-m", "pipeline", "run", "--manifest", str(manifest)]
    command += ["--output", str(tmp_path / "out"), "--set", "size=96", "--set", "steps=500"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as launcher:
        progress = tmp_path / "out/work"
        deadline = time.monotonic() + 120.0
        while not list(progress.glob("*.making")) and time.monotonic() < deadline:
            time.sleep(0.2)
        (making, *_) = progress.glob("*.making")
        pid = int(making.name.split("-")[2])
        assert os.path.exists(f"/proc/{pid}")
        launcher.send_signal(signal.SIGKILL)
    for _ in range(100):
        if not os.path.exists(f"/proc/{pid}"):
            break
        time.sleep(0.1)
    assert not os.path.exists(f"/proc/{pid}")


def test_nothing_but_deaths_ends_the_run_with_a_record(tmp_path, manifest, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif 'pipeline.workers.sdk_worker' in ' '.join(sys.orig_argv): os._exit(9)\n"
    )
    with pytest.raises(RuntimeError, match="died 3 times without finishing a picture"):
        run(manifest, tmp_path / "out")
    (summary,) = records.summaries(str(tmp_path / "out"))
    assert "died 3 times" in summary["stopped"]


def test_a_cluster_gets_a_new_job_while_pictures_are_finished(tmp_path):
    folder, jobs, said = str(tmp_path), iter([(2, 3), (4,), ()]), []

    def run():
        for line in next(jobs):
            job = Job(line, "x", "c.jpg", (StyleSource("s.jpg"),), f"{line}.png")
            keep_rows(folder, "run", [metadata.row("run", job, "ok")])
        raise RuntimeError("it gave up")

    with pytest.raises(RuntimeError, match="it gave up"):
        attempts.run_jobs(folder, "run", run, said.append)
    assert said == ["it gave up; going on in a new job"] * 2 and not list(jobs)


def test_deaths_are_counted_for_the_dead_alone(tmp_path):
    folder, run_id = str(tmp_path), "20260101T000000Z-abc"
    (tmp_path / "work").mkdir()
    with subprocess.Popen(["true"]) as gone:
        pass
    for pid, output in ((gone.pid, "dead.png"), (os.getpid(), "living.png")):
        (tmp_path / "work" / f"{run_id}-{pid}-x-1.making").write_text(json.dumps([output]))
    count_deaths(folder, run_id)
    assert deaths(folder, run_id) == {"dead.png": 1}
    assert not list((tmp_path / "work").glob("*.making"))
