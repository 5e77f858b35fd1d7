import dataclasses
import time

import pyarrow.parquet
import pytest

from pipeline.jobs.job import Job, StyleSource
from pipeline.store import layout, metadata
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
