import dataclasses
import subprocess
import sys
import time

import pyarrow
import pyarrow.parquet
import pytest

from pipeline.jobs.job import Job, StyleSource
from pipeline.store import layout, metadata, records
from pipeline.store.journal import keep_rows, recover_dead_runs
from pipeline.store.progress import Progress, Tally, clear
from pipeline.store.stop_requests import request_stop
from pipeline.workers.limits import Stopped, Supervisor, TooSlowError

JOB = Job(3, "x", "c.jpg", (StyleSource("s.jpg"),), "x.png")


def test_journal_becomes_metadata(tmp_path):
    folder = str(tmp_path)
    keep_rows(folder, "dead", [metadata.row("dead", JOB, "failed", error_message="first")])
    keep_rows(folder, "dead", [metadata.row("dead", JOB, "ok", started_at=layout.now())])
    (journal,) = (tmp_path / "work").glob("*.rows")
    journal.write_text(journal.read_text() + '{"run_id": "dead", "manif')  # it died in this line
    recover_dead_runs(folder, lambda: ["dead"])
    assert journal.exists()  # it lives
    recover_dead_runs(folder, list)
    (row,) = pyarrow.parquet.read_table(tmp_path / "metadata").to_pylist()
    assert (row["status"], row["manifest_line"]) == ("ok", 3)
    assert not journal.exists()


def test_journal_completes_metadata(tmp_path):
    """A cluster's run died between its two halves: what needed no picture, and the others."""
    folder = str(tmp_path)
    rows = [metadata.row("dead", dataclasses.replace(JOB, line=line), "ok") for line in (2, 3)]
    half = pyarrow.Table.from_pylist(rows[:1], schema=metadata.schema())
    metadata.write_metadata(folder, "dead", "part-finished-00000-of-00001.parquet", [half])
    keep_rows(folder, "dead", rows)
    recover_dead_runs(folder, list)
    found = metadata.read_metadata(folder, "dead", ["manifest_line"])["manifest_line"].to_pylist()
    assert sorted(found) == [2, 3]


def test_two_that_start_together_both_bury_the_dead(tmp_path):
    folder = str(tmp_path)
    keep_rows(folder, "dead", [metadata.row("dead", JOB, "ok")])
    (journal,) = (tmp_path / "work").glob("*.rows")

    def meanwhile():
        recover_dead_runs(folder, list)
        return []

    recover_dead_runs(folder, meanwhile)
    assert not journal.exists()
    assert len(pyarrow.parquet.read_table(tmp_path / "metadata")) == 1


def test_progress_of_several_workers_adds_up(tmp_path):
    workers = [Progress(str(tmp_path), "run") for _ in range(3)]
    tally = Tally(str(tmp_path), "run")
    for line, (progress, status) in enumerate(zip(workers, ("ok", "ok", "failed"), strict=True)):
        job = dataclasses.replace(JOB, line=line)
        progress.record([metadata.row("run", job, status)])
        progress.show("busy", least=0.0)
    total = tally.read()
    assert (total["ok"], total["failed"], total["now"]) == (2, 1, ["busy"] * 3)
    # What an engine does again, since it lost a worker, counts once.
    again = Progress(str(tmp_path), "run")
    again.record([metadata.row("run", dataclasses.replace(JOB, line=1), "cached")])
    again.record([metadata.row("run", dataclasses.replace(JOB, line=7), "cached")])
    total = tally.read()
    assert (total["ok"], total["failed"], total["cached"]) == (2, 1, 1)


def test_supervisor(tmp_path):
    folder = str(tmp_path)
    supervisor = Supervisor(folder, "run")
    supervisor.begin(1000, timeout=0.0)
    with pytest.raises(TooSlowError, match="timeout_seconds"):
        supervisor.check()
    supervisor.begin(1000, timeout=None)
    supervisor.check()
    request_stop(folder, "run", "signal", "enough")
    with pytest.raises(Stopped, match="enough"):
        supervisor.check()
    clear(folder, "run")
    # Fast enough for one more like the best so far, but not for one of four times the cost.
    supervisor = Supervisor(folder, "run", deadline=time.time() + 100.0)
    for seconds in (90.0, 50.0, 70.0):
        supervisor.begin(1000, timeout=None)
        supervisor._began -= seconds
        supervisor.end(1000)
    supervisor.begin(1000, timeout=None)
    supervisor.begin(0, timeout=None)  # nearly done, from a checkpoint
    with pytest.raises(Stopped, match="too near"):
        supervisor.begin(4000, timeout=None)


def test_a_forgotten_worker_ends_when_its_run_is_over(tmp_path):
    folder, run_id = str(tmp_path), "20260101T000000Z-abc"
    code = "import sys, time; from pipeline.workers import limits as s; s._LOOK_SECONDS = 0.1;"
    code += "s.end_with_run(*sys.argv[1:]); print('works', flush=True); time.sleep(60); sys.exit(1)"
    words = [sys.executable, "-c", code, folder, run_id]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as worker:
        assert worker.stdout and worker.stdout.readline()
        # Of a run whose launcher died another one says so, and asks it to stop.
        request_stop(folder, run_id, "abandoned", "its launcher died")
        records.write_record(folder, run_id, "summary.json", {"stopped": "it was killed"})
        with pytest.raises(subprocess.TimeoutExpired):
            worker.wait(1.0)
        clear(folder, run_id)
        assert worker.wait(30.0) == 0
