import time

import pyarrow.parquet
import pytest

from nst_ops.settings import Settings
from pipeline import outputs, work
from pipeline.manifest import Job
from pipeline.supervision import Stopped, Supervisor, TooSlowError

JOB = Job(3, "x", "c.jpg", (("s.jpg", 1.0),), "x.png")


def test_journal_becomes_metadata(tmp_path):
    folder = str(tmp_path)
    work.journal(folder, "dead", [outputs.row("dead", JOB, "failed", error_message="first")])
    work.journal(folder, "dead", [outputs.row("dead", JOB, "ok", started_at=outputs.now())])
    (journal,) = (tmp_path / "work").glob("*.rows")
    journal.write_text(journal.read_text() + '{"run_id": "dead", "manif')  # it died in this line
    assert work.recover(folder, []) == ["dead"]
    (row,) = pyarrow.parquet.read_table(tmp_path / "metadata").to_pylist()
    assert (row["status"], row["manifest_line"]) == ("ok", 3)
    assert not journal.exists() and work.recover(folder, []) == []


def test_progress_of_several_workers_adds_up(tmp_path):
    workers = [work.Progress(str(tmp_path), "run") for _ in range(3)]
    for progress, status in zip(workers, ("ok", "ok", "failed"), strict=True):
        progress.record([outputs.row("run", JOB, status)])
        progress.show("busy")
        progress.flush()
    total = work.read_progress(str(tmp_path), "run")
    assert (total["ok"], total["failed"], total["now"]) == (2, 1, ["busy"] * 3)


def test_supervisor(tmp_path):
    settings, folder = Settings(size=64), str(tmp_path)
    supervisor = Supervisor(folder, "run")
    supervisor.begin((64, 64), 1, settings, timeout=0.0)
    with pytest.raises(TooSlowError, match="timeout_seconds"):
        supervisor.check()
    supervisor.begin((64, 64), 1, settings, timeout=None)
    supervisor.check()
    work.request_stop(folder, "run", "enough")
    with pytest.raises(Stopped, match="enough"):
        supervisor.check()
    work.clear(folder, "run")
    # Slow so far, so that a picture four times as large does not fit before the deadline.
    supervisor = Supervisor(folder, "run", deadline=time.time() + 100.0)
    supervisor.begin((64, 64), 1, settings, timeout=None)
    supervisor._began -= 50.0
    supervisor.end((64, 64), 1, settings)
    supervisor.begin((64, 64), 1, settings, timeout=None)
    with pytest.raises(Stopped, match="too near"):
        supervisor.begin((128, 128), 1, settings, timeout=None)
